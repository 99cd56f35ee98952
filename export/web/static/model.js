// The manifest as the page's parts want it: what the studio's /api/model and /api/classes answer.

export function describe(manifest, engine) {
  const { generator, latent, directions } = manifest;
  const { classes } = generator;
  const first = classes?.default[0];
  return {
    name: manifest.name,
    generator: generator.name,
    resolution: generator.resolution,
    width: generator.width ?? generator.resolution,
    preview: null,
    seeds: true,
    photos: false,
    random_weights: generator.random_weights,
    weights_sha256: generator.weights_sha256,
    directions: directions.count,
    layers: latent.layers,
    default_layers: directions.layers ?? [],
    alpha_range: directions.alpha_range,
    scores: (directions.scores ?? []).map((score) => ({
      ...score, top: score.top.map(([attribute, effect]) => ({ attribute, effect })),
    })),
    class_count: classes?.names.length ?? 0,
    default_class: first === undefined ? null : { id: first, name: classes.names[first] },
    edits: Object.entries(manifest.edits).map(([name, edit]) => ({
      name, direction: edit.direction, layers: edit.layers, alpha: edit.alpha_range, note: edit.note,
      reverse: edit.reverse ?? false, source: 'model', removable: false,
    })),
    names_writable: false,
    names_note: engine.note, // it stands below the sliders
    problems: [],
    engine: engine.text,
  };
}

// Classes by number or part of their name; those that begin with it come first.
export function searchClasses(manifest, query, limit) {
  const names = manifest.generator.classes?.names ?? [];
  const wanted = query.trim().toLowerCase();
  const found = names.map((name, id) => ({ id, name, low: name.toLowerCase() }))
    .filter(({ id, low }) => low.includes(wanted) || wanted === String(id));
  const rank = ({ low }) => Number(!low.startsWith(wanted));
  return found.sort((a, b) => rank(a) - rank(b) || a.id - b.id).slice(0, limit).map(({ id, name }) => ({ id, name }));
}
