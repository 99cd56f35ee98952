"""A user's own generator: found, called with typed arguments, wrapped, refused in one line, and run by no file."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import Result
from tiny_plugin import WORD, make
from torch import nn

from latentclr.commands import run_train
from latentclr.compose import compose_train, plain
from latentclr.errors import ConfigError, GeneratorError, LatentCLRError
from latentclr.generators import plugin, registry
from latentclr.generators.base import Generator, LatentSpec
from latentclr.generators.wrapped import Wrapped, as_generator, tensors_sha256

HEAD = """
from __future__ import annotations
import torch
from torch import nn
from latentclr.generators.base import LatentSpec

class Net(nn.Module):
    latent = LatentSpec(dim=4)
    def __init__(self):
        super().__init__()
        self.paint = nn.Linear(4, 3 * 8 * 8)
    def forward(self, z):
        return torch.tanh(self.paint(z)).unflatten(1, (3, 8, 8))
"""
STEPS = ["model=global", "k=3", "hparams.batch_size=2", "hparams.iterations=2", "eval_iters=1", "device=cpu",
         "tensorboard=false"]  # fmt: skip
Invoke = Callable[..., Result]


def build(*words: str) -> Generator:
    return compose_train([*words]).generator.build()


@pytest.fixture
def written(tmp_path: Path) -> Callable[[str], str]:
    """Write a user's file that goes on after `HEAD`; return the word for its function `make`."""

    def write(code: str) -> str:
        path = tmp_path / "mine.py"
        path.write_text(HEAD + code)
        return f"generator={path}:make"

    return write


def test_arguments_are_typed_by_the_annotations(written: Callable[[str], str]) -> None:
    word = written(
        "from pathlib import Path\nseen = {}\n"
        "def make(size: int, scale: float = 1, where: Path = Path('a/b'), pair: tuple[int, ...] = (1, 2),\n"
        "         names: list[str] = ['x'], deep: bool = False, note: str | None = None, loose=3,\n"
        "         place: torch.device = torch.device('cpu'), **rest):\n"
        "    seen.update(locals())\n    return Net()\n"
    )
    config = compose_train(
        [word, "generator.size=3", "generator.scale=2", "generator.where=c.pt", "generator.pair=[4,5]"]
    )
    assert plain(config)["generator"] == {
        "name": word.partition("=")[2], "feature_layer": "", "size": 3, "scale": 2.0, "where": "c.pt", "pair": [4, 5],
        "names": ["x"], "deep": False, "note": None, "loose": 3,
    }  # fmt: skip
    made = config.generator.build()
    seen = type(config.generator).function.__globals__["seen"]
    assert (seen["where"], seen["pair"], seen["scale"], seen["place"].type) == (Path("c.pt"), (4, 5), 2.0, "cpu")
    assert isinstance(made, Wrapped) and config.generator.feature_layer == "image"  # paint is linear in the code
    for wrong, line in {
        "generator.size=big": r"generator.size=big: Value 'big' of type 'str' could not be converted to Integer",
        "generator.sice=3": r"unknown option 'generator.sice'; did you mean 'generator.size'",
        "generator.weights=a": r"unknown option 'generator.weights'",
        "generator.place=cpu": r"unknown option 'generator.place'",
    }.items():
        with pytest.raises(ConfigError, match=line):
            compose_train([word, "generator.size=1", wrong])
    with pytest.raises(ConfigError, match=r"needs generator.size=\.\.\."):
        compose_train([word])


