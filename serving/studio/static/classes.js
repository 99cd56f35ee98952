// Search for a class: the combobox pattern of the ARIA guide.
import { $, el } from './dom.js';
import { json } from './api.js';

export class ClassSearch {
  #options = [];
  #at = -1;
  #turn = 0;
  #current = null;

  constructor(choose, failed) {
    this.choose = choose;
    this.failed = failed;
    this.input = $('class');
    this.list = $('class-list');
    this.input.addEventListener('input', () => this.#search(this.input.value));
    this.input.addEventListener('focus', () => { this.input.select(); this.#search(''); });
    this.input.addEventListener('blur', () => setTimeout(() => this.#close(), 150));
    this.input.addEventListener('keydown', (event) => this.#key(event));
  }

  async show(id) {
    if (id === this.#current?.id) return;
    const found = await json('GET', `/api/classes?limit=100&q=${id}`);
    this.#current = found.find((one) => one.id === id) ?? { id, name: `class ${id}` };
    this.input.value = this.#current.name;
  }

  async #search(text) {
    const turn = ++this.#turn;
    try {
      const found = await json('GET', `/api/classes?limit=50&q=${encodeURIComponent(text.slice(0, 100))}`);
      if (turn === this.#turn && document.activeElement === this.input) this.#open(found);
    } catch (error) {
      this.failed(error);
    }
  }

  #open(found) {
    this.#options = found;
    this.#at = -1;
    this.list.replaceChildren(...found.map((one, i) => el('li', {
      id: `class-${i}`, role: 'option', ariaSelected: 'false', onmousedown: () => this.#take(one),
    }, one.name, el('small', {}, ` ${one.id}`))));
    if (!found.length) this.list.append(el('li', { className: 'none' }, 'No class of that name'));
    this.list.hidden = false;
    this.input.setAttribute('aria-expanded', 'true');
    this.input.removeAttribute('aria-activedescendant');
  }

  #close() {
    this.#turn++;
    this.list.hidden = true;
    this.input.setAttribute('aria-expanded', 'false');
    this.input.removeAttribute('aria-activedescendant');
    if (this.#current) this.input.value = this.#current.name;
  }

  #take(one) {
    this.#current = one;
    this.#close();
    this.choose(one.id);
  }

  #key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && this.#options.length) {
      event.preventDefault();
      const count = this.#options.length;
      this.#at = this.#at < 0 ? (step > 0 ? 0 : count - 1) : (this.#at + step + count) % count;
      [...this.list.children].forEach((node, i) => node.setAttribute('aria-selected', String(i === this.#at)));
      this.list.children[this.#at].scrollIntoView({ block: 'nearest' });
      this.input.setAttribute('aria-activedescendant', `class-${this.#at}`);
    } else if (event.key === 'Enter' && !this.list.hidden) {
      const one = this.#options[Math.max(0, this.#at)];
      if (one) this.#take(one);
    } else if (event.key === 'Escape') {
      this.#close();
    }
  }
}
