// The studio's requests, answered in this page: the same functions as the studio's own api.js, without a server.
import { Engine } from './engine.js';
import { enlarge } from './enlarge.js';
import { Failure } from './failure.js';
import { describe, searchClasses } from './model.js';
import { encodePng } from './png.js';
import { arraysOf, recipeOf, rowOf } from './rows.js';

export { Failure };

export const engine = new Engine();
let final = ''; // why this browser will never draw

const mib = (bytes) => (bytes / 2 ** 20).toFixed(1);

function progress(loaded, total) {
  document.getElementById('loading').hidden = false;
  const done = loaded === total;
  document.getElementById('loading-bar').value = loaded / total;
  document.getElementById('loading-text').textContent = done ? 'Starting the engine …'
    : `Loading ${mib(loaded)} of ${mib(total)} MiB`;
}

async function health() {
  if (final) return { ready: false, message: final, final: true };
  try {
    if (typeof WebAssembly !== 'object') throw new Failure(501, 'engine', 'this browser has no WebAssembly');
    await engine.load(progress);
    return { ready: true, message: '' };
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if (![0, 502, 504].includes(error.status)) final = error.message;
    return { ready: false, message: error.message, final: final !== '' };
  } finally {
    document.getElementById('loading').hidden = true;
  }
}

export async function json(method, path) {
  const { pathname, searchParams } = new URL(path, location.href);
  if (pathname === '/api/health') return health();
  if (pathname === '/api/model') return describe(engine.manifest, engine.about);
  if (pathname === '/api/classes') {
    return searchClasses(engine.manifest, searchParams.get('q') ?? '', Number(searchParams.get('limit') ?? 20));
  }
  throw new Failure(404, 'not_found', `this page has no ${path}`);
}

// What each request draws; a picture that somebody waits for is urgent.
const ROWS = {
  '/api/image': (body) => [body],
  '/api/gallery': ({ seeds, ...rest }) => seeds.map((seed) => ({ ...rest, seed })),
  '/api/sweep': ({ walk, alphas, ...rest }) => alphas.map((alpha) => ({ ...rest, edits: [...rest.edits, { ...walk, alpha }] })),
  '/api/thumbnails': ({ edits, ...rest }) => edits.map((edit) => ({ ...rest, edits: [edit] })),
};

// Pixels [H, N * W, 3] of all rows, side by side.
async function draw(path, body, signal) {
  const { manifest } = engine, rows = ROWS[path](body).map((one) => rowOf(manifest, one));
  const drawn = rows.map((row) => engine.draw(arraysOf(manifest, row), { signal, urgent: path === '/api/image' }));
  const { resolution: height, width = height } = manifest.generator;
  return { rows, pictures: await Promise.all(drawn), width, height };
}

export async function bitmap(path, body, signal) {
  const { pictures, width, height } = await draw(path, body, signal);
  const started = performance.now(); // the engine's own time is known, and what else this thread did meanwhile does not count
  const wide = width * pictures.length, data = new Uint8ClampedArray(4 * wide * height).fill(255);
  pictures.forEach(({ pixels }, n) => {
    for (let y = 0; y < height; y++) {
      for (let x = 0, from = 3 * y * width, to = 4 * (y * wide + n * width); x < width; x++, from += 3, to += 4) {
        data[to] = pixels[from];
        data[to + 1] = pixels[from + 1];
        data[to + 2] = pixels[from + 2];
      }
    }
  });
  const image = await createImageBitmap(new ImageData(data, wide, height));
  return { image, ms: pictures.reduce((sum, { ms }) => sum + ms, performance.now() - started) };
}

// A picture as a PNG file that carries its recipe.
export async function call(method, path, body, signal) {
  const { rows: [row], pictures: [{ pixels }], width, height } = await draw(path, body, signal);
  const scale = body.scale ?? 1, large = enlarge(pixels, width, height, scale);
  const recipe = recipeOf(engine.manifest, row, scale);
  return new Response(await encodePng(large, width * scale, height * scale, 'latentclr', recipe));
}