def test_a_module_follows_the_protocol_once_it_is_wrapped() -> None:
    g = Wrapped(make(), LatentSpec(dim=10), "make")
    assert (g.size, g.latent.layers, g.class_names, g.class_ids) == ((12, 16), 1, None, ())
    assert g.feature_layers == ("first", "body.0", "body.1", "body.2", "body", "late", "paint", "image")
    assert g.default_layer() == "body.0"
    assert not any(p.requires_grad for p in g.parameters()) and not g.train().net.training
    ps = g.sample(3, torch.Generator().manual_seed(0))[:, None].requires_grad_()  # [3, 1, D]
    image = g.synthesize(ps)
    assert image.shape == (3, 3, 12, 16) and torch.equal(image[:, 0], image[:, 2])  # grey in three channels
    x = g.net.first(ps[:, 0])
    assert torch.equal(g.features(ps, "first"), x)  # caught before the ReLU behind it works in place
    assert torch.equal(g.features(ps, "body.0"), torch.relu(x))
    assert torch.equal(g.features(ps, "image"), image)
    (gradient,) = torch.autograd.grad(g.features(ps, "body").sum(), ps)
    assert gradient.abs().max() > 0
    assert g.describe()["width"] == 16 and g.weights_sha256 == tensors_sha256(make())
    assert g.weights_sha256 != tensors_sha256(make(seed=1))
    with pytest.raises(GeneratorError, match="has no layer 'boddy'; did you mean 'body'"):
        g.features(ps, "boddy")


def test_the_run_stops_at_the_layer() -> None:
    g = Wrapped(make(), LatentSpec(dim=10), "make")
    g.net.paint.register_forward_hook(lambda *_: pytest.fail("ran on"))
    g.features(torch.zeros(2, 1, 10), "body.2")


def test_several_latent_inputs_and_which_of_them_reach_a_layer() -> None:
    g = build(WORD, "generator.layers=3")
    reaching = {layer: g.inputs_reaching(layer) for layer in g.feature_layers}
    assert reaching == {"first": 1, "body.0": 1, "body.1": 1, "body.2": 1, "body": 1, "late": 3, "paint": 3, "image": 3}
    assert g.synthesize(torch.zeros(2, 3, 10)).shape == (2, 3, 12, 16)


def test_classes_come_with_their_names() -> None:
    g = build(WORD, "generator.classes=true")
    assert g.class_names == ("cold", "warm", "hot") and g.class_ids == (0, 1, 2)
    z = torch.zeros(2, 1, 10)
    assert (g.synthesize(z, torch.tensor([0, 0])) != g.synthesize(z, torch.tensor([0, 1]))).any()


def test_a_whole_generator_is_used_as_it_is() -> None:
    from tiny_generators import LayeredGenerator

    made = LayeredGenerator()
    assert as_generator(made, "a.py:b", "b") is made
    with pytest.raises(
        GeneratorError, match=r"a.py:b must return a torch.nn.Module with a LatentSpec.* got Linear with"
    ):
        as_generator(nn.Linear(1, 1), "a.py:b", "b")
    with pytest.raises(GeneratorError, match="got NoneType"):
        as_generator(None, "a.py:b", "b")


def test_a_module_without_feature_layers_and_one_whose_gradient_is_cut(written: Callable[[str], str]) -> None:
    word = written(
        "class Cut(Net):\n"
        "    @torch.no_grad()\n"
        "    def forward(self, z):\n"
        "        return super().forward(z)\n"
        "make = Cut\n"
    )
    g = build(word)
    assert g.inputs_reaching("paint") == 0
    with pytest.raises(ConfigError, match="no gradient comes back from image to the code"):
        run_train([word, *STEPS, "save=false"])


