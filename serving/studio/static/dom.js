// The few helpers that every part of the page uses.

export const $ = (id) => document.getElementById(id);

// Makes an element; `on...` properties are listeners, the rest properties or attributes. Text is never read as HTML.
export function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

export function signed(alpha) {
  const rounded = Math.round(alpha * 100) / 100;
  return rounded === 0 ? '0' : `${rounded > 0 ? '+' : '−'}${Math.abs(rounded)}`;
}

export function debounce(ms, action) {
  let timer = 0;
  return () => { clearTimeout(timer); timer = setTimeout(action, ms); };
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

// Draws tile `index` of `count` that lie side by side, smoothly enlarged to fit into the canvas.
export function drawTile(canvas, image, index = 0, count = 1) {
  const side = image.width / count, times = Math.min(canvas.width / side, canvas.height / image.height);
  const w = side * times, h = image.height * times;
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.imageSmoothingEnabled = true;
  context.imageSmoothingQuality = 'high';
  if (w < canvas.width || h < canvas.height) context.clearRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, index * side, 0, side, image.height, (canvas.width - w) / 2, (canvas.height - h) / 2, w, h);
}

export function clear(canvas) {
  canvas.getContext('2d', { willReadFrequently: true }).clearRect(0, 0, canvas.width, canvas.height);
  delete canvas.dataset.drawn;
}

let toastTimer = 0;
// `action` is a button in it, `{ label, run }`; there is time to reach it.
export function toast(text, action = null) {
  const node = $('toast');
  const hide = () => { node.hidden = true; };
  const button = action && el('button', { type: 'button', onclick: () => { hide(); action.run(); } }, action.label);
  node.replaceChildren(text, ...(button ? [button] : []));
  node.hidden = false;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(hide, action ? 15_000 : 4000);
}

export function download(blob, name) {
  const url = URL.createObjectURL(blob);
  el('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

export async function copy(text, what) {
  try {
    await navigator.clipboard.writeText(text);
    toast(`${what} copied`);
    return true;
  } catch { // no permission, or a page that is not secure (plain http on the network)
    return false;
  }
}
