// A PNG file of RGB pixels, with a text in it. A canvas writes PNGs too, but no texts.

const TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let bit = 0; bit < 8; bit++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

export function crc32(bytes) {
  let sum = 0xffffffff;
  for (const byte of bytes) sum = TABLE[(sum ^ byte) & 255] ^ (sum >>> 8);
  return (sum ^ 0xffffffff) >>> 0;
}

function chunk(kind, data) {
  const bytes = new Uint8Array(12 + data.length), view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(ascii(kind), 4);
  bytes.set(data, 8);
  view.setUint32(8 + data.length, crc32(bytes.subarray(4, 8 + data.length)));
  return bytes;
}

const ascii = (text) => Uint8Array.from(text, (c) => c.charCodeAt(0));

// Pixels [H, W, 3] and an ASCII text under a keyword -> a Blob.
export async function encodePng(pixels, width, height, keyword, text) {
  const header = new Uint8Array(13), view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, 2], 8); // bits of a value, RGB
  const stride = 3 * width;
  const lines = new Uint8Array(height * (1 + stride)); // each begins with its filter: none
  for (let y = 0; y < height; y++) lines.set(pixels.subarray(y * stride, (y + 1) * stride), y * (1 + stride) + 1);
  const packed = new Blob([lines]).stream().pipeThrough(new CompressionStream('deflate'));
  const data = new Uint8Array(await new Response(packed).arrayBuffer());
  return new Blob([
    Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10), chunk('IHDR', header),
    chunk('tEXt', ascii(`${keyword}\0${text}`)), chunk('IDAT', data), chunk('IEND', new Uint8Array(0)),
  ], { type: 'image/png' });
}
