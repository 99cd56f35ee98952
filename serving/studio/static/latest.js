// How long answers take, and "the newest wins".

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
