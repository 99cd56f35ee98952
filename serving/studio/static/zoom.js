// Looking closer: wheel, double click, two fingers, buttons or keys. Both pictures of a comparison move together.
import { $ } from './dom.js';

const MOST = 8, STEP = 1.5, CLOSE = 3, PAN = 0.1;
const KEYS = { '+': 'in', '=': 'in', '-': 'out', '0': 'reset', ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

export class Zoom {
  // The picture's size and the place of its corner, both in sides of the frame.
  #size = 1;
  #x = 0;
  #y = 0;
  #pointers = new Map();

  constructor(stage, announce) {
    this.stage = stage;
    this.announce = announce;
    $('zoom-in').addEventListener('click', () => this.#key('in'));
    $('zoom-out').addEventListener('click', () => this.#key('out'));
    $('zoom-reset').addEventListener('click', () => this.#key('reset'));
    stage.addEventListener('keydown', (event) => {
      const key = KEYS[event.key];
      if (!key || event.target !== stage || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      this.#key(key);
    });
    stage.addEventListener('wheel', (event) => {
      // Where the page scrolls, the wheel scrolls it; Ctrl, or two fingers on a pad, zoom everywhere.
      const scrolls = document.documentElement.scrollHeight > innerHeight;
      const at = this.#place(event);
      if (!at || (scrolls && !event.ctrlKey)) return;
      event.preventDefault();
      this.#to(this.#size * Math.exp(-event.deltaY / (event.ctrlKey ? 100 : 400)), at);
    }, { passive: false });
    stage.addEventListener('dblclick', (event) => {
      const at = this.#place(event);
      if (at) this.#to(this.#size > 1 ? 1 : CLOSE, at);
    });
    stage.addEventListener('pointerdown', (event) => {
      const at = this.#place(event);
      if (at && event.button === 0) this.#pointers.set(event.pointerId, at);
    });
    for (const end of ['pointerup', 'pointercancel', 'lostpointercapture']) {
      addEventListener(end, (event) => this.#pointers.delete(event.pointerId));
    }
    addEventListener('pointermove', (event) => this.#move(event));
  }

  #key(key) {
    if (Array.isArray(key)) this.#pan(key[0] * PAN, key[1] * PAN);
    else this.#to({ in: this.#size * STEP, out: this.#size / STEP, reset: 1 }[key]);
    this.announce(`Zoom ${Math.round(this.#size * 100)} percent`);
  }

  // Where in its frame an event is, in sides of the frame; null beside the pictures.
  #place(event, frame = event.target.closest?.('.frame')) {
    if (!frame) return null;
    const box = frame.getBoundingClientRect();
    return { frame, x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  }

  #move(event) {
    const before = this.#pointers.get(event.pointerId);
    if (!before) return;
    const now = this.#place(event, before.frame);
    const [other] = [...this.#pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    this.#pointers.set(event.pointerId, now);
    if (other) { // two fingers: the point between them stays between them
      const span = (at) => Math.hypot(at.x - other.x, at.y - other.y);
      this.#to((this.#size * span(now)) / Math.max(span(before), 0.01), { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 });
    } else if (this.stage.dataset.view !== 'split') { // there a drag moves the divider
      this.#pan(now.x - before.x, now.y - before.y);
    }
  }

  // Keeps what is at a place of the frame there.
  #to(size, at = { x: 0.5, y: 0.5 }) {
    const next = Math.min(MOST, Math.max(1, size));
    this.#x = at.x - ((at.x - this.#x) * next) / this.#size;
    this.#y = at.y - ((at.y - this.#y) * next) / this.#size;
    this.#size = next;
    this.#show();
  }

  #pan(x, y) {
    this.#x += x;
    this.#y += y;
    this.#show();
  }

  #show() {
    const inside = (corner) => Math.min(0, Math.max(1 - this.#size, corner)); // no edge comes into the frame
    this.#x = inside(this.#x);
    this.#y = inside(this.#y);
    const percent = Math.round(this.#size * 100);
    this.stage.style.setProperty('--zoom', this.#size);
    this.stage.style.setProperty('--x', `${100 * this.#x}%`);
    this.stage.style.setProperty('--y', `${100 * this.#y}%`);
    this.stage.classList.toggle('zoomed', this.#size > 1);
    $('zoom-reset').textContent = `${percent} %`;
    $('zoom-reset').setAttribute('aria-label', `Zoom: ${percent} percent; shows all of it`);
    $('zoom-out').disabled = this.#size <= 1;
    $('zoom-in').disabled = this.#size >= MOST;
  }
}
