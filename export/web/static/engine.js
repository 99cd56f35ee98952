// Draws pictures in this browser: WebGPU where there is one, else WebAssembly. What was loaded is checked against pictures
// that PyTorch drew, before anything is shown.
import { Failure } from './failure.js';
import { address, readBytes, readJson } from './files.js';

const MOST_THREADS = 4, CHECK_MS = 1500;

export class Engine {
  #page = null;
  #worker = null;
  #loading = null;
  #jobs = new Map(); // under way in the worker, by number
  #number = 0;
  #waiting = [];
  #busy = false;

  manifest = null;
  about = null; // { text, note }: what draws

  // Resolves when pictures can be drawn; `progress(loaded, total)` hears of bytes.
  load(progress) {
    this.#loading ??= this.#load(progress).catch((error) => {
      this.#stop();
      throw error;
    });
    return this.#loading;
  }

  async #load(progress) {
    const [page, manifest] = await Promise.all([readJson('page.json'), readJson('manifest.json')]);
    this.#page = page;
    this.manifest = manifest;
    const asked = new URLSearchParams(location.search).get('engine');
    const gpu = asked !== 'wasm' && await hasGpu(asked === 'webgpu');
    const runtime = gpu ? page.runtime.webgpu : page.runtime.wasm;
    const wanted = [page.graph, runtime.binary, page.golden.pictures];
    const total = wanted.flatMap(({ files }) => files).reduce((sum, { bytes }) => sum + bytes, 0);
    let loaded = 0;
    const more = (bytes) => progress(loaded += bytes, total);
    more(0);
    const stop = new AbortController();
    const all = Promise.all(wanted.map((one) => readBytes(one, more, stop.signal)));
    const [graph, binary, golden] = await all.finally(() => stop.abort()); // where one fails, the others are of no use
    const threads = self.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency || 1) : 1;
    this.#worker = new Worker(address('worker.js'), { type: 'module' });
    this.#worker.addEventListener('message', ({ data }) => this.#answered(data));
    this.#worker.addEventListener('error', (event) => {
      this.#broken(event.message || 'its script cannot be run');
    });
    await this.#ask('start', { script: address(runtime.script), module: address(runtime.module), binary, threads }, [binary.buffer]);
    const wasm = `wasm, ${threads} thread${threads > 1 ? 's' : ''}`;
    const alone = threads > 1 ? '' : self.crossOriginIsolated ? 'This machine has one core.'
      : 'One thread, because the host does not isolate the page (headers COOP and COEP).';
    let refused = gpu ? '' : 'No WebGPU here.';
    if (gpu) {
      try {
        await this.#ask('load', { graph, provider: 'webgpu' });
        this.about = tell('WebGPU', await this.#check(golden));
        return;
      } catch (error) {
        refused = `WebGPU is not used: ${error.message}.`;
      }
    }
    await this.#ask('load', { graph, provider: 'wasm' }, [graph.buffer]);
    this.about = tell(wasm, refused, alone, await this.#check(golden));
  }

  // Draws golden requests and holds them against PyTorch's pictures: all of them, or of a slow model the first.
  async #check(golden) {
    const { rows, gate } = this.#page.golden, size = golden.length / rows.length;
    const started = performance.now();
    let worst = 0, count = 0;
    for (const row of rows) {
      const arrays = {
        code: Float32Array.from(row.code), direction: row.direction, alpha: Float32Array.from(row.alpha.flat()),
        classId: row.class_id,
      };
      const { pixels, valid } = await this.#ask('draw', arrays);
      const found = difference(pixels, golden.subarray(count * size, (count + 1) * size));
      count++;
      worst = Math.max(worst, found.worst);
      const good = valid && found.worst <= (gate.worst_step ?? 255) && found.mean <= (gate.mean_step ?? 255)
        && found.psnr >= (gate.psnr_db ?? 0);
      if (!good) throw new Failure(500, 'parity', `this browser draws something else than PyTorch, by up to ${found.worst}/255`);
      if (performance.now() - started > CHECK_MS) break;
    }
    return `${count} golden picture${count > 1 ? 's' : ''} drawn here and by PyTorch: the worst difference is ${worst}/255.`;
  }

  // Draws one row -> { pixels [H, W, 3], ms }; urgent ones before others, and one at a time.
  draw(arrays, { signal, urgent = false } = {}) {
    return new Promise((resolve, reject) => {
      const one = { arrays, urgent, resolve, reject };
      signal?.addEventListener('abort', () => {
        this.#waiting = this.#waiting.filter((other) => other !== one);
        reject(signal.reason);
      });
      if (signal?.aborted) { reject(signal.reason); return; }
      this.#waiting.push(one);
      this.#next();
    });
  }

  async #next() {
    if (this.#busy || !this.#waiting.length) return;
    this.#busy = true;
    const at = Math.max(0, this.#waiting.findIndex(({ urgent }) => urgent));
    const [{ arrays, resolve, reject }] = this.#waiting.splice(at, 1);
    try {
      const { pixels, valid, ms } = await this.#ask('draw', arrays);
      if (valid) resolve({ pixels, ms });
      else reject(new Failure(400, 'invalid_edit', 'these strengths are too large for the generator'));
    } catch (error) {
      reject(error);
      this.#broken(error.message);
    }
    this.#busy = false;
    this.#next();
  }

  #ask(job, input, transfer = []) {
    return new Promise((resolve, reject) => {
      if (!this.#worker) { reject(new Failure(503, 'engine', 'the engine has stopped')); return; }
      this.#jobs.set(++this.#number, { resolve, reject });
      this.#worker.postMessage({ id: this.#number, job, input }, transfer);
    });
  }

  #answered({ id, answer, error }) {
    const job = this.#jobs.get(id);
    this.#jobs.delete(id);
    if (error === undefined) job?.resolve(answer);
    else job?.reject(new Failure(503, 'engine', reason(error)));
  }

  // The worker is of no use any more; the next `load` begins anew.
  #broken(why) {
    this.#stop();
    const failure = new Failure(503, 'engine', reason(why));
    for (const { reject } of this.#jobs.values()) reject(failure);
    for (const { reject } of this.#waiting) reject(failure);
    this.#jobs.clear();
    this.#waiting = [];
  }

  #stop() {
    this.#worker?.terminate();
    this.#worker = null;
    this.#loading = null;
  }
}

const tell = (text, ...why) => ({ text, note: [`Drawn in this browser: ${text}.`, ...why].filter(Boolean).join(' ') });

async function hasGpu(any) {
  try {
    const adapter = await navigator.gpu?.requestAdapter();
    const software = adapter?.info?.isFallbackAdapter ?? adapter?.isFallbackAdapter;
    return Boolean(adapter) && (any || !software);
  } catch {
    return false;
  }
}

// Of two pictures: largest and mean step, and PSNR in decibel.
function difference(one, other) {
  let worst = one.length === other.length ? 0 : 255, sum = 0, squares = 0;
  for (let i = 0; i < one.length; i++) {
    const step = Math.abs(one[i] - other[i]);
    worst = Math.max(worst, step);
    sum += step;
    squares += step * step;
  }
  return { worst, mean: sum / one.length, psnr: squares ? 10 * Math.log10((255 ** 2 * one.length) / squares) : Infinity };
}

function reason(text) {
  if (/memory|allocat|OOM/i.test(text)) return 'this browser has not enough memory for the model';
  return `the engine cannot run the model: ${text.split('\n')[0].slice(0, 200)}`;
}
