// Whether the model answers: shows a loss, tries again with growing pauses, and tells when it is back.
import { $ } from './dom.js';
import { json } from './api.js';

const CALM_MS = 5000, FIRST_MS = 300, LONGEST_MS = 4000;

export class Connection {
  #up = null; // not known yet
  #pause = FIRST_MS;
  #timer = 0;

  // `back` is called when the model answers again, `turned` when its state has changed.
  constructor(back, turned) {
    this.back = back;
    this.turned = turned;
    document.addEventListener('visibilitychange', () => { if (!document.hidden) this.check(); });
  }

  get up() { return this.#up === true; }
  get down() { return this.#up === false; }

  // `final`: it will not come back by itself.
  lost(message, final = false) {
    if (this.#up !== false) {
      this.#up = false;
      $('banner').textContent = final ? sentence(message) : `${sentence(message)} Trying again …`;
      $('banner').hidden = false;
    }
    this.#show('down', final ? 'stopped' : 'reconnecting');
    this.turned();
    if (final) return;
    this.#again(this.#pause);
    this.#pause = Math.min(LONGEST_MS, this.#pause * 1.7);
  }

  async check() {
    clearTimeout(this.#timer);
    let health;
    try {
      health = await json('GET', '/api/health');
    } catch (error) {
      if (error.status === 401) { this.back(error); return; }
      health = { ready: false, message: error.message };
    }
    if (!health.ready) { this.lost(health.message, health.final); return; }
    const returned = this.#up !== true;
    this.#again(CALM_MS);
    if (!returned) this.#pause = FIRST_MS; // not before: a server may say that it is ready, and lose every picture
    else if (await this.back()) {
      this.#up = true;
      $('banner').hidden = true;
      this.turned();
    }
  }

  latency(p50) {
    if (this.#up !== false) this.#show('up', p50 === null ? 'ready' : `${Math.round(p50)} ms`);
    $('status').title = 'Median time of the last 50 pictures';
  }

  #show(state, text) {
    $('status').dataset.state = state;
    $('status-text').textContent = text;
  }

  #again(ms) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => (document.hidden && this.up ? this.#again(CALM_MS) : this.check()), ms);
  }
}

function sentence(text) {
  const line = text.charAt(0).toUpperCase() + text.slice(1);
  return /[.!?]$/.test(line) ? line : `${line}.`;
}
