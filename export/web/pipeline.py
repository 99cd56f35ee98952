"""From a run folder to a page: fuse, export, store the weights small, prove, say the sizes, write."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from export.editor import FusedEditor
from export.golden import save_golden
from export.manifest import build_manifest, slider_ranges
from export.onnx import OPSET
from export.parity import slider_alphas
from export.web.memory import PHONE_BYTES, browser_bytes, check_browser
from export.web.page import check_folder, page_files, visitor_bytes, write_page
from export.web.runtime import runtime_files
from export.web.smallest import ENGINE, smallest_graph
from latentclr.config import TrainConfig
from latentclr.method.step import feed_mask
from latentclr.training.experiment import named_edits, open_run, trained_generator
from serving.contract.certificate import GATES, Gate
from serving.contract.golden import read_golden
from serving.contract.layout import DEFAULT_MODEL
from serving.contract.temporary import remove_dead_folders, temporary_folder

TITLE = "Sliders"
_GOLDEN_CODES = 2


def export_web(
    run: Path,
    words: Sequence[str],
    folder: Path,
    *,
    name: str = DEFAULT_MODEL,
    title: str = TITLE,
    precision: str | None = None,
    quality: str | None = None,
    opset: int = OPSET,
    say: Callable[[str], None] = print,
) -> Path:
    """Write a page for any static host that edits a run's pictures in the visitor's browser.

    Args:
        run: Run folder or checkpoint file.
        words: Overrides of the run's configuration.
        folder: Where to; a page that is there already is replaced.
        name: What the model is called in recipes.
        title: Of the page.
        precision: Of the stored weights, `fp32` or `fp16`; None for the fewest bits that hold the quality.
        quality: What the graph must hold, see `Gate.parse`; None for `certified`, or with `fp32` for `exact`.
        opset: ONNX operator set.
        say: Receives one line for each thing done.

    Returns:
        The folder.

    Raises:
        LatentCLRError: The run cannot be opened, something else is in the folder, a browser cannot hold the model, the
            graph cannot be made or misses its quality, the runtime cannot be had, or the disk is full.
    """
    gate = Gate.parse(quality) if quality is not None else GATES["exact" if precision == "fp32" else "certified"]
    check_folder(folder)
    config, checkpoint = open_run(run, words, TrainConfig)
    generator = trained_generator(config, checkpoint)
    if generator.random_weights:
        say("the generator has random weights: whatever it draws is noise; the page says so too")
    editor = FusedEditor(generator, checkpoint.directions)
    needed = browser_bytes(editor)
    check_browser(needed)
    runtime = runtime_files(say)
    edits, problems = named_edits(config, checkpoint, generator.latent.layers)
    for problem in problems:
        say(f"named edits: {problem}")
    fed = feed_mask(config.feed_layers, generator.latent.layers)  # [L]
    alphas = slider_alphas(slider_ranges(checkpoint))
    remove_dead_folders()
    with temporary_folder("export") as place:
        try:
            graph = smallest_graph(
                editor, gate, place, alphas=alphas, fed=fed, precision=precision, opset=opset, say=say
            )
            ordered = dict(sorted(edits.items(), key=lambda item: item[0].casefold()))
            certificates = [graph.certificate]
            manifest = build_manifest(
                name, generator, checkpoint, [graph.path], certificates, ordered, "z", config.feed_layers
            )
            engines = {ENGINE: graph.engine}
            golden = save_golden(place, editor, manifest, alphas, fed, engines, gate, _GOLDEN_CODES)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("nothing is written") from None
        made = page_files(graph, manifest, read_golden(golden), gate, runtime, title, needed)
    if edits:
        say(f"named edits: {', '.join(ordered)}")
    loads = visitor_bytes(made)
    say(
        f"a visitor loads {_mib(loads['wasm'])}, with WebGPU {_mib(loads['webgpu'])}: the model is"
        f" {_mib(len(graph.packed))} of it (weights in {graph.weights}), most of the rest is ONNX Runtime Web"
    )
    phone = "; a phone may refuse that" if needed > PHONE_BYTES else ""
    say(f"it takes about {needed / 2**20:.0f} MiB of memory there{phone}")
    total = sum(map(len, made.values()))
    say(f"writing {len(made)} files, {_mib(total)}, the largest {_mib(max(map(len, made.values())))}")
    write_page(folder, made)
    return folder


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"