def test_what_was_saved_on_a_gpu_is_loaded_onto_the_cpu(
    tmp_path: Path, written: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "gpu.pt"
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:0")
        torch.save({"paint.weight": torch.ones(192, 4), "paint.bias": torch.zeros(192)}, path)
    with pytest.raises(RuntimeError, match="CUDA"):
        torch.load(path)
    word = written(
        f"def make():\n    net = Net()\n    net.load_state_dict(torch.load({str(path)!r}))\n    return net\n"
    )
    assert build(word).synthesize(torch.ones(1, 1, 4)).min() > 0.99
    with pytest.raises(RuntimeError, match="CUDA"):  # and only there
        torch.load(path)


BAD = {
    "x = 1\n": "has no function 'make'",
    "make = 3\n": "names a int, expected a function",
    "import nowhere_at_all\n": r"cannot be imported: ModuleNotFoundError: .*'nowhere_at_all' \(mine.py, line",
    "def make(:\n": r"cannot be imported: SyntaxError: .*\(mine.py, line 14\)",
    "def make():\n    raise ValueError('no weights\\nhere')\n": r"raised ValueError: no weights \(mine.py, line 15\)",
    "def make():\n    raise SystemExit(3)\n": "raised SystemExit: 3",
    "def make(name): return Net()\n": "an argument cannot be called 'name'",
    "def make(): return Net\n": "must return a torch.nn.Module with a LatentSpec",
    "def make(): return nn.Linear(4, 2)\n": "got Linear with latent None",
    "def make(): return nn.Linear(4, 2), 4\n": "got Linear with latent 4",
    "def make(): return Net(), LatentSpec(dim=5)\n":
        r"its LatentSpec says codes \[4, 5\], and the module cannot draw them: RuntimeError: .*4x5 and 4x192",
    "def make(): return Net(), LatentSpec(dim=0)\n": "LatentSpec.dim must be a whole number of at least 1, got 0",
    "def make(): return Net(), LatentSpec(4, sampler='uniform')\n": "LatentSpec.sampler must be one of standard_normal",
    "def make(): return nn.Linear(4, 2), LatentSpec(4)\n": r"must draw images \[4, 1 or 3, H, W\] .* got \[4, 2\]",
    "class A(Net):\n    def forward(self, z): return super().forward(z) * 127.5 + 127.5\nmake = A\n":
        r"must draw images in \[-1, 1\], got values in \[\S+, 2\S+\]: scale them",
    "class A(Net):\n    def forward(self, z): return super().forward(z + torch.randn_like(z))\nmake = A\n":
        "draws something else each time for the same code",
    "class A(Net):\n    def forward(self, z): return super().forward(z - z.mean(0))\nmake = A\n":
        "a picture depends on the others in its batch",
    "class A(Net):\n    def forward(self, z): return super().forward(z) / 0\nmake = A\n": "numbers that are not finite",
    "def make():\n    net = Net()\n    net.paint.weight.data[0] = float('nan')\n    return net\n":
        "the weights of net.paint.weight are not finite numbers",
    "def make():\n    net = Net()\n    net.class_names = 'abc'\n    return net\n": "class_names must be a list",
}  # fmt: skip


@pytest.mark.parametrize("code", BAD)
def test_bad_plugins_are_one_line(code: str, written: Callable[[str], str]) -> None:
    with pytest.raises(LatentCLRError, match=BAD[code]) as caught:
        build(written(code))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("generator=nowhere.py:make", "there is no file nowhere.py"),
        ("generator=nowhere.module:make", "nowhere.module cannot be imported: ModuleNotFoundError"),
        ("generator=json:dumbs", "json has no function 'dumbs'; did you mean 'dumps'"),
        ("generator=:make", "must be FILE.py:FUNCTION or package.module:FUNCTION"),
        ("generator=json:dumps", r"arguments cannot be read|needs generator.obj"),
        ("generator=stylegam2", "must be one of dcgan, .* or FILE.py:FUNCTION, got .*did you mean 'stylegan2'"),
    ],
)
def test_bad_words_are_one_line(word: str, line: str, invoke: Invoke, refused: Callable[[Result], str]) -> None:
    import re

    assert re.search(line, refused(invoke("train", word)))


