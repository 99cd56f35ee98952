// Wires the page: state -> requests -> pictures. A page without a server has the same parts, and another api.js.
import { Failure, bitmap, call, json } from './api.js';
import { ClassSearch } from './classes.js';
import { Connection } from './connection.js';
import { Dialogs, themeButton } from './dialogs.js';
import { $, clear, copy, debounce, download, drawTile, sleep, toast } from './dom.js';
import { Latency, Latest } from './latest.js';
import { Photos } from './photo.js';
import { Sliders, summary } from './sliders.js';
import { emptyState, fromHash, request, target, toHash, wantsPhoto } from './state.js';
import { Steps } from './steps.js';
import { Thumbnails } from './thumbnails.js';
import { Gallery, Walk, walkAlphas } from './tiles.js';
import { Zoom } from './zoom.js';

const SLOW_MS = 400; // a walk costs seven pictures: for a slow model it is drawn when asked for
const QUIET_MS = 400; // since a slider was moved; then what can wait is drawn
const GIF_FRAMES = 15, GIF_SIDE = 256, SMALL_SIDE = 256, CANVAS_SIDE = 512, MAX_SEED = 2 ** 32 - 1;

let model = null;
let state = emptyState();
let sliders = null;
let beforeKey = '';
let shown = ''; // the address of the picture that is on the screen
let moved = -QUIET_MS;
let owed = false; // the full picture, since a preview was asked for
let undrawn = false; // the last full picture failed
let full = false; // whether a full picture is under way
const latency = new Latency();
const pictures = new Latest(), befores = new Latest(), walks = new Latest(), originals = new Latest();
const steps = new Steps();
const connection = new Connection(start, () => { if (model) describe(); });
const dialogs = new Dialogs(() => connection.check());

// What the page shows need not be exact, so a large model's pictures travel compressed.
const format = () => (Math.max(model.resolution, model.width) <= SMALL_SIDE ? 'png' : 'jpeg');

// ---- pictures

function failed(error) {
  if (error instanceof Failure && error.status === 401) dialogs.askToken();
  else if (error instanceof Failure && error.lost) connection.lost(error.message);
  else if (error instanceof Failure) { toast(error.message); announce(error.message); }
  else throw error;
  if (error.code === 'unknown_photo' && state.photo) { photos.lost(); showPhoto(null); }
}

// Whose picture it is, in words.
const who = () => (state.photo ? 'Photo' : `Seed ${state.seed}`);

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
  owed = false;
  pictures.run(async (signal) => {
    full = true;
    const busy = setTimeout(() => $('stage').classList.add('busy'), 300);
    try {
      const wanted = toHash(state), text = summary(state, sliders);
      const answer = await ask('/api/image', request(state), signal);
      undrawn = !answer;
      if (!answer) { describe(); return; }
      drawTile($('after'), answer.image);
      shown = wanted;
      describe();
      $('after').setAttribute('aria-label', `${who()}, ${text}`);
      latency.add(answer.ms);
      connection.latency(latency.p50);
      $('after').dataset.drawn = String(Number($('after').dataset.drawn ?? 0) + 1);
      settled();
    } finally {
      full = false;
      clearTimeout(busy);
      $('stage').classList.remove('busy');
    }
  }, { abort });
}

// A smaller picture in the same place, which does not wait for a full one; that is drawn when the slider is let go.
function drawPreview() {
  const first = !owed;
  owed = true;
  pictures.run(async (signal) => {
    const answer = await ask('/api/preview', request(state), signal);
    if (!answer) return;
    drawTile($('after'), answer.image);
    undrawn = false;
    shown = '';
    $('after').dataset.previewed = String(Number($('after').dataset.previewed ?? 0) + 1);
  }, { abort: full });
  if (first) quiet().then(settle); // keys, which are not let go of as a pointer is
}

const settle = () => { if (owed) draw(); };

// Of a photo: what the model makes of it; where its own pixels are kept, a split is with the photo itself.
function drawBefore() {
  const keep = state.keep && state.view === 'split', key = `${subjectKey()} ${keep}`;
  if (state.view === 'edited' || key === beforeKey || empty()) return;
  befores.run(async (signal) => {
    const body = { ...request(state), ...(state.photo && { keep }), edits: [] };
    const answer = await ask('/api/image', body, signal);
    beforeKey = answer ? key : '';
    if (answer) drawTile($('before'), answer.image);
    else clear($('before')); // another seed's must not stand there
    $('before').setAttribute('aria-label', answer ? `${who()} without edits` : 'Not drawn yet');
  }, { abort: true });
}

const walkKey = () => state.walk ?? '0';
const slow = () => latency.p50 !== null && latency.p50 > SLOW_MS;

