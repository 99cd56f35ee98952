// Requests to the studio's API, with typed failures. A page that latentclr export wrote has an api.js of its own, of the
// same functions (export/web/static/api.js).
import { Failure } from './failure.js';

export { Failure };

const TIMEOUT_MS = 90_000;

export async function call(method, path, body, signal) {
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  const options = { method, signal: signal ? AbortSignal.any([signal, timeout]) : timeout };
  if (body instanceof Blob) {
    options.headers = { 'Content-Type': 'application/octet-stream' };
    options.body = body;
  } else if (body !== undefined) {
    options.headers = { 'Content-Type': 'application/json' };
    options.body = JSON.stringify(body);
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Failure(0, 'unreachable', 'the studio does not answer');
  }
  if (response.ok) return response;
  const told = await response.json().catch(() => null);
  const { code = 'unknown', message = response.statusText, places } = told?.error ?? {};
  throw new Failure(response.status, code, message, places);
}

export async function json(method, path, body) {
  const response = await call(method, path, body);
  return response.status === 204 ? null : response.json();
}

export async function bitmap(path, body, signal) {
  const started = performance.now();
  const response = await call('POST', path, body, signal);
  const image = await createImageBitmap(await response.blob());
  return { image, ms: performance.now() - started };
}
