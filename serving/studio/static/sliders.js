// The list of edits: one slider for each named edit and each direction.
import { $, el, signed } from './dom.js';
import { active, normal, usual } from './state.js';

export class Sliders {
  #rows = new Map();

  // `on` has: change(key, layers), walk(), name(key), remove(name)
  constructor(model, state, on) {
    this.model = model;
    this.state = state;
    this.on = on;
    this.#build();
  }

  #build() {
    const { model } = this;
    const names = new Map();
    for (const edit of model.edits) names.set(edit.direction, [...(names.get(edit.direction) ?? []), edit.name]);
    const named = model.edits.map((edit) => this.#row(`~${edit.name}`, {
      title: edit.name,
      label: [edit.name],
      detail: [`direction ${edit.direction}`, layersText(edit.layers), edit.note].filter(Boolean).join(' · '),
      range: edit.alpha,
      edit,
    }));
    const plain = Array.from({ length: model.directions }, (_, k) => this.#row(String(k), {
      title: `Direction ${k}`,
      label: [el('span', { className: 'hidden' }, 'Direction '), String(k), ' ',
        el('small', {}, (names.get(k) ?? []).join(', '))],
      range: model.alpha_range,
    }));
    const list = (title, rows, kind) => [el('h3', {}, title), el('ul', { className: kind, ariaLabel: title }, ...rows)];
    $('sliders').replaceChildren(...(named.length ? list('Named', named, 'edits') : []),
      ...list('Directions', plain, names.size ? 'edits' : 'edits numbers'));
    this.refresh();
  }

  #row(key, { title, label, detail = '', range, edit }) {
    const [low, high] = range;
    const id = `slider-${this.#rows.size}`;
    const slider = el('input', {
      type: 'range', id, min: low, max: high, step: niceStep(high - low), value: 0,
      oninput: () => this.#set(key, Number(slider.value)),
      onfocus: () => { this.state.walk = key; this.on.walk(); },
      ondblclick: () => this.#set(key, 0),
    });
    if (detail) slider.setAttribute('aria-describedby', `${id}-detail`);
    const output = el('output', { htmlFor: id });
    const button = (text, ariaLabel, onclick) => el('button', { type: 'button', className: 'quiet', ariaLabel, onclick }, text);
    const tools = el('div', { className: 'edit-tools' });
    if (!edit && this.model.names_writable) {
      tools.append(button('Name', `Name ${title} and save it`, () => this.on.name(key)));
    } else if (edit?.removable) {
      tools.append(button('Delete', `Delete ${title}`, () => this.on.remove(edit.name)));
    }
    tools.append(button('×', `Reset ${title}`, () => { this.#set(key, 0); slider.focus(); }));
    const li = el('li', { className: 'edit' }, el('label', { htmlFor: id }, ...label), slider, output, tools);
    if (detail) li.append(el('p', { className: 'edit-detail', id: `${id}-detail` }, detail));
    const layers = !edit && this.model.layers > 1 ? this.#layerTools(key, title) : null;
    if (layers) li.append(layers);
    li.dataset.text = li.textContent.toLowerCase();
    this.#rows.set(key, { li, slider, output, layers, title, low, high });
    return li;
  }

  // Two boxes, from and to: the latent inputs at which the edit acts.
  #layerTools(key, title) {
    const last = this.model.layers - 1;
    const box = (label, value, name) => el('input', {
      type: 'number', min: 0, max: last, value, className: name, ariaLabel: `${label} of ${title}`, onchange: () => {
        const clamp = (node) => Math.min(last, Math.max(0, Math.round(Number(node.value) || 0)));
        let low = clamp(from), high = clamp(to);
        if (low > high) [low, high] = name === 'from' ? [low, low] : [high, high];
        from.value = low;
        to.value = high;
        this.#edit(key).layers = normal([low, high], this.model);
        this.on.change(key, true);
      },
    });
    const [first, end] = usual(this.model);
    const from = box('First layer', first, 'from'), to = box('Last layer', end, 'to');
    return el('div', { className: 'layers' }, 'Layers', from, '–', to);
  }

  #edit(key) {
    if (!this.state.edits.has(key)) this.state.edits.set(key, { alpha: 0, layers: null });
    return this.state.edits.get(key);
  }

  #set(key, alpha) {
    this.#edit(key).alpha = alpha;
    this.state.walk = key;
    this.refresh();
    this.on.change(key);
  }

  setAlpha(key, alpha) { this.#set(key, alpha); }

  range(key) {
    const row = this.#rows.get(key);
    return row ? [row.low, row.high] : this.model.alpha_range;
  }

  title(key) { return this.#rows.get(key)?.title ?? key; }

  // Writes the state into the controls.
  refresh() {
    let count = 0;
    for (const [key, row] of this.#rows) {
      const edit = this.state.edits.get(key);
      const alpha = edit?.alpha ?? 0;
      const { slider } = row;
      // The range is a hint: an address may hold more.
      slider.min = Math.min(row.low, alpha);
      slider.max = Math.max(row.high, alpha);
      slider.value = alpha;
      slider.setAttribute('aria-valuetext', signed(alpha));
      const share = (value) => (100 * (value - slider.min)) / (slider.max - slider.min);
      const zero = Math.min(100, Math.max(0, share(0))), at = share(alpha);
      slider.style.setProperty('--from', `${Math.min(zero, at)}%`);
      slider.style.setProperty('--to', `${Math.max(zero, at)}%`);
      row.output.value = signed(alpha);
      row.li.classList.toggle('active', alpha !== 0);
      count += alpha !== 0;
      if (row.layers) {
        row.layers.hidden = alpha === 0;
        const [low, high] = edit?.layers ?? usual(this.model);
        row.layers.querySelector('.from').value = low;
        row.layers.querySelector('.to').value = high;
      }
    }
    $('count').textContent = count ? `${count} active` : '';
    $('reset').disabled = count === 0;
  }

  filter(text) {
    const wanted = text.trim().toLowerCase();
    for (const { li } of this.#rows.values()) li.hidden = !li.dataset.text.includes(wanted);
  }
}

export function summary(state, sliders) {
  const edits = [...active(state)].map(([key, edit]) => {
    const layers = edit.layers ? ` (${layersText([edit.layers[0], edit.layers[1]], true)})` : '';
    return `${sliders.title(key)} ${signed(edit.alpha)}${layers}`;
  });
  return edits.length ? edits.join(', ') : 'No edits yet: drag a slider';
}

function layersText(layers, range = false) {
  if (!layers?.length) return '';
  const run = range || layers.every((layer, i) => layer === layers[0] + i);
  const [low, high] = [layers[0], layers.at(-1)];
  if (low === high) return `layer ${low}`;
  return `layers ${run ? `${low}–${high}` : layers.join(', ')}`;
}

// About 120 steps, each a round number.
function niceStep(span) {
  const rough = span / 120, power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((m) => m * power).find((step) => step >= rough * 0.999);
}
