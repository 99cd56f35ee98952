// The page's own files, with progress in bytes.
import { Failure } from './failure.js';

const place = (file) => new URL(file, import.meta.url);

async function get(file, { query = '', ...options }) {
  let response;
  try {
    response = await fetch(place(file + query), options);
  } catch {
    throw new Failure(0, 'unreachable', `the page's file ${file} cannot be loaded`);
  }
  if (!response.ok) throw new Failure(response.status, 'missing', `the page's file ${file} cannot be loaded: ${response.status}`);
  return response;
}

// JSON that says what the other files are: never an old copy.
export async function readJson(file) {
  return (await get(file, { cache: 'no-cache' })).json();
}

// One thing that lies in files of { file, bytes, sha256 }, one after the other, `unpacked` bytes in all and under gzip if
// `packed`; `more(bytes)` hears of what has come. What is unpacked is never there twice.
export async function readBytes({ files, unpacked, packed }, more, signal) {
  const whole = new Uint8Array(unpacked);
  const parts = streamOf(chunks(files, more, signal));
  const stream = packed ? parts.pipeThrough(new DecompressionStream('gzip')) : parts;
  let at = 0;
  try {
    const reader = stream.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      whole.set(value, at); // throws where there is more than there should be
      at += value.length;
    }
  } catch (error) {
    throw error instanceof Failure ? error : damaged(files[0].file);
  }
  if (at !== unpacked) throw damaged(files[0].file);
  return whole;
}

async function* chunks(files, more, signal) {
  for (const { file, sha256 } of files) {
    const query = `?${sha256.slice(0, 12)}`; // another content, another address
    const reader = (await get(file, { query, signal })).body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      more(value.length);
      yield value;
    }
  }
}

const streamOf = (iterator) => new ReadableStream({
  async pull(controller) {
    const { done, value } = await iterator.next();
    if (done) controller.close();
    else controller.enqueue(value);
  },
});

const damaged = (file) => new Failure(502, 'damaged', `the page's file ${file} is not what it should be`);

export const address = (file) => place(file).href;
