// Two rows of small pictures: the walk along one edit, and seeds to choose from.
import { $, drawTile, el, signed } from './dom.js';

const TILE = 128, WALK = 7, SEEDS = 12, SEEDS_AT_ONCE = 4, MAX_SEED = 2 ** 32 - 1;

// Even steps; where 0 is inside, as many on each side of it, for 0 is the picture that is edited.
export function walkAlphas([low, high]) {
  const half = (WALK - 1) / 2;
  const at = low < 0 && high > 0
    ? (i) => ((i < half ? -low : high) * (i - half)) / half
    : (i) => low + ((high - low) * i) / (WALK - 1);
  return Array.from({ length: WALK }, (_, i) => Math.round(at(i) * 100) / 100 || 0);
}

function tile(caption, label, onclick) {
  const canvas = el('canvas', { width: TILE, height: TILE, ariaHidden: 'true' });
  const button = el('button', { type: 'button', className: 'tile', ariaLabel: label, onclick }, canvas,
    el('span', {}, caption));
  return { li: el('li', {}, button), button, canvas };
}

export class Walk {
  #drawn = '';
  #key = null;
  #alphas = [];
  #tiles = [];

  // `choose(key, alpha)` sets an edit to a strength.
  constructor(choose) { this.choose = choose; }

  draw(image, alphas, key, title) {
    const wanted = `${key} ${alphas}`;
    if (wanted !== this.#drawn) { // keep the buttons, and the focus, while only the pictures change
      this.#drawn = wanted;
      this.#key = key;
      this.#alphas = alphas;
      this.#tiles = alphas.map((alpha) => tile(
        signed(alpha), `${title} at ${signed(alpha)}`, () => this.choose(key, alpha),
      ));
      $('walk').replaceChildren(...this.#tiles.map((one) => one.li));
    }
    $('walk-title').textContent = `Walk: ${title}`;
    $('walk').removeAttribute('data-stale');
    this.#tiles.forEach(({ canvas }, i) => drawTile(canvas, image, i, alphas.length));
  }

  // Other edits than when it was drawn.
  stale() { $('walk').dataset.stale = ''; }

  // Marks the tile nearest to the slider, if it is this edit's walk.
  mark(key, alpha) {
    const distance = this.#alphas.map((other) => Math.abs(other - alpha));
    const nearest = key === this.#key ? distance.indexOf(Math.min(...distance)) : -1;
    this.#tiles.forEach(({ button }, i) => {
      if (i === nearest) button.setAttribute('aria-current', 'true');
      else button.removeAttribute('aria-current');
    });
  }
}

export class Gallery {
  #start = null;
  #drawn = '';
  #tiles = [];
  #turn = 0;

  // `ask(seeds)` resolves to one picture of them all, side by side.
  constructor(ask, choose) {
    this.ask = ask;
    this.choose = choose;
    $('gallery-less').addEventListener('click', () => this.#page(-SEEDS));
    $('gallery-more').addEventListener('click', () => this.#page(SEEDS));
  }

  #page(step) {
    this.#start = Math.min(MAX_SEED - SEEDS + 1, Math.max(0, this.#start + step));
    this.#draw();
  }

  // Shows the page that holds the seed; of no seed (null) any.
  show(seed, classId) {
    this.classId = classId;
    if (this.#start === null || (seed !== null && (seed < this.#start || seed >= this.#start + SEEDS))) {
      this.#start = Math.min((seed ?? 0) - ((seed ?? 0) % SEEDS), MAX_SEED - SEEDS + 1);
    }
    this.seed = seed;
    return this.#draw();
  }

  forget() { this.#drawn = ''; }

  async #draw() {
    const wanted = `${this.#start} ${this.classId}`;
    if (wanted !== this.#drawn) {
      const turn = ++this.#turn;
      const seeds = Array.from({ length: SEEDS }, (_, i) => this.#start + i);
      this.#tiles = seeds.map((seed) => tile(String(seed), `Seed ${seed}`, () => this.choose(seed)));
      $('gallery').replaceChildren(...this.#tiles.map((one) => one.li));
      this.#drawn = wanted;
      this.#mark();
      // A few at a time, so that the first ones appear soon and sliders are not kept waiting.
      for (let at = 0; at < SEEDS; at += SEEDS_AT_ONCE) {
        const some = seeds.slice(at, at + SEEDS_AT_ONCE);
        const image = await this.ask(some);
        if (turn !== this.#turn) return; // another page was asked for meanwhile
        if (!image) { this.#drawn = ''; return; }
        some.forEach((_, i) => drawTile(this.#tiles[at + i].canvas, image, i, some.length));
      }
    }
    this.#mark();
  }

  #mark() {
    this.#tiles.forEach(({ button }, i) => {
      if (this.#start + i === this.seed) button.setAttribute('aria-current', 'true');
      else button.removeAttribute('aria-current');
    });
  }
}
