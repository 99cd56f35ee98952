// The small picture beside each slider: what its + side alone does to the present seed.
import { clear, drawTile } from './dom.js';

const BATCH_MS = 150, MOST = 32; // what a slider that is touched meanwhile may have to wait, and the API's bound

export class Thumbnails {
  #drawn = '';
  #turn = 0;
  #each = 5; // milliseconds that one picture of a batch takes, as far as known

  // `ask(edits)` resolves to one picture of them all, side by side; `quiet()` when no slider is being moved.
  constructor(ask, quiet) {
    this.ask = ask;
    this.quiet = quiet;
  }

  drawn(subject) { return subject === this.#drawn; }

  // Draws tiles of { canvas, edit }: all in one batch, or for a slow model in several.
  async draw(subject, tiles) {
    if (this.drawn(subject)) return;
    this.stale(tiles);
    this.#drawn = subject;
    const turn = this.#turn;
    for (let at = 0; at < tiles.length;) {
      await this.quiet();
      if (turn !== this.#turn) return;
      const some = tiles.slice(at, at + Math.min(MOST, Math.max(1, Math.floor(BATCH_MS / this.#each))));
      const started = performance.now();
      const image = await this.ask(some.map((tile) => tile.edit));
      if (turn !== this.#turn) return;
      if (!image) {
        this.#drawn = '';
        tiles.slice(at).forEach(({ canvas }) => clear(canvas));
        return;
      }
      this.#each = (performance.now() - started) / some.length;
      some.forEach(({ canvas }, i) => {
        drawTile(canvas, image, i, some.length);
        canvas.dataset.drawn = subject;
      });
      at += some.length;
    }
  }

  // They are of another seed now, and so are answers that are under way.
  stale(tiles) {
    this.#turn++;
    this.#drawn = '';
    for (const { canvas } of tiles) delete canvas.dataset.drawn;
  }
}
