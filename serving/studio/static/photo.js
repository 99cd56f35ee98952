// A photo in place of a seed: dropped, pasted, chosen or taken; its face chosen; refined step by step in the background.
// A page without a server has none of this in its markup, and then nothing happens here.
import { Failure, call, json } from './api.js';
import { $, drawTile, el, toast } from './dom.js';

const LARGEST = 64 * 2 ** 20; // bytes, as the API takes them
const STEPS = 12; // of one refinement; it can be asked for again
const CAMERA_SIDE = 1280;
const LOOPBACK = ['127.0.0.1', 'localhost', '[::1]'];

export class Photos {
  held = null; // what the API says of the photo, which may be out of sight
  #file = null;
  #turn = 0; // a newer photo makes what is under way of the old one void
  #refining = false;
  #stream = null;

  // `show(photo)` shows a photo, or what was before it (null); `refined()` when its code moved, `rested()` when it will
  // not move soon; `failed(error)` shows what went wrong.
  constructor({ show, refined, rested, failed, announce }) {
    Object.assign(this, { show, refined, rested, failed, announce });
    if (!$('photo-open')) return;
    $('photo-open').addEventListener('click', () => this.ask());
    $('photo-file').addEventListener('change', () => {
      const [file] = $('photo-file').files;
      $('photo-file').value = ''; // so that the same file can be chosen again
      if (file) this.open(file);
    });
    $('photo-choose').addEventListener('click', () => $('photo-file').click());
    $('photo-camera').addEventListener('click', () => this.#camera());
    $('photo-shoot').addEventListener('click', () => this.#shoot());
    $('photo-middle').addEventListener('click', () => this.#again({ align: 'centre' }));
    $('photo-dialog').addEventListener('close', () => this.#stop());
    $('photo-close').addEventListener('click', () => this.close());
    $('photo-refine').addEventListener('click', () => (this.#refining ? this.#cancel() : this.refine()));
    addEventListener('paste', (event) => {
      const [file] = event.clipboardData?.files ?? [];
      if (file && this.#wanted()) { event.preventDefault(); this.open(file); }
    });
    this.#droppable();
  }

  // The model takes photos, or does not.
  of(model) {
    this.model = model;
    if ($('photo-open')) $('photo-open').hidden = !model.photos;
  }

  // Where photos come from.
  ask() {
    this.#say('');
    $('photo-faces').hidden = true;
    $('photo-ways').hidden = false;
    $('photo-camera').hidden = !(isSecureContext && LOOPBACK.includes(location.hostname) && navigator.mediaDevices);
    if (!$('photo-dialog').open) $('photo-dialog').showModal();
  }

  // Sends a file to the studio; `how` says which face, or that the middle is to be taken.
  async open(file, how = {}) {
    if (file.size > LARGEST) { this.#refuse(`A photo must be at most ${LARGEST / 2 ** 20} MiB`); return; }
    this.#file = file;
    const turn = ++this.#turn;
    this.#busy(true);
    this.#say('Looking at the photo …');
    try {
      const answer = await call('POST', `/api/photos?${new URLSearchParams(how)}`, file);
      const photo = await answer.json();
      if (turn !== this.#turn) { forget(photo); return; }
      forget(this.held);
      this.held = photo;
      if ($('photo-dialog').open) $('photo-dialog').close();
      this.#refining = false;
      await this.show(photo);
      this.announce(`Photo shown. ${this.#near()}`);
    } catch (error) {
      if (turn !== this.#turn) return;
      this.#say('');
      if (!(error instanceof Failure) || error.lost || error.status === 401) this.failed(error);
      else if (error.code === 'face') await this.#faces(error);
      else this.#refuse(error.message);
    } finally {
      if (turn === this.#turn) this.#busy(false);
    }
  }

  // Out of sight and out of the studio's memory.
  close() {
    this.#turn++;
    forget(this.held);
    this.held = null;
    this.#refining = false;
    this.show(null);
    $('photo-open').focus();
  }

  // The studio has forgotten it, or was started anew.
  lost() {
    this.#turn++;
    this.held = null;
    this.#refining = false;
  }

  async refine() {
    const turn = this.#turn, path = `/api/photos/${this.held.photo}/refine`;
    this.#refining = true;
    $('photo-progress').max = STEPS;
    for (let step = 0; step < STEPS && this.#refining; step++) {
      $('photo-progress').value = step;
      this.describe();
      try {
        const photo = await json('POST', path, {});
        if (turn !== this.#turn) return;
        this.held = photo;
      } catch (error) {
        if (turn !== this.#turn) return;
        this.#refining = false;
        this.failed(error);
        break;
      }
      await this.refined(this.held);
    }
    if (turn !== this.#turn) return;
    this.#refining = false;
    this.describe();
    this.announce(`Refined. ${this.#near()}`);
    this.rested();
  }

  get refining() { return this.#refining; }

  // What the photo's line says.
  describe() {
    if (!this.held || !$('photo-open')) return;
    const { how, psnr, refined, width, height, refinable } = this.held;
    const cut = how === 'face' ? 'face' : 'middle';
    $('photo-text').textContent = psnr === null ? `Photo, ${cut}` : `Photo, ${cut} · ${psnr.toFixed(1)} dB`;
    $('photo-text').title = `${width} × ${height} pixels, of which the model sees the ${cut}. `
      + 'The decibels say how near its own picture comes: from 30 on the two are hard to tell apart.'
      + (refined ? ` Refined in ${refined} steps.` : '');
    $('photo-refine').hidden = !refinable;
    $('photo-refine').textContent = this.#refining ? 'Cancel' : 'Refine';
    $('photo-refine').title = this.#refining ? '' : `Comes nearer to the photo, in ${STEPS} steps`;
    $('photo-progress').hidden = !this.#refining;
  }

  #near() {
    return this.held.psnr === null ? '' : `Its likeness is ${this.held.psnr.toFixed(1)} decibels.`;
  }

  #cancel() {
    this.#refining = false;
    $('photo-refine').textContent = 'Stopping …'; // when the step that is under way ends
  }

  #again(how) { if (this.#file) this.open(this.#file, how); }

  #wanted() {
    if (!this.model) return false;
    if (this.model.photos) return true;
    toast('This model takes no photos: it was exported without an encoder (--with-encoder)');
    return false;
  }

  #busy(busy) {
    $('stage').classList.toggle('busy', busy);
    $('photo-dialog').setAttribute('aria-busy', String(busy));
    for (const button of $('photo-dialog').querySelectorAll('button:not([data-close])')) button.disabled = busy;
  }

  #say(text) { $('photo-problem').textContent = text; }

  #refuse(message) {
    if ($('photo-dialog').open) this.#say(message);
    else toast(message);
    this.announce(message);
  }

  // Several faces to choose from, or none.
  async #faces({ message, places }) {
    this.ask();
    $('photo-ways').hidden = true;
    $('photo-faces').hidden = false;
    const canvas = $('photo-seen');
    try {
      const image = await createImageBitmap(this.#file, { imageOrientation: 'from-image' });
      canvas.width = 480;
      canvas.height = Math.max(1, Math.round((480 * image.height) / image.width));
      drawTile(canvas, image);
      canvas.hidden = false;
    } catch { canvas.hidden = true; } // a format that the browser cannot draw
    const buttons = places.map(([x, y], face) => {
      const button = el('button', { type: 'button', className: 'face', ariaLabel: `Face ${face + 1} from the left`,
        onclick: () => this.#again({ face }) }, String(face + 1));
      button.style.left = `${100 * x}%`;
      button.style.top = `${100 * y}%`;
      return button;
    });
    $('photo-places').replaceChildren(canvas, ...buttons);
    const text = places.length ? `There are ${places.length} faces: choose one.` : 'No face was found in this photo.';
    $('photo-which').textContent = text;
    this.#say('');
    this.announce(places.length ? text : message);
    (buttons[0] ?? $('photo-middle')).focus();
  }

  // ---- the camera; its pictures go to this machine only

  async #camera() {
    try {
      this.#stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: 'user', width: CAMERA_SIDE } });
    } catch (error) {
      this.#say(error.name === 'NotFoundError' ? 'There is no camera.' : 'The browser does not give the camera.');
      return;
    }
    if (!$('photo-dialog').open) { this.#stop(); return; }
    $('photo-video').srcObject = this.#stream;
    $('photo-live').hidden = false;
    await $('photo-video').play();
    $('photo-shoot').focus();
  }

  #shoot() {
    const video = $('photo-video');
    const canvas = el('canvas', { width: video.videoWidth, height: video.videoHeight });
    canvas.getContext('2d').drawImage(video, 0, 0);
    this.#stop();
    canvas.toBlob((file) => { if (file) this.open(file); }, 'image/png');
  }

  #stop() {
    this.#stream?.getTracks().forEach((track) => track.stop());
    this.#stream = null;
    $('photo-video').srcObject = null;
    $('photo-live').hidden = true;
  }

  // ---- drag and drop, anywhere on the page

  #droppable() {
    let depth = 0; // of elements that the pointer is in
    const files = (event) => [...event.dataTransfer?.types ?? []].includes('Files');
    const over = (change) => {
      depth = Math.max(0, depth + change);
      document.body.classList.toggle('dropping', depth > 0 && Boolean(this.model?.photos));
    };
    addEventListener('dragenter', (event) => { if (files(event)) over(1); });
    addEventListener('dragleave', (event) => { if (files(event)) over(-1); });
    addEventListener('dragover', (event) => { if (files(event)) event.preventDefault(); });
    addEventListener('drop', (event) => {
      if (!files(event)) return;
      event.preventDefault(); // else the browser would leave the page and show the file
      over(-depth);
      const [file] = event.dataTransfer.files;
      if (file && this.#wanted()) this.open(file);
    });
  }
}

function forget(photo) {
  if (photo) call('DELETE', `/api/photos/${photo.photo}`).catch(() => {}); // it is forgotten in time anyway
}
