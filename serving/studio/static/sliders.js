// The list of edits: one slider for each named edit and each direction.
import { $, el, signed } from './dom.js';
import { active, normal, target, usual } from './state.js';

const THUMB = 128;

export class Sliders {
  #rows = new Map();
  #lists = [];

  // `on` has: change(key, { layers, dragging }), walk(), name(key), remove(name)
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
      // A note by `latentclr name --auto` begins with its direction and range, which stand here already.
      detail: [`no. ${edit.direction}`, edit.reverse ? 'reversed' : '', layersText(edit.layers),
        edit.note.replace(/^auto \d+ [^ ]+: /, '')],
      range: edit.alpha,
      edit,
    }));
    const plain = Array.from({ length: model.directions }, (_, k) => {
      const score = model.scores[k], given = names.get(k)?.join(', ');
      const less = score && lessens(score);
      const small = given || !score?.name ? el('small', {}, given ?? '') : el('small', {
        className: 'proposed', title: `Proposed by latentclr score${less ? '; + is less of it' : ''}`,
      }, `${less ? 'less ' : ''}${score.name}`);
      return this.#row(String(k), {
        title: `Direction ${k}`,
        label: [el('span', { className: 'hidden' }, 'Direction '), String(k), ' ', small],
        twin: score?.twin_of ?? null,
        detail: [(score?.top ?? []).map(({ attribute, effect }) => `${words(attribute)} ${signed(effect)}`).join(', ')],
        range: score?.range ?? model.alpha_range,
      });
    });
    const list = (title, rows) => {
      const section = el('section', {}, el('h3', {}, title), el('ul', { className: 'edits', ariaLabel: title }, ...rows));
      this.#lists.push({ section, rows });
      return section;
    };
    $('sliders').replaceChildren(...(named.length ? [list('Named', named)] : []), list('Directions', plain));
    this.refresh();
  }

  #row(key, { title, label, detail, twin = null, range, edit }) {
    const step = niceStep(range[1] - range[0]);
    const [low, high] = inside(range, step);
    const id = `slider-${this.#rows.size}`;
    const slider = el('input', {
      type: 'range', id, min: low, max: high, step, value: 0,
      oninput: () => this.#set(key, Number(slider.value), { dragging: true }),
      onfocus: () => { this.state.walk = key; this.on.walk(); },
      ondblclick: () => this.#set(key, 0),
    });
    const text = detail.filter(Boolean).join(' · ');
    const same = twin === null ? '' : `same as ${twin}`;
    const about = el('p', { className: 'edit-detail', id: `${id}-detail`, title: text },
      ...(same ? [el('span', { className: 'twin', title: `Direction ${twin} does the same` }, same), ' '] : []), text);
    if (text || same) slider.setAttribute('aria-describedby', about.id);
    const output = el('output', { htmlFor: id });
    const button = (name, ariaLabel, onclick) => el('button', { type: 'button', className: 'quiet', ariaLabel, onclick }, name);
    const tools = el('div', { className: 'edit-tools' });
    if (!edit && this.model.names_writable) {
      tools.append(button('Name', `Name ${title} and save it`, () => this.on.name(key)));
    } else if (edit?.removable) {
      tools.append(button('Delete', `Delete ${title}`, () => this.on.remove(edit.name)));
    }
    tools.append(button('×', `Reset ${title}`, () => { this.#set(key, 0); slider.focus(); }));
    // A click on the thumbnail is what the End key is on the slider, so it needs no place in the order of Tab.
    const thumb = el('canvas', {
      className: 'thumb', width: THUMB, height: THUMB, ariaHidden: 'true', title: `Go to ${signed(high)}`,
      onclick: () => { this.#set(key, high); slider.focus(); },
    });
    const li = el('li', { className: 'edit' }, thumb,
      el('div', { className: 'edit-head' }, el('label', { htmlFor: id }, ...label), about,
        el('span', { className: 'range', ariaHidden: 'true' }, `${signed(low)} … ${signed(high)}`), output, tools),
      slider);
    const layers = !edit && this.model.layers > 1 ? this.#layerTools(key, title) : null;
    if (layers) li.append(layers);
    li.dataset.text = `${label.map((part) => part.textContent ?? part).join('')} ${text} ${same}`.toLowerCase();
    this.#rows.set(key, { li, slider, output, layers, thumb, title, low, high, step });
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
        this.on.change(key, { layers: true });
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

  #set(key, alpha, how) {
    this.#edit(key).alpha = alpha;
    this.state.walk = key;
    this.refresh();
    this.on.change(key, how);
  }

  setAlpha(key, alpha) { this.#set(key, alpha); }

  // Shows another state in the same rows.
  show(state) {
    this.state = state;
    this.refresh();
  }

  range(key) {
    const row = this.#rows.get(key);
    return row ? [row.low, row.high] : this.model.alpha_range;
  }

  title(key) { return this.#rows.get(key)?.title ?? key; }

  // The thumbnails: each edit alone, at the + end of its range.
  tiles() {
    return [...this.#rows].map(([key, { thumb, high }]) => ({ canvas: thumb, edit: { ...target(key), alpha: high } }));
  }

  // Writes the state into the controls.
  refresh() {
    let count = 0;
    for (const [key, row] of this.#rows) {
      const edit = this.state.edits.get(key);
      const alpha = edit?.alpha ?? 0;
      const { slider } = row;
      // The range is a hint: an address may hold more.
      slider.min = Math.min(row.low, steps(Math.floor(alpha / row.step), row.step));
      slider.max = Math.max(row.high, steps(Math.ceil(alpha / row.step), row.step));
      slider.value = alpha;
      slider.setAttribute('aria-valuetext', signed(alpha));
      const share = (value) => Math.min(1, Math.max(0, (value - slider.min) / (slider.max - slider.min)));
      const zero = share(0), at = share(alpha);
      slider.style.setProperty('--zero', zero);
      slider.style.setProperty('--from', Math.min(zero, at));
      slider.style.setProperty('--to', Math.max(zero, at));
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

  // Shows the edits in whose texts the words stand, and no heading over none; returns how many there are.
  filter(text) {
    const wanted = text.trim().toLowerCase();
    let found = 0;
    for (const { li } of this.#rows.values()) {
      li.hidden = !li.dataset.text.includes(wanted);
      found += !li.hidden;
    }
    for (const { section, rows } of this.#lists) section.hidden = rows.every((li) => li.hidden);
    return found;
  }
}

const words = (attribute) => attribute.replaceAll('_', ' ');

// Whether a direction's + side has less of what its proposed name says, which is the largest of its effects.
export function lessens({ top }) { return top.length > 0 && top[0].effect < 0; }

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

// A slider counts its steps from its low end, so both ends are whole steps from 0: then 0 itself can be reached.
function inside([low, high], step) {
  return [steps(Math.ceil(low / step - 1e-6), step), steps(Math.floor(high / step + 1e-6), step)];
}

const steps = (count, step) => Number((count * step).toFixed(9));

// About 120 steps, each a round number.
function niceStep(span) {
  const rough = span / 120, power = 10 ** Math.floor(Math.log10(rough));
  return [1, 2, 5, 10].map((m) => m * power).find((step) => step >= rough * 0.999);
}