// Title and pictures change together, so that no heading stands over another edit's walk.
function drawWalk() {
  const key = walkKey(), alphas = walkAlphas(sliders.range(key)), title = sliders.title(key);
  $('walk-draw').hidden = true;
  walks.run(async (signal) => {
    const body = { ...request(state, { without: key }), walk: target(key, state.edits.get(key)), alphas };
    const answer = await ask('/api/sweep', body, signal);
    if (!answer) { walk.stale(); changed.walked = undefined; return; }
    walk.draw(answer.image, alphas, key, title);
    walk.mark(key, state.edits.get(key)?.alpha ?? 0);
  }, { abort: true });
}

const later = debounce(150, () => {
  if (!slow()) { drawWalk(); return; }
  $('walk-draw').hidden = false;
  $('walk-draw').textContent = `Draw: ${sliders.title(walkKey())}`;
  walk.stale();
});

const walk = new Walk((key, alpha) => sliders.setAlpha(key, alpha));
const gallery = new Gallery(async (seeds) => {
  await pictures.idle();
  const { class_id } = request(state);
  const body = class_id === undefined ? { seeds } : { seeds, class_id };
  return (await ask('/api/gallery', body))?.image ?? null;
}, setSeed);

// Resolves when no slider has been moved for a while, and none is held.
async function quiet() {
  for (;;) {
    await pictures.idle();
    const left = document.querySelector('input[type=range]:active') ? QUIET_MS : moved + QUIET_MS - performance.now();
    if (left <= 0) return;
    await sleep(left);
  }
}

const thumbnails = new Thumbnails(async (edits) => {
  return (await ask('/api/thumbnails', { ...request(state), edits }))?.image ?? null;
}, quiet);

// What pictures depend on beside the edits.
const subjectKey = () => `${state.photo ? `${state.photo.photo} ${state.photo.refined} ${state.keep}` : state.seed} ${state.classId}`;

// A slow model's are drawn when asked for.
function drawThumbnails({ asked = false } = {}) {
  const wanted = asked || !slow() || thumbnails.drawn(subjectKey());
  $('thumbs-draw').hidden = wanted;
  if (wanted) return thumbnails.draw(subjectKey(), sliders.tiles());
  return thumbnails.stale(sliders.tiles());
}

// ---- state

const writeAddress = debounce(200, () => history.replaceState(null, '', toHash(state)));
const announce = (text) => { $('announce').textContent = text; };
const settled = debounce(1200, () => announce(
  `Picture shown: ${who()}, ${summary(state, sliders)}. Typical time ${Math.round(latency.p50)} milliseconds.`,
));

// What the sliders say; where the picture above is an older one, since drawing failed, that is said.
function describe() {
  const text = summary(state, sliders);
  const old = (connection.down || undrawn) && shown !== toHash(state);
  $('summary').textContent = old ? `Not drawn yet: ${who()}, ${text}` : text;
  $('summary').title = text;
  $('stage').classList.toggle('old', old);
}

// An edit changed: its strength, or its layers too; `dragging` while a slider moves.
function changed(key, { layers = false, dragging = false } = {}) {
  if (empty()) return;
  moved = performance.now();
  describe();
  writeAddress();
  recordLater();
  if (dragging && model.preview) drawPreview();
  else draw();
  // The walk leaves its own edit's strength out, so dragging that one changes nothing in it.
  if (key !== undefined && key === changed.walked && !layers) walk.mark(key, state.edits.get(key)?.alpha ?? 0);
  else later();
  changed.walked = key;
}

// A model that takes w has nothing to show before there is a photo.
const empty = () => model?.seeds === false && !state.photo;

// Another subject: answers that are under way would show the wrong one.
async function subjectChanged() {
  if (empty()) { photos.ask(); return; }
  $('seed').value = state.seed;
  describe();
  writeAddress();
  recordLater();
  draw({ abort: true });
  drawBefore();
  later();
  showSubject();
  if (!thumbnails.drawn(subjectKey())) thumbnails.stale(sliders.tiles());
  if (model.seeds !== false) await gallery.show(state.photo ? null : state.seed, state.classId);
  await drawThumbnails();
}

function setSeed(seed) {
  state.seed = Math.min(MAX_SEED, Math.max(0, Math.round(seed) || 0));
  state.photo = null;
  subjectChanged();
}

// ---- a photo in place of a seed

const photos = new Photos({
  show: showPhoto,
  refined: async (photo) => { // its code moved: what shows it is drawn anew, what can wait waits
    if (state.photo) {
      state.photo = photo;
      describe();
      draw();
      drawBefore();
      await pictures.idle();
    }
  },
  rested: () => { if (state.photo) { later(); thumbnails.stale(sliders.tiles()); drawThumbnails(); } },
  failed,
  announce: (text) => announce(text),
});

