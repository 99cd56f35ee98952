// Seeds to latent codes, as serving/contract/latents.py draws them: a seed is the same picture everywhere.

// numpy's RandomState: the Mersenne Twister (Matsumoto, Nishimura 1998), seeded with one number of 32 bits.
export class RandomState {
  #key = new Uint32Array(624);
  #at = 624;
  #second = null; // of a pair of normals

  constructor(seed) {
    const key = this.#key;
    key[0] = seed;
    for (let i = 1; i < 624; i++) {
      const last = key[i - 1] ^ (key[i - 1] >>> 30);
      key[i] = Math.imul(1812433253, last) + i;
    }
  }

  #word() {
    const key = this.#key;
    if (this.#at === 624) {
      for (let i = 0; i < 624; i++) {
        const y = (key[i] & 0x80000000) | (key[(i + 1) % 624] & 0x7fffffff);
        key[i] = key[(i + 397) % 624] ^ (y >>> 1) ^ (y & 1 ? 0x9908b0df : 0);
      }
      this.#at = 0;
    }
    let y = key[this.#at++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  // In [0, 1), with 53 bits.
  uniform() {
    const high = this.#word() >>> 5, low = this.#word() >>> 6;
    return (high * 67108864 + low) / 9007199254740992;
  }

  // Standard normal, by Marsaglia's polar method: the second of a pair first.
  normal() {
    if (this.#second !== null) {
      const kept = this.#second;
      this.#second = null;
      return kept;
    }
    for (;;) {
      const x = 2 * this.uniform() - 1, y = 2 * this.uniform() - 1, r = x * x + y * y;
      if (r >= 1 || r === 0) continue;
      const f = Math.sqrt((-2 * Math.log(r)) / r);
      this.#second = f * x;
      return f * y;
    }
  }
}

// The code z [D] of a seed, of a manifest's `latent`.
export function drawCode({ dim, sampler, truncation }, seed) {
  const random = new RandomState(seed);
  if (sampler === 'standard_normal') return Float32Array.from({ length: dim }, () => random.normal());
  // A normal cut at +-2: uniform numbers through its quantile function.
  const below = 0.02275013194817921, above = 0.9772498680518208; // its distribution function there
  return Float32Array.from({ length: dim }, () => quantile(below + random.uniform() * (above - below)) * (truncation ?? 1));
}

// The standard normal's quantile function for p in [0.01, 0.99]: algorithm AS 241 (Wichura 1988), and each sum in the order
// in which Python's `statistics` has it.
export function quantile(p) {
  const q = p - 0.5;
  if (Math.abs(q) <= 0.425) {
    const r = 0.180625 - q * q;
    return (sum(CENTRE, r) * q) / sum(CENTRE_BELOW, r);
  }
  const r = Math.sqrt(-Math.log(q <= 0 ? p : 1 - p)) - 1.6;
  const x = sum(SIDE, r) / sum(SIDE_BELOW, r);
  return q < 0 ? -x : x;
}

// A polynomial, its highest power first.
const sum = (factors, r) => factors.reduce((value, factor) => value * r + factor);

const CENTRE = [
  2509.0809287301227, 33430.57558358813, 67265.7709270087, 45921.95393154987,
  13731.69376550946, 1971.5909503065513, 133.14166789178438, 3.3871328727963665,
];
const CENTRE_BELOW = [
  5226.495278852854, 28729.085735721943, 39307.89580009271, 21213.794301586597,
  5394.196021424751, 687.1870074920579, 42.31333070160091, 1,
];
const SIDE = [
  0.0007745450142783414, 0.022723844989269184, 0.2417807251774506, 1.2704582524523684,
  3.6478483247632045, 5.769497221460691, 4.630337846156546, 1.4234371107496835,
];
const SIDE_BELOW = [
  1.0507500716444169e-09, 0.0005475938084995345, 0.015198666563616457, 0.14810397642748008,
  0.6897673349851, 1.6763848301838038, 2.053191626637759, 1,
];
