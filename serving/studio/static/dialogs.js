// The dialogs, and the theme button.
import { Failure, json } from './api.js';
import { $, copy } from './dom.js';
import { lessens } from './sliders.js';

const THEMES = ['system', 'light', 'dark'];

export class Dialogs {
  #submit = null;

  constructor(signedIn) {
    for (const button of document.querySelectorAll('[data-close]')) {
      button.addEventListener('click', () => button.closest('dialog').close());
    }
    for (const button of document.querySelectorAll('[data-copy]')) {
      button.addEventListener('click', async () => {
        const node = $(button.dataset.copy);
        if (await copy(node.textContent, button.textContent.replace('Copy as ', ''))) return;
        getSelection().selectAllChildren(node); // Ctrl-C does the rest
      });
    }
    $('name-form')?.addEventListener('submit', (event) => {
      event.preventDefault();
      this.#submit?.();
    });
    $('token-form')?.addEventListener('submit', async (event) => {
      event.preventDefault();
      try {
        await json('POST', '/api/session', { token: $('token').value });
        $('token').value = '';
        $('token-dialog').close();
        signedIn();
      } catch (error) {
        $('token-problem').textContent = error.message;
      }
    });
  }

  askToken() {
    if (!$('token-dialog').open) $('token-dialog').showModal();
  }

  code({ python, curl }) {
    $('code-python').textContent = python;
    $('code-curl').textContent = curl;
    $('code-dialog').showModal();
  }

  // `save(name, key, edit, body)` rejects with the reason.
  name(model, key, edit, range, save) {
    const layers = edit.layers ? Array.from({ length: edit.layers[1] - edit.layers[0] + 1 }, (_, i) => edit.layers[0] + i) : [];
    const where = layers.length ? `layers ${layers[0]}–${layers.at(-1)}` : model.default_layers.length ? `layers ${model.default_layers.join(', ')}` : model.layers > 1 ? 'all layers' : '';
    $('name-what').textContent = [`Direction ${key}`, where].filter(Boolean).join(', ');
    const score = model.scores[Number(key)];
    $('name-name').value = score?.name ?? '';
    $('name-note').value = '';
    [$('name-low').value, $('name-high').value] = range;
    // More of what is named is where the score says, else where the slider was dragged to.
    const box = $('name-reverse');
    const turn = () => { [$('name-low').value, $('name-high').value] = [-$('name-high').value, -$('name-low').value]; };
    box.checked = score?.name ? lessens(score) : edit.alpha < 0;
    box.onchange = turn;
    if (box.checked) turn();
    let move = false;
    const settle = (question = '') => {
      move = question !== '';
      $('name-problem').textContent = question;
      $('name-submit').textContent = move ? 'Move the name' : 'Save';
    };
    settle();
    $('name-name').oninput = () => settle(); // another name is another question
    this.#submit = async () => {
      const name = $('name-name').value.trim();
      const alpha = [Number($('name-low').value), Number($('name-high').value)];
      const body = { direction: Number(key), layers, alpha, note: $('name-note').value, reverse: box.checked, move };
      try {
        await save(name, key, edit, body);
        $('name-dialog').close();
      } catch (error) {
        if (!(error instanceof Failure)) throw error;
        if (error.code === 'name_taken') settle(`${error.message}. Shall it be direction ${key} instead?`);
        else { settle(); $('name-problem').textContent = error.message; }
      }
    };
    $('name-dialog').showModal();
    $('name-name').focus();
  }
}

export function themeButton(button) {
  const root = document.documentElement;
  const show = () => { button.textContent = `Theme: ${root.dataset.theme ?? 'system'}`; };
  button.addEventListener('click', () => {
    const next = THEMES[(THEMES.indexOf(root.dataset.theme ?? 'system') + 1) % THEMES.length];
    if (next === 'system') delete root.dataset.theme;
    else root.dataset.theme = next;
    try {
      localStorage.setItem('studio-theme', next);
    } catch { /* storage is off: the choice lasts as long as the page */ }
    show();
  });
  show();
}
