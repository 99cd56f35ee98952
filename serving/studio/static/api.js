// Requests to the studio's API: typed failures, latency, and "the newest wins".

export class Failure extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status; // 0: the studio itself does not answer
    this.code = code;
  }
  get lost() { return this.status === 0 || this.status === 502 || this.status === 503 || this.status === 504; }
}

const TIMEOUT_MS = 90_000;

export async function call(method, path, body, signal) {
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  const options = { method, signal: signal ? AbortSignal.any([signal, timeout]) : timeout };
  if (body !== undefined) {
    options.headers = { 'Content-Type': 'application/json' };
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Failure(0, 'unreachable', 'the studio does not answer');
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => null);
  throw new Failure(response.status, told?.error?.code ?? 'unknown', told?.error?.message ?? response.statusText);
}

export async function json(method, path, body) {
  const response = await call(method, path, body);
  return response.status === 204 ? null : response.json();
}

export async function bitmap(path, body, signal) {
  const started = performance.now();
  const response = await call('POST', path, body, signal);
  const image = await createImageBitmap(await response.blob());
  return { image, ms: performance.now() - started };
}

// Median of the last answers.
export class Latency {
  #recent = [];
  add(ms) { this.#recent = [...this.#recent.slice(-49), ms]; }
  get p50() {
    const sorted = [...this.#recent].sort((a, b) => a - b);
    return sorted.length ? sorted[Math.floor((sorted.length - 1) / 2)] : null;
  }
}

// One job at a time. While it runs only the newest of the others waits, so a dragged slider never builds a queue.
// The running one is finished: aborting it would show nothing at all while a slow model is dragged. Only when its
// answer would be wrong by now (another seed) is it aborted.
export class Latest {
  #running = null;
  #waiting = null;
  #idle = [];
  // Resolves when nothing runs: what can wait lets sliders go first.
  idle() { return this.#running ? new Promise((resolve) => this.#idle.push(resolve)) : Promise.resolve(); }
  run(job, { abort = false } = {}) {
    if (this.#running) {
      this.#waiting = job;
      if (abort) this.#running.abort();
      return;
    }
    this.#start(job);
  }
  async #start(job) {
    const controller = this.#running = new AbortController();
    try {
      await job(controller.signal);
    } catch (error) {
      if (!controller.signal.aborted) throw error;
    } finally {
      this.#running = null;
      const next = this.#waiting;
      this.#waiting = null;
      if (next) this.#start(next);
      else this.#idle.splice(0).forEach((resolve) => resolve());
    }
  }
}
