// What was on the screen, step by step: addresses (see state.js), and which of them is shown.
const MOST = 200;

export class Steps {
  #list = [];
  #at = -1;

  // Remembers an address if it is new; what was undone before is then gone.
  record(address) {
    if (address === this.#list[this.#at]) return;
    this.#list.splice(this.#at + 1, Infinity, address);
    this.#list.splice(0, this.#list.length - MOST);
    this.#at = this.#list.length - 1;
  }

  get canUndo() { return this.#at > 0; }
  get canRedo() { return this.#at < this.#list.length - 1; }

  // The address to go to; null if there is none.
  undo() { return this.canUndo ? this.#list[--this.#at] : null; }
  redo() { return this.canRedo ? this.#list[++this.#at] : null; }
}
