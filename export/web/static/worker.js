// ONNX Runtime in a thread of its own, so that the page stays responsive. One message in, one answer out.
let ort = null;
let session = null;

const jobs = {
  // The runtime's files: `script` and `module` are addresses, `binary` is the WebAssembly itself.
  async start({ script, module, binary, threads }) {
    ort = await import(script);
    ort.env.logLevel = 'fatal';
    Object.assign(ort.env.wasm, { wasmBinary: binary.buffer, wasmPaths: { mjs: module }, numThreads: threads });
  },

  // Loads the graph for one provider, `webgpu` or `wasm`.
  async load({ graph, provider }) {
    await session?.release();
    session = await ort.InferenceSession.create(graph, {
      executionProviders: [provider], graphOptimizationLevel: 'all', logSeverityLevel: 3,
    });
  },

  // One row -> { pixels [H, W, 3], valid, ms }.
  async draw({ code, direction, alpha, classId }) {
    const [name] = session.inputNames, m = direction.length;
    const feeds = {
      [name]: new ort.Tensor('float32', code, [1, code.length]),
      direction: new ort.Tensor('int64', BigInt64Array.from(direction, BigInt), [1, m]),
      alpha: new ort.Tensor('float32', alpha, [1, m, alpha.length / m]),
    };
    if (classId !== null) feeds.class_id = new ort.Tensor('int64', BigInt64Array.of(BigInt(classId)), [1]);
    const started = performance.now();
    const { image, valid } = await session.run(feeds);
    const answer = { pixels: new Uint8Array(image.data), valid: Boolean(valid.data[0]), ms: performance.now() - started };
    image.dispose();
    valid.dispose();
    return answer;
  },
};

addEventListener('message', async ({ data: { id, job, input } }) => {
  try {
    const answer = await jobs[job](input);
    postMessage({ id, answer }, answer?.pixels ? [answer.pixels.buffer] : []);
  } catch (error) { // the runtime throws numbers too
    postMessage({ id, error: String(error?.message ?? error) });
  }
});
