// Wires the page: state -> requests -> pictures.
import { Failure, Latency, Latest, bitmap, call, json } from './api.js';
import { ClassSearch } from './classes.js';
import { Connection } from './connection.js';
import { Dialogs, themeButton } from './dialogs.js';
import { $, copy, debounce, download, drawTile, signed, toast } from './dom.js';
import { Sliders, summary } from './sliders.js';
import { emptyState, fromHash, request, target, toHash } from './state.js';
import { Gallery, Walk, walkAlphas } from './tiles.js';

const SLOW_MS = 400; // a walk costs seven pictures: for a slow model it is drawn when asked for
const GIF_FRAMES = 15, GIF_SIDE = 256, SMALL_SIDE = 256, MAX_SEED = 2 ** 32 - 1;

let model = null;
let state = emptyState();
let sliders = null;
let beforeKey = '';
const latency = new Latency();
const pictures = new Latest(), befores = new Latest(), walks = new Latest();
const connection = new Connection(start);
const dialogs = new Dialogs(() => connection.check());

// What the page shows need not be exact, so a large model's pictures travel compressed.
const format = () => (model.resolution <= SMALL_SIDE ? 'png' : 'jpeg');

// ---- pictures

function failed(error) {
  if (error instanceof Failure && error.status === 401) dialogs.askToken();
  else if (error instanceof Failure && error.lost) connection.lost(error.message);
  else if (error instanceof Failure) { toast(error.message); announce(error.message); }
  else throw error;
}

// Asks for a picture; null if that failed, which the page then shows.
async function ask(path, body, signal) {
  try {
    return await bitmap(path, { ...body, format: format() }, signal);
  } catch (error) {
    if (signal?.aborted) throw error;
    failed(error);
    return null;
  }
}

function draw({ abort = false } = {}) {
  pictures.run(async (signal) => {
    const busy = setTimeout(() => $('stage').classList.add('busy'), 300);
    try {
      const answer = await ask('/api/image', request(state), signal);
      if (!answer) return;
      drawTile($('after'), answer.image);
      latency.add(answer.ms);
      connection.latency(latency.p50);
      $('after').dataset.drawn = String(Number($('after').dataset.drawn ?? 0) + 1);
      settled();
    } finally {
      clearTimeout(busy);
      $('stage').classList.remove('busy');
    }
  }, { abort });
}

function drawBefore() {
  const key = `${state.seed} ${state.classId}`;
  if (state.view === 'edited' || key === beforeKey) return;
  befores.run(async (signal) => {
    const answer = await ask('/api/image', { ...request(state), edits: [] }, signal);
    if (answer) { drawTile($('before'), answer.image); beforeKey = key; }
  }, { abort: true });
}

const walkKey = () => state.walk ?? '0';

function drawWalk() {
  const key = walkKey(), alphas = walkAlphas(sliders.range(key)), title = sliders.title(key);
  $('walk-title').textContent = `Walk: ${title}`;
  $('walk-draw').hidden = true;
  walks.run(async (signal) => {
    const body = { ...request(state, { without: key }), walk: target(key, state.edits.get(key)), alphas };
    const answer = await ask('/api/sweep', body, signal);
    if (!answer) return;
    walk.draw(answer.image, alphas, key, title);
    $('walk').removeAttribute('data-stale');
    walk.mark(state.edits.get(key)?.alpha ?? 0, alphas);
  }, { abort: true });
}

const later = debounce(150, () => {
  if (latency.p50 !== null && latency.p50 > SLOW_MS) {
    $('walk-draw').hidden = false;
    $('walk').dataset.stale = '';
    $('walk-title').textContent = `Walk: ${sliders.title(walkKey())}`;
  } else {
    drawWalk();
  }
});

const walk = new Walk((key, alpha) => sliders.setAlpha(key, alpha));
const gallery = new Gallery(async (seeds) => {
  await pictures.idle();
  const { class_id } = request(state);
  const body = class_id === undefined ? { seeds } : { seeds, class_id };
  return (await ask('/api/gallery', body))?.image ?? null;
}, setSeed);

// ---- state

const writeAddress = debounce(200, () => history.replaceState(null, '', toHash(state)));
const announce = (text) => { $('announce').textContent = text; };
const settled = debounce(1200, () => announce(
  `Picture shown: seed ${state.seed}, ${summary(state, sliders)}. Typical time ${Math.round(latency.p50)} milliseconds.`,
));

function describe() {
  const text = summary(state, sliders);
  $('summary').textContent = text;
  $('after').setAttribute('aria-label', `Seed ${state.seed}, ${text}`);
  $('before').setAttribute('aria-label', `Seed ${state.seed} without edits`);
}

// An edit changed: its strength, or its layers too.
function changed(key, layers = false) {
  describe();
  writeAddress();
  draw();
  // The walk leaves its own edit's strength out, so dragging that one changes nothing in it.
  if (key !== undefined && key === changed.walked && !layers) {
    walk.mark(state.edits.get(key)?.alpha ?? 0, walkAlphas(sliders.range(key)));
  } else {
    later();
  }
  changed.walked = key;
}

// Another subject: answers that are under way would show the wrong one.
function subjectChanged() {
  $('seed').value = state.seed;
  describe();
  writeAddress();
  draw({ abort: true });
  drawBefore();
  later();
  return gallery.show(state.seed, state.classId);
}

function setSeed(seed) {
  state.seed = Math.min(MAX_SEED, Math.max(0, Math.round(seed) || 0));
  subjectChanged();
}

function setView(view) {
  state.view = view;
  $('stage').dataset.view = view;
  document.querySelector(`input[name=view][value=${view}]`).checked = true;
  writeAddress();
  drawBefore();
}