function showPhoto(photo) {
  state.photo = photo;
  return subjectChanged();
}

// The controls and the captions that a seed and a photo do not share.
function showSubject() {
  if (!$('photo-open')) return;
  const photo = Boolean(state.photo);
  $('photo-field').hidden = !photo;
  $('seed-field').hidden = photo || model.seeds === false;
  $('photo-keep').checked = state.keep;
  $('stage').toggleAttribute('data-photo', photo);
  $('before-text').textContent = photo ? 'Reconstruction' : 'Before';
  $('after-text').textContent = photo ? 'Edited' : 'After';
  $('png-paste').hidden = $('png-paste').disabled = !photo;
  if (!photo && $('png-scale').value === 'paste') $('png-scale').value = '1';
  photos.describe();
  if (!photo || $('original').dataset.photo === state.photo.photo) return;
  clear($('original'));
  $('original').dataset.photo = state.photo.photo;
  originals.run(async (signal) => {
    const { photo: key } = state.photo ?? {};
    if (!key) return;
    try {
      const blob = await (await call('GET', `/api/photos/${key}/picture`, undefined, signal)).blob();
      drawTile($('original'), await createImageBitmap(blob));
    } catch (error) {
      if (signal.aborted) throw error;
      failed(error);
    }
  }, { abort: true });
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
    name: (key) => dialogs.name(model, key, state.edits.get(key), sliders.range(key), save),
    remove,
  });
  sliders.filter($('filter').value);
  thumbnails.stale([]);
  steps.record(step());
  showSteps();
  setView(state.view);
  await subjectChanged();
}

// ---- undo and redo

// Not the view: that is a way to look, and is not undone.
const step = () => toHash({ ...state, view: 'edited' });

function record() {
  if (document.querySelector('input[type=range]:active')) { recordLater(); return; } // a drag is one step
  steps.record(step());
  showSteps();
}

const recordLater = debounce(300, () => record());

function showSteps() {
  $('undo').disabled = !steps.canUndo;
  $('redo').disabled = !steps.canRedo;
}

function travel(direction) {
  if (!model) return;
  steps.record(step()); // what is not remembered yet
  const address = direction === 'undo' ? steps.undo() : steps.redo();
  showSteps();
  if (address === null) return;
  const before = state;
  state = { ...fromHash(address, model, photos.held), view: before.view };
  if (state.edits.has(before.walk)) state.walk = before.walk;
  sliders.show(state);
  changed.walked = undefined;
  const same = (key) => state[key] === before[key];
  if (['seed', 'photo', 'keep', 'classId'].every(same)) changed(state.walk ?? undefined);
  else subjectChanged();
  if (model.class_count) classes.show(state.classId).catch(failed);
  announce(`${direction === 'undo' ? 'Undone' : 'Redone'}: ${who()}, ${summary(state, sliders)}`);
}

// ---- the model and the catalog

// Called when the model answers, at first and after a loss; true if the page is complete.
async function start(error) {
  if (error) { failed(error); return false; }
  let described;
  try {
    described = await json('GET', '/api/model');
  } catch (reason) {
    if (reason instanceof Failure && reason.status !== 401) connection.lost(reason.message); // there is nothing to show
    else failed(reason);
    return false;
  }
  model = described;
  const facts = [model.generator, model.width === model.resolution ? `${model.width} px` : `${model.width} × ${model.resolution} px`, `${model.directions} directions`];
  if (model.layers > 1) facts.push(`${model.layers} layers`);
  if (model.random_weights) facts.push('untrained');
  if (model.engine) facts.push(model.engine); // where the page itself draws
  $('model').textContent = $('model').title = facts.join(' · ');
  if (model.problems.length) toast(model.problems[0]);
  $('names-note').textContent = model.names_note;
  $('names-note').hidden = !model.names_note;
  $('class-field').hidden = !model.class_count;
  photos.of(model);
  $('seed-field').hidden = $('gallery').closest('section').hidden = model.seeds === false;
  delete $('layout').dataset.empty;
  beforeKey = '';
  shown = '';
  const times = Math.ceil(CANVAS_SIDE / Math.max(model.width, model.resolution)); // the browser enlarges what is smooth by then
  for (const canvas of [$('before'), $('after'), $('original')].filter(Boolean)) {
    if (canvas.width !== times * model.width) canvas.width = times * model.width;
    if (canvas.height !== times * model.resolution) canvas.height = times * model.resolution;
  }
  $('stage').style.setProperty('--ratio', model.width / model.resolution);
  changed.walked = undefined;
  gallery.forget();
  const next = fromHash(location.hash, model, photos.held);
  if (model.class_count) classes.show(next.classId).catch(failed);
  connection.latency(latency.p50);
  missing(next);
  apply(next);
  return true;
}

