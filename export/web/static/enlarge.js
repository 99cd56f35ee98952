// Pictures enlarged smoothly, pixel for pixel as serving/client/images.py does it with Pillow's bicubic filter: so the
// recipe of a large picture makes it again.

const BITS = 22; // of the weights' fractions

// Pixels [H, W, 3] -> [scale * H, scale * W, 3], first along the rows, then along the columns, rounded in between.
export function enlarge(pixels, width, height, scale) {
  if (scale === 1) return pixels;
  return filter(filter(pixels, height, width, 3, scale), 1, height, 3 * width * scale, scale);
}

// Values [A, S, B] -> [A, scale * S, B].
function filter(values, a, size, b, scale) {
  const out = new Uint8ClampedArray(values.length * scale);
  const weights = Array.from({ length: size * scale }, (_, x) => weightsOf(x, size, scale));
  for (let i = 0; i < a; i++) {
    weights.forEach(({ first, factors }, x) => {
      const from = (i * size + first) * b, to = (i * size * scale + x) * b;
      for (let j = 0; j < b; j++) {
        let sum = 1 << (BITS - 1);
        for (let k = 0; k < factors.length; k++) sum += factors[k] * values[from + k * b + j];
        out[to + j] = sum >> BITS;
      }
    });
  }
  return new Uint8Array(out.buffer);
}

// Which of the S values make value x of scale * S, and how much of each.
function weightsOf(x, size, scale) {
  const centre = (x + 0.5) / scale;
  const first = Math.max(0, Math.trunc(centre - 2 + 0.5)), end = Math.min(size, Math.trunc(centre + 2 + 0.5));
  const values = Array.from({ length: end - first }, (_, i) => bicubic(first + i - centre + 0.5));
  const share = 1 / values.reduce((sum, value) => sum + value, 0);
  return { first, factors: values.map((value) => fixed(value * share)) };
}

const fixed = (value) => Math.trunc((value < 0 ? -0.5 : 0.5) + value * 2 ** BITS);

// Keys' cubic convolution, a = -0.5.
function bicubic(x) {
  const t = Math.abs(x);
  if (t < 1) return (1.5 * t - 2.5) * t * t + 1;
  return t < 2 ? (((t - 5) * t + 8) * t - 4) * -0.5 : 0;
}
