// What is asked for -> rows of the editor, as serving/contract/edits.py makes them; and the recipe that a picture carries.
import { Failure } from './failure.js';
import { drawCode } from './random.js';

// A row: { seed, direction: [M], alpha: [M][L], classId }, and the edits as they were asked for.
export function rowOf(manifest, { seed, edits = [], class_id: classId }) {
  const strengths = new Map(); // direction -> alpha [L]; those of one direction are added
  for (const edit of edits) {
    const { direction, alpha } = resolve(manifest, edit);
    const before = strengths.get(direction);
    strengths.set(direction, before ? before.map((value, l) => Math.fround(value + alpha[l])) : alpha);
  }
  if (!strengths.size) strengths.set(0, Array(manifest.latent.layers).fill(0));
  return {
    seed, direction: [...strengths.keys()], alpha: [...strengths.values()], classId: classOf(manifest, classId), edits,
  };
}

function resolve(manifest, { direction, name, layers, alpha }) {
  const named = name === undefined ? null : Object.hasOwn(manifest.edits, name) && manifest.edits[name];
  if (named === false) throw new Failure(400, 'invalid_edit', `the model has no named edit '${name}'`);
  const count = manifest.latent.layers;
  const all = Array.from({ length: count }, (_, l) => l);
  const own = named?.layers.length ? named.layers : layers ? all : manifest.directions.layers ?? all;
  const reached = own.filter((layer) => (layers ?? all).includes(layer));
  if (!reached.length) throw new Failure(400, 'invalid_edit', `the edit reaches none of the layers ${layers}`);
  const strength = Math.fround(named?.reverse ? -alpha : alpha);
  return {
    direction: named ? named.direction : direction,
    alpha: all.map((layer) => (reached.includes(layer) ? strength : 0)),
  };
}

function classOf({ generator: { classes } }, id) {
  if (!classes) return null;
  return id ?? classes.default[0] ?? 0;
}

// The arrays of one row as the worker takes them.
export function arraysOf(manifest, row) {
  return {
    code: row.code ?? drawCode(manifest.latent, row.seed),
    direction: row.direction,
    alpha: Float32Array.from(row.alpha.flat()),
    classId: row.classId,
  };
}

// The recipe of one picture, as serving/contract/recipe.py reads it, in ASCII.
export function recipeOf(manifest, row, scale) {
  const asked = {};
  for (const { name, direction, alpha, layers } of row.edits) asked[name ?? direction] = layers ? { alpha, layers } : alpha;
  const recipe = {
    format: 1,
    model: {
      name: manifest.name,
      files_sha256: manifest.files_sha256,
      weights_sha256: manifest.generator.weights_sha256,
      latent_input: manifest.latent.input,
    },
    seed: row.seed,
    codes_sha256: null,
    edits: asked,
    layers: null,
    class_id: row.classId === null ? null : [row.classId],
    direction: [row.direction],
    alpha: [row.alpha],
    labels: [],
    title: '',
    ...(scale === 1 ? {} : { scale }),
  };
  return JSON.stringify(recipe).replace(/[\u007f-\uffff]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
}