// A link to edits of somebody's photo, or this page loaded again: the photo is not in it.
function missing(next) {
  if (next.photo || !model.photos || !wantsPhoto(location.hash)) return;
  toast('These edits were made on a photo, which a link never holds', { label: 'Choose a photo', run: () => photos.ask() });
}

const classes = new ClassSearch((id) => { state.classId = id; subjectChanged(); }, failed);

// The catalog changed: the list of edits is made again, the picture stays.
async function reload(focus) {
  model = await json('GET', '/api/model');
  await apply(fromHash(toHash(state), model, state.photo));
  focus?.();
}

async function save(name, key, edit, body) {
  await json('PUT', `/api/catalog/${encodeURIComponent(name)}`, body);
  // The slider that was dragged becomes the named one.
  const alpha = body.reverse ? -edit.alpha : edit.alpha;
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

const fileName = () => (state.photo ? 'photo_edited' : `seed_${state.seed}`);
$('png').addEventListener('click', () => {
  const size = $('png-scale').value;
  if (size === 'paste') { save_as($('png'), '/api/image', { ...request(state), paste: true }, `${fileName()}.png`); return; }
  const scale = Number(size);
  save_as($('png'), '/api/image', { ...request(state), scale }, `${fileName()}${scale > 1 ? `_${scale}x` : ''}.png`);
});
$('gif')?.addEventListener('click', () => {
  const key = walkKey(), [low, high] = sliders.range(key);
  const alphas = Array.from({ length: GIF_FRAMES }, (_, i) => low + ((high - low) * i) / (GIF_FRAMES - 1));
  const scale = Math.min(8, Math.max(1, Math.round(GIF_SIDE / Math.max(model.width, model.resolution))));
  const body = { ...request(state, { without: key }), walk: target(key, state.edits.get(key)), alphas, scale, format: 'gif' };
  save_as($('gif'), '/api/sweep', body, `${fileName()}_walk.gif`);
});
$('link').addEventListener('click', async () => {
  const link = `${location.origin}${location.pathname}${toHash(state)}`;
  if (!await copy(link, state.photo ? 'Link to the edits, without the photo,' : 'Link')) toast(link);
});
$('code')?.addEventListener('click', async () => {
  try {
    dialogs.code(await json('POST', '/api/code', request(state)));
  } catch (error) {
    failed(error);
  }
});

$('photo-keep')?.addEventListener('change', () => { state.keep = $('photo-keep').checked; subjectChanged(); });
$('seed').addEventListener('change', () => setSeed(Number($('seed').value)));
$('seed-less').addEventListener('click', () => setSeed(state.seed - 1));
$('seed-more').addEventListener('click', () => setSeed(state.seed + 1));
$('seed-random').addEventListener('click', () => setSeed(Math.floor(Math.random() * 10_000)));
$('views').addEventListener('change', (event) => setView(event.target.value));
$('walk-draw').addEventListener('click', drawWalk);
$('thumbs-draw').addEventListener('click', () => { $('edits-title').focus(); drawThumbnails({ asked: true }); });
$('filter').addEventListener('input', () => {
  const found = sliders?.filter($('filter').value);
  announce(found ? `${found} edits` : 'No edit has these words');
});
$('undo').addEventListener('click', () => travel('undo'));
$('redo').addEventListener('click', () => travel('redo'));
addEventListener('keydown', (event) => {
  if (!(event.ctrlKey || event.metaKey) || event.altKey) return;
  const key = event.key.toLowerCase();
  const way = key === 'y' || (key === 'z' && event.shiftKey) ? 'redo' : key === 'z' ? 'undo' : '';
  // Where one types, the browser undoes the typing.
  const typing = event.target.matches?.('input:not([type=range], [type=radio])') || document.querySelector('dialog[open]');
  if (!way || typing) return;
  event.preventDefault();
  travel(way);
});
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

addEventListener('pointerup', settle);
addEventListener('hashchange', () => {
  if (!model || location.hash === toHash(state)) return;
  const next = fromHash(location.hash, model, photos.held);
  if (model.class_count) classes.show(next.classId).catch(failed);
  missing(next);
  apply(next);
});
new Zoom($('stage'), announce);

themeButton($('theme'));
divide(50);
// A token in the address has been exchanged for a cookie by now.
if (new URLSearchParams(location.search).has('token')) history.replaceState(null, '', location.pathname + location.hash);
connection.check();
