"""`latentclr check`: each fault is found, named and answered with what to write; what is right passes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from tiny_generators import LayeredGenerator, MappedGenerator
from tiny_plugin import WORD
from torch import Tensor, nn

from export.conformance import Finding, layer_lines, protocol_findings
from export.live import Live
from export.reasons import advice_for, reason_of
from latentclr.generators.base import Generator

Invoke = Callable[..., Result]


def looked_at(generator: Generator, layer: str = "layers.1") -> dict[str, Finding]:
    """Return what is found before anything is exported."""
    return {found.name: found for found in protocol_findings(generator, layer)}


def faulty(**methods: object) -> LayeredGenerator:
    cls = type("Faulty", (LayeredGenerator,), methods)
    return cls(conditional=False)


@pytest.mark.parametrize("generator", [LayeredGenerator(), LayeredGenerator(conditional=True), MappedGenerator()])
def test_what_is_right_passes(generator: Generator) -> None:
    found = looked_at(generator)
    assert all(finding.good for finding in found.values()), found
    assert ("classes" in found) == (generator.class_names is not None)
    assert found["gradient"].text.startswith("from layers.1 to 2 of 3 latent inputs")


def draw(self: LayeredGenerator, ps: Tensor, class_id: Tensor | None = None) -> Tensor:
    return LayeredGenerator.synthesize(self, ps, class_id)


FAULTS: dict[str, tuple[str, dict[str, object], str]] = {
    "noise": ("deterministic", {"synthesize": lambda self, ps, c=None: draw(self, ps + torch.rand_like(ps))}, "buffer"),
    "batch": ("rows", {"synthesize": lambda self, ps, c=None: draw(self, ps - ps.mean(0))}, "stored statistics"),
    "size": ("pixels", {"synthesize": lambda self, ps, c=None: draw(self, ps)[..., 1:]}, ""),
    "nan": ("pixels", {"synthesize": lambda self, ps, c=None: draw(self, ps) * torch.nan}, "division by zero"),
    "bytes": ("pixels", {"synthesize": lambda self, ps, c=None: draw(self, ps) * 127}, "x / 127.5 - 1"),
    "unit": ("pixels", {"synthesize": lambda self, ps, c=None: draw(self, ps) / 2 + 0.5}, "2 * x - 1"),
    "still": ("pixels", {"synthesize": lambda self, ps, c=None: draw(self, ps * 0)}, "use its code"),
    "gradient": ("gradient", {"inputs_reaching": lambda self, layer: 0}, "torch.no_grad"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_answered(fault: str) -> None:
    name, methods, advice = FAULTS[fault]
    found = looked_at(faulty(**methods))
    assert not found[name].good and advice in found[name].advice
    assert all(finding.good for other, finding in found.items() if other not in (name, "rows", "deterministic"))


def test_what_is_not_frozen() -> None:
    generator = LayeredGenerator()
    generator.hidden.requires_grad_()
    assert "hidden collects gradients" in looked_at(generator)["frozen"].text
    generator = LayeredGenerator()
    generator.part = nn.Dropout()
    assert "part is in training mode" in looked_at(generator)["frozen"].text

    def count(self: LayeredGenerator, ps: Tensor, layer: str, class_id: Tensor | None = None) -> Tensor:
        self.pixels.data += 1e-3
        return LayeredGenerator.features(self, ps, layer, class_id)

    assert "a run changes its tensors" in looked_at(faulty(features=count))["frozen"].text


def test_the_table_of_layers() -> None:
    lines = layer_lines(LayeredGenerator(), "layers.1")
    assert lines[0].split() == ["feature", "layer", "shape", "values", "latent", "inputs"]
    assert [line.split() for line in lines[1:]] == [
        ["layers.0", "10", "10", "0"], ["layers.1", "*", "10", "10", "0-1"], ["layers.2", "10", "10", "0-2"],
    ]  # fmt: skip


def test_memory_counts_what_is_alive_together() -> None:
    with torch.no_grad(), Live() as live:
        x = torch.zeros(1000)  # 4,000 bytes
        x = x.view(10, 100) + 1  # and as many, then the first are gone
        x = x + 1
        del x
    assert live.peak == 8000


def test_the_command_says_all_of_it(invoke: Invoke) -> None:
    result = invoke("check", WORD, "generator.classes=true")
    assert result.exit_code == 0, result.output
    for line in (
        r"^make: codes of 10 numbers \(standard_normal\), pictures of 16 x 12 pixels, 3 classes, [\d,]+ weights$",
        r"^ok    ONNX: draws the same, any number of rows: \d+ images, worst [01]/255",
        r"^ok    TorchScript: draws the same",
        r"^ok    one picture: .* in PyTorch, .* in ONNX Runtime, .* of weights, and .* more while it is drawn$",
        r"^      body.0 \* ",
    ):
        assert re.search(line, result.output, re.M), line


def test_the_command_fails_with_what_to_write(tmp_path: Path, invoke: Invoke, refused: Callable[[Result], str]) -> None:
    code = (Path(WORD.partition("=")[2].rpartition(":")[0])).read_text()
    path = tmp_path / "loop.py"
    path.write_text(code.replace(
        "return torch.tanh(self.paint(x[..., None, None]))",
        "return torch.cat([torch.tanh(self.paint(x[i : i + 1, :, None, None])) for i in range(len(x))])",
    ))  # fmt: skip
    result = invoke("check", f"generator={path}:make")
    assert "make cannot be used everywhere yet: ONNX, TorchScript" in refused(result)
    assert result.stdout.count("-> the number of rows became a constant: no Python loop over rows") == 2


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "expected generator=NAME or generator=FILE.py:FUNCTION"),
        (["generator=dcgan", "k=3"], "latentclr check takes generator= and generator.KEY=, got k"),
        (["generator=dcgan", "generator.feature_layer=x"], "dcgan has no layer 'x'"),
    ],
)
def test_bad_words(words: list[str], line: str, invoke: Invoke, refused: Callable[[Result], str]) -> None:
    assert line in refused(invoke("check", *words))


class Stops(nn.Module):
    """What torch.export says of a module with one operation that it does not take."""

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


def way(x: Tensor) -> Tensor:
    if x.sum() > 0:
        return x
    return -x


def noise(x: Tensor) -> Tensor:
    return x + torch.randn(4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("run", "reason", "advice"),
    [
        (way, r"the way depends on a value at test_conformance.py, line \d+: if x.sum\(\) > 0:", "torch.where"),
        (torch.linalg.svdvals, "ONNX has no operator for linalg_svdvals|_linalg_svd", "buffer"),
        (torch.erfinv, "ONNX has no operator for erf_?inv", "polynomial"),
        (noise, r"it draws random numbers \(randn\)", "draw the noise once"),
    ],
)
def test_reasons_of_torch_are_one_line_with_advice(
    run: Callable[[Tensor], Tensor], reason: str, advice: str, capfd: pytest.CaptureFixture[str]
) -> None:
    import contextlib
    import io
    import warnings

    with pytest.raises(Exception, match=r"export") as caught, contextlib.redirect_stderr(io.StringIO()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(Stops(run), (torch.ones(4, 4),), dynamo=True, verbose=False)
    told = reason_of(caught.value)
    assert re.search(reason, told) and "\n" not in told and "\x1b" not in told
    assert advice in advice_for(told)