@pytest.fixture(scope="module")
def plugged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the tiny plug-in."""
    folder = tmp_path_factory.mktemp("plugin") / "run"
    assert run_train([WORD, "generator.classes=true", *STEPS, f"output_dir={folder}"])
    return folder


def test_a_run_asks_for_the_word_again(plugged: Path, invoke: Invoke, refused: Callable[[Result], str]) -> None:
    for command in (
        ["eval", plugged], ["gen", plugged], ["score", plugged], ["train", f"checkpoint={plugged}"],
        ["export", plugged, "--repository", plugged / "models"],
    ):  # fmt: skip
        line = refused(invoke(*command))
        assert "code runs by your word only" in line and str(Path(__file__).with_name("tiny_plugin.py")) in line
    assert "was trained with the plug-in" in refused(invoke("gen", plugged, "generator=dcgan"))
    other = [WORD, "generator.seed=1", "n_samples=1", f"output_dir={plugged}/other"]
    assert invoke("gen", plugged, *other).exit_code == 0  # other weights, by the user's own word: a warning
    assert invoke("name", plugged, "warmth", "--direction", 1).exit_code == 0  # runs no generator, and needs no word
    assert "warmth" in invoke("names", plugged).output


def test_the_same_word_must_mean_the_same_weights(plugged: Path, tmp_path: Path) -> None:
    code = Path(__file__).with_name("tiny_plugin.py").read_text()
    moved = tmp_path / "moved.py"
    moved.write_text(code)
    words = [f"generator={moved}:make", "n_samples=1", f"output_dir={tmp_path}"]
    from latentclr.commands import run_gen

    assert run_gen(plugged, words)  # elsewhere, and still the same
    moved.write_text(code.replace("manual_seed(seed)", "manual_seed(seed + 1)"))
    with pytest.raises(LatentCLRError, match=r"is not the generator that .* was trained on: its weights have SHA-256"):
        run_gen(plugged, words)


def test_a_built_in_run_opens_with_no_plugin(run: Path, invoke: Invoke, refused: Callable[[Result], str]) -> None:
    assert "this run was trained with generator dcgan" in refused(invoke("gen", run, WORD))


@pytest.mark.parametrize("command", ["eval", "gen", "score", "export", "name", "train"])
def test_no_file_of_a_run_makes_code_run(
    command: str, plugged: Path, tmp_path: Path, invoke: Invoke, refused: Callable[[Result], str]
) -> None:
    """Whatever a run says of its generator, its code is not even imported."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    evil, mark = tmp_path / "evil.py", tmp_path / "ran"
    evil.write_text(f"open({str(mark)!r}, 'w')\ndef make(): pass\n")
    run = tmp_path / "run"
    run.mkdir()
    with safe_open(plugged / "best.safetensors", "pt") as file:
        meta = json.loads(file.metadata()["latentclr"])
    for name in (f"{evil}:make", "evil:make", "mark"):
        meta["config"]["generator"] |= {"name": name, "_target_": name, "function": name}
        for path in ("best", "last"):
            tensors = load_file(plugged / "best.safetensors")
            save_file(tensors, run / f"{path}.safetensors", {"latentclr": json.dumps(meta)})
        (run / ".hydra").mkdir(exist_ok=True)
        (run / ".hydra" / "config.yaml").write_text(yaml.safe_dump(meta["config"]))
        state = torch.load(plugged / "resume.pt", weights_only=True)
        torch.save(state | {"config": meta["config"]}, run / "resume.pt")
        words = {"name": [run, "x", "--direction", 0], "train": [f"checkpoint={run}"]}.get(command, [run])
        result = invoke(command, *words)
        assert command == "name" or refused(result)
        assert not mark.exists()


def test_other_packages_announce_theirs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, invoke: Invoke, refused: Callable[[Result], str]
) -> None:
    """A name in a run is as little the user's word for them as a file's is."""
    theirs = EntryPoint("tiny", "tiny_plugin:make", registry.GROUP)
    known = {**registry.entries(), "tiny": theirs}
    monkeypatch.setattr(registry, "entries", lambda: known)
    monkeypatch.setattr(plugin, "entries", lambda: known)
    assert run_train(["generator=tiny", *STEPS, f"output_dir={tmp_path}/run"])
    assert "name it again, generator=... (the run says tiny)" in refused(invoke("gen", tmp_path / "run"))
    assert invoke("gen", tmp_path / "run", "generator=tiny", "n_samples=1").exit_code == 0
    assert "| tiny" in invoke("train", "--help").output


def test_folders_are_called_after_the_word() -> None:
    assert plugin.short_name("dcgan") == "dcgan"
    assert plugin.short_name("../my gan/digits.py:make") == "digits-make"
    assert plugin.short_name("pkg.mod:f") == "pkg.mod-f"