async function apply(next) {
  state = next;
  sliders = new Sliders(model, state, {
    change: changed,
    walk: () => { if (changed.walked !== state.walk) { changed.walked = state.walk; later(); } },
    name: (key) => dialogs.name(model, key, state.edits.get(key), save),
    remove,
  });
  setView(state.view);
  await subjectChanged();
}

// ---- the model and the catalog

// Called when the model answers, at first and after a loss; true if the page is complete.
async function start(error) {
  if (error) { failed(error); return false; }
  let described;
  try {
    described = await json('GET', '/api/model');
  } catch (reason) {
    failed(reason);
    return false;
  }
  model = described;
  const facts = [model.generator, `${model.resolution} px`, `${model.directions} directions`];
  if (model.layers > 1) facts.push(`${model.layers} layers`);
  if (model.random_weights) facts.push('untrained');
  $('model').textContent = facts.join(' · ');
  if (model.problems.length) toast(model.problems[0]);
  $('names-note').textContent = model.names_note;
  $('names-note').hidden = !model.names_note;
  $('class-field').hidden = !model.class_count;
  beforeKey = '';
  gallery.forget();
  const next = fromHash(location.hash, model);
  if (model.class_count) classes.show(next.classId).catch(failed);
  connection.latency(latency.p50);
  apply(next);
  return true;
}

const classes = new ClassSearch((id) => { state.classId = id; subjectChanged(); }, failed);

// The catalog changed: the list of edits is made again, the picture stays.
async function reload(focus) {
  model = await json('GET', '/api/model');
  await apply(fromHash(toHash(state), model));
  focus?.();
}

async function save(name, key, edit, body) {
  await json('PUT', `/api/catalog/${encodeURIComponent(name)}`, body);
  // The slider that was dragged becomes the named one.
  const alpha = edit.alpha;
  state.edits.delete(key);
  state.edits.set(`~${name.normalize('NFC')}`, { alpha, layers: null });
  await reload(() => $('edits-title').focus());
  toast(`${name} is saved`);
}

async function remove(name) {
  const key = `~${name}`, edit = state.edits.get(key);
  try {
    await json('DELETE', `/api/catalog/${encodeURIComponent(name)}`);
    state.edits.delete(key);
    await reload(() => $('edits-title').focus());
    toast(`${name} is deleted`, { label: 'Undo', run: () => restore(name, edit) });
  } catch (error) {
    failed(error);
  }
}

async function restore(name, edit) {
  try {
    await json('POST', `/api/catalog/${encodeURIComponent(name)}/restore`, {});
    if (edit) state.edits.set(`~${name}`, edit);
    await reload(() => $('edits-title').focus());
    toast(`${name} is back`);
  } catch (error) {
    failed(error);
  }
}

// ---- controls

async function save_as(button, path, body, name) {
  button.disabled = true;
  try {
    download(await (await call('POST', path, body)).blob(), name);
  } catch (error) {
    failed(error);
  } finally {
    button.disabled = false;
  }
}

$('png').addEventListener('click', () => save_as($('png'), '/api/image', request(state), `seed_${state.seed}.png`));
$('gif').addEventListener('click', () => {
  const key = walkKey(), [low, high] = sliders.range(key);
  const alphas = Array.from({ length: GIF_FRAMES }, (_, i) => low + ((high - low) * i) / (GIF_FRAMES - 1));
  const scale = Math.min(8, Math.max(1, Math.round(GIF_SIDE / model.resolution)));
  const body = { ...request(state, { without: key }), walk: target(key, state.edits.get(key)), alphas, scale, format: 'gif' };
  save_as($('gif'), '/api/sweep', body, `seed_${state.seed}_walk.gif`);
});
$('link').addEventListener('click', async () => {
  const link = `${location.origin}/${toHash(state)}`;
  if (!await copy(link, 'Link')) toast(link);
});
$('code').addEventListener('click', async () => {
  try {
    dialogs.code(await json('POST', '/api/code', request(state)));
  } catch (error) {
    failed(error);
  }
});

$('seed').addEventListener('change', () => setSeed(Number($('seed').value)));
$('seed-less').addEventListener('click', () => setSeed(state.seed - 1));
$('seed-more').addEventListener('click', () => setSeed(state.seed + 1));
$('seed-random').addEventListener('click', () => setSeed(Math.floor(Math.random() * 10_000)));
$('views').addEventListener('change', (event) => setView(event.target.value));
$('walk-draw').addEventListener('click', drawWalk);
$('filter').addEventListener('input', () => sliders.filter($('filter').value));
$('reset').addEventListener('click', () => {
  state.edits.clear();
  sliders.refresh();
  changed();
  $('edits-title').focus();
});
$('skip').addEventListener('click', () => { $('edits-title').focus(); $('edits-title').scrollIntoView(); });

const divide = (share) => {
  $('divider').value = share;
  $('stage').style.setProperty('--split', `${share}%`);
  $('divider').setAttribute('aria-valuetext', `${Math.round(share)} percent before`);
};
$('divider').addEventListener('input', () => divide(Number($('divider').value)));
$('stage').addEventListener('pointermove', (event) => {
  if (state.view !== 'split' || event.buttons !== 1 || event.target === $('divider')) return;
  const box = $('after').getBoundingClientRect();
  divide(Math.min(100, Math.max(0, (100 * (event.clientX - box.left)) / box.width)));
});

addEventListener('hashchange', () => {
  if (!model || location.hash === toHash(state)) return;
  const next = fromHash(location.hash, model);
  if (model.class_count) classes.show(next.classId).catch(failed);
  apply(next);
});

themeButton($('theme'));
divide(50);
// A token in the address has been exchanged for a cookie by now.
if (location.search) history.replaceState(null, '', location.pathname + location.hash);
connection.check();
