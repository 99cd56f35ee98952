// What is on the screen, and its form in the address: #seed=7&edits=2:-4@0-3,~smile:3&class=281&view=split
// A photo is not in the address, only that there was one (photo=own), and if its own pixels are not kept (keep=0).
// Keys of edits: "2" is direction 2, "~smile" the edit named smile.

export const VIEWS = ['edited', 'split', 'pair'];
const MAX_SEED = 2 ** 32 - 1, MAX_ALPHA = 1000, MAX_EDITS = 31;

export function emptyState() {
  return { seed: 7, photo: null, keep: true, classId: null, edits: new Map(), view: 'edited', walk: null };
}

export function toHash(state) {
  const edits = [...active(state)].map(([key, edit]) => {
    const layers = edit.layers ? `@${edit.layers.join('-')}` : '';
    return `${encodeURIComponent(key)}:${edit.alpha}${layers}`;
  });
  const parts = [`seed=${state.seed}`];
  if (state.photo) parts.push('photo=own');
  if (state.photo && !state.keep) parts.push('keep=0');
  if (state.classId !== null) parts.push(`class=${state.classId}`);
  if (edits.length) parts.push(`edits=${edits.join(',')}`);
  if (state.view !== 'edited') parts.push(`view=${state.view}`);
  return `#${parts.join('&')}`;
}

export const wantsPhoto = (hash) => /[#&]photo=own(&|$)/.test(hash);

// Reads an address; whatever is not understood, or not in this model, is left out. `photo` is the one that is there.
export function fromHash(hash, model, photo = null) {
  const state = emptyState();
  const fields = new Map(hash.replace(/^#/, '').split('&').map((part) => {
    const at = part.indexOf('=');
    return [part.slice(0, at), part.slice(at + 1)];
  }));
  const seed = whole(fields.get('seed'), 0, MAX_SEED);
  if (seed !== null) state.seed = seed;
  if (photo && wantsPhoto(hash)) state.photo = photo;
  state.keep = fields.get('keep') !== '0';
  if (model.class_count) {
    state.classId = whole(fields.get('class'), 0, model.class_count - 1) ?? model.default_class?.id ?? 0;
  }
  if (VIEWS.includes(fields.get('view'))) state.view = fields.get('view');
  for (const part of (fields.get('edits') ?? '').split(',').slice(0, MAX_EDITS)) {
    const match = /^([^:@]+):(-?[\d.]+(?:e-?\d+)?)(?:@(\d+)-(\d+))?$/.exec(part);
    const key = match && decode(match[1]);
    const alpha = match && Number(match[2]);
    if (!match || !knows(model, key) || !(Math.abs(alpha) <= MAX_ALPHA) || alpha === 0) continue;
    const edit = { alpha, layers: null };
    if (match[3] !== undefined && !key.startsWith('~')) {
      const low = whole(match[3], 0, model.layers - 1), high = whole(match[4], 0, model.layers - 1);
      if (low !== null && high !== null && low <= high) edit.layers = normal([low, high], model);
    }
    state.edits.set(key, edit);
    state.walk = key;
  }
  return state;
}

// The ends of where directions act by themselves.
export function usual({ default_layers: layers, layers: count }) {
  return layers.length ? [layers[0], layers.at(-1)] : [0, count - 1];
}

// Where directions act by themselves is written as none chosen.
export function normal([low, high], model) {
  const [first, last] = usual(model);
  const gaps = model.default_layers.length && model.default_layers.length !== last - first + 1;
  return !gaps && low === first && high === last ? null : [low, high];
}

export function* active(state) {
  for (const [key, edit] of state.edits) if (edit.alpha !== 0) yield [key, edit];
}

// The edit as the API takes it, without its strength.
export function target(key, edit) {
  if (key.startsWith('~')) return { name: key.slice(1) };
  const direction = { direction: Number(key) };
  if (edit?.layers) {
    const [low, high] = edit.layers;
    direction.layers = Array.from({ length: high - low + 1 }, (_, i) => low + i);
  }
  return direction;
}

// Whose picture it is, as the API takes it.
export function subject({ seed, photo, keep }) {
  return photo ? { photo: photo.photo, keep } : { seed };
}

export function request(state, { without = null } = {}) {
  const edits = [...active(state)].filter(([key]) => key !== without)
    .map(([key, edit]) => ({ ...target(key, edit), alpha: edit.alpha }));
  const body = { ...subject(state), edits };
  if (state.classId !== null) body.class_id = state.classId;
  return body;
}

export function knows(model, key) {
  if (key.startsWith('~')) return model.edits.some((edit) => edit.name === key.slice(1));
  return /^\d{1,6}$/.test(key) && Number(key) < model.directions;
}

function whole(text, low, high) {
  if (!/^\d{1,10}$/.test(text ?? '')) return null;
  const number = Number(text);
  return number >= low && number <= high ? number : null;
}

function decode(text) {
  try { return decodeURIComponent(text); } catch { return ''; }
}
