"""The project as a whole: who imports whom, what is instant, and a wheel that works without the checkout."""

from __future__ import annotations

import ast
import dataclasses
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from latentclr.catalog import NamedGenConfig
from latentclr.cli import cli
from latentclr.config import GROUPS, ScoreConfig, TrainConfig, option_sections, own_lines

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("latentclr", "export", "serving")
HEAVY = {
    "openvino",
    "torch",
    "hydra",
    "omegaconf",
    "matplotlib",
    "PIL",
    "onnx",
    "onnxruntime",
    "tritonclient",
    "numpy",
    "scipy",
}

# May name modules of other packages in strings, to be imported when asked for: the command line's table, nothing else.
LAZY = "latentclr/cli.py"


def sources(package: str) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def imported(tree: ast.Module) -> set[str]:
    """Return the top-level names of all imports, wherever in the file they stand."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


def modules_of(tree: ast.Module) -> set[str]:
    """Return the dotted names of all modules that are imported, or from which something is."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            # `from serving import contract` imports serving.contract.
            names |= {node.module} if "." in node.module else {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def named_in_strings(tree: ast.Module) -> set[str]:
    """Return the modules of these packages that string constants name, as `pkg.module` or `pkg.module:attribute`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            match = re.fullmatch(r"((?:latentclr|export|serving)(?:\.\w+)+)(?::\w+)?", node.value)
            if match and (ROOT / match[1].replace(".", "/")).with_suffix(".py").exists():
                found.add(match[1])
    return found


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [
        ("latentclr", {"export", "serving", "onnx", "onnxruntime", "tritonclient", "pytriton"}),
        ("export", {"serving", "hydra", "omegaconf"}),
        ("serving", {"torch", "latentclr", "export", "hydra", "safetensors"}),
    ],
)
def test_imports_go_one_way(package, forbidden):
    checked = 0
    for path, tree in sources(package):
        wrong = imported(tree) & forbidden
        if path == "serving/backends/pytorch/model.py":
            wrong -= {"torch"}  # runs TorchScript inside Triton
        if path == "latentclr/scores/runtime.py":
            wrong -= {"onnxruntime"}  # runs scorers, which are other people's networks
        if package in ("latentclr", "export"):
            served = {name for name in modules_of(tree) if name.partition(".")[0] == "serving"}
            assert not {name for name in served if not f"{name}.".startswith("serving.contract.")}, path
            wrong -= {"serving"}  # the contract, and nothing else of it
        assert not wrong, f"{path} imports {sorted(wrong)}"
        for name in named_in_strings(tree):
            own = name.partition(".")[0] == package
            assert own or path == LAZY, f"{path} names {name} in a string"
        checked += 1
    assert checked > 5


def test_the_check_of_imports_can_fail():
    tree = ast.parse(
        "def f():\n    from export.editor import FusedEditor\n    import torch.nn\nx = 'serving.cli:edit'\n"
    )
    assert imported(tree) == {"export", "torch"}
    assert named_in_strings(tree) == {"serving.cli"}
    tree = ast.parse("from serving import contract, client\nfrom serving.contract.catalog import x\nimport serving")
    assert modules_of(tree) == {"serving.contract", "serving.client", "serving.contract.catalog", "serving"}


def test_the_contract_stands_on_nothing():
    """Whoever agrees to it (training, export, an app) must not get a server's libraries with it."""
    for path, tree in sources("serving/contract"):
        above = {name for name in modules_of(tree) if name.partition(".")[0] in PACKAGES}
        assert not {name for name in above if not name.startswith(("serving.contract", "serving.errors"))}, path
    modules = [path.removesuffix(".py").replace("/", ".") for path, _ in sources("serving/contract")]
    modules = [name for name in modules if not name.endswith("__init__")]
    heavy = {*HEAVY - {"numpy"}, "ai_edge_litert", "grpc", "google", "yaml", "latentclr", "export"}
    of_photos = [name for name in modules if name.startswith("serving.contract.photo.")]
    assert not loaded_by("import " + ", ".join(name for name in modules if name not in of_photos)) & heavy
    assert not loaded_by("import " + ", ".join(of_photos)) & (heavy - {"PIL"})  # for pictures, Pillow too


def test_what_is_read_from_proc_by_hand_has_a_reason():
    """psutil reads the rest, where it may be used."""
    found = {path for package in (*PACKAGES, "benchmarks") for path, tree in sources(package) if reads_proc(tree)}
    kept = (ROOT / "CONTRIBUTING.md").read_text().partition("## Kept by hand")[2].partition("\n## ")[0]
    assert found == set(re.findall(r"`([\w/]+\.py)` \| psutil \|", kept))
    for path in re.findall(r"`([\w/]+(?:\.py|/))`", kept):
        assert (ROOT / path).exists(), path


def reads_proc(tree):
    texts = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return any(re.match(r"/proc(/|$)", text) for text in texts)


def test_the_check_of_proc_can_fail():
    assert reads_proc(ast.parse('from pathlib import Path\nPath(f"/proc/{pid}/stat")'))
    assert not reads_proc(ast.parse('"""Reads /proc."""\nx = "/process"'))


SYMBOLS = {"torch", "onnxruntime", "http", "png", "psi", "z", "ffhq", "dict", "code", "direction"}


def small_items(doc: str) -> list[str]:
    """Return the items of a docstring's sections that begin with a small letter; names and symbols of shapes may."""
    found = []
    for section, body in re.findall(r"^(Args|Attributes|Raises|Returns|Yields):\n((?:(?: .*)?\n)*)", doc + "\n", re.M):
        items = re.findall(r"^    (?=\S)(.*)", body, re.M)
        texts = items[:1] if section in ("Returns", "Yields") else [item.partition(": ")[2] for item in items]
        words = [re.match(r"([a-z]+(?:-[a-z]+)*)(?![\w']|: | ->)", text) for text in texts]
        found += [word.string for word in words if word and word[1] not in SYMBOLS]
    return found


@pytest.mark.parametrize("package", [*PACKAGES, "benchmarks", "tests", "docs", "examples"])
def test_docstrings_speak_one_dialect(package):
    """ruff holds Google's sections, and knows no rule for the items in them."""
    for path, tree in sources(package):
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                assert not small_items(ast.get_docstring(node) or ""), path


def test_the_check_of_docstrings_can_fail():
    doc = (
        """Do.\n\nArgs:\n    a: the first.\n    b: name -> what\n        it is.\n\nReturns:\n    rows [N].\n    more"""
    )
    assert small_items(doc) == ["the first.", "rows [N]."]
    assert not small_items("Do.\n\nArgs:\n    a: The first.\n    b: z [N, D].\n\nNote: raises: no.")


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_sets_what_all_threads_share(package):
    """The umask can only be read by setting it, and the working folder and environment of others are theirs."""
    shared = {"umask", "chdir", "putenv"}
    for path, tree in sources(package):
        used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & shared
        assert not used, f"{path} uses os.{used.pop()}"


# Whoever calls one of these reads bytes that anybody may have written, and is trusted to bound and check them.
PARSERS = (
    r"yaml\.((safe_|full_|unsafe_)?load(_all)?|parse|scan|compose(_all)?|\w*Loader|loader\..+|(parser|reader|scanner)\..+)",
    r"json\.(load|loads|JSONDecoder|decoder\..+)",
    r"numpy\.(load|loadtxt|genfromtxt|fromfile|fromstring|memmap|lib\.(format|npyio)(\..+)?)",
    r"torch\.(load|jit\.load|serialization\.load|package\..+|hub\..+|export\.load|UntypedStorage\.from_file)",
    r"(safetensors|safetensors\..+)\.(safe_open|load|load_file|load_model|deserialize)",
    r"(pickle|_pickle|cPickle|marshal|shelve|dill|cloudpickle|joblib)\..+",
    r"pickletools\..+",
    r"zipfile\.(ZipFile|PyZipFile|Path)",
    r"zlib\.decompress(obj)?",
    r"(tarfile|gzip|bz2|lzma|shutil\.unpack_archive|xml\..+|plistlib|tomllib|configparser|csv)(\..+)?",
    r"PIL\.Image\.open",
    r"PIL\.ImageFile\.Parser",
    r"(omegaconf\.)?OmegaConf\.(load|from_cli|from_dotlist)",
    r"google\.protobuf\.(text_format|json_format)\.(Parse|Merge|ParseLines|MergeLines)",
    r"onnx\.(load|load_model|load_from_string|load_tensor)",
    r"onnxruntime\.InferenceSession",
    r"openvino\.Core",
    r"ai_edge_litert\.interpreter\.Interpreter",
    r"(builtins\.)?(eval|exec|__import__)",
    r"importlib\.util\.(spec_from_\w+|module_from_spec)|importlib\.machinery\..+|runpy\..+",
    r"ast\.literal_eval",
)
READERS: dict[str, tuple[set[str], str]] = {
    "serving/contract/documents.py": ({"json.loads", "yaml.SafeLoader"}, "read_json and read_yaml themselves"),
    "serving/contract/arrays.py": (
        {"numpy.lib.format", "zipfile.ZipFile"},
        "read_npy and read_npz themselves: numpy's reader of a header, which holds no pickle; members within a bound",
    ),
    "serving/client/images.py": ({"PIL.Image.open"}, "read_recipe itself: size, kind and frames before the pixels"),
    "latentclr/plain_load.py": (
        {"torch.load", "safetensors.safe_open", "safetensors.torch.load", "zipfile.ZipFile"},
        "load_plain, load_storage, load_safetensors and read_safetensors themselves",
    ),
    "latentclr/generators/weights/safe_pickle.py": (
        {"pickletools.genops"},
        "load_pickle itself; it takes instructions apart",
    ),
    "latentclr/generators/biggan/wordnet.py": (
        {"zipfile.ZipFile"},
        "three members by name, each bounded before it is read",
    ),
    "latentclr/scores/runtime.py": (
        {"onnxruntime.InferenceSession"},
        "onnx_session itself: networks whose files the scorers have bounded and checked",
    ),
    "serving/contract/litert.py": (
        {"ai_edge_litert.interpreter.Interpreter"},
        "LiteNetwork itself: networks whose files were known by their SHA-256",
    ),
    "serving/contract/photo/reader.py": ({"PIL.Image.open"}, "read_photo itself: size and kind before the pixels"),
    "latentclr/generators/plugin.py": (
        {"importlib.util.spec_from_file_location", "importlib.util.module_from_spec"},
        "the user's own Python, by the user's word on the command line",
    ),
    "latentclr/catalog.py": ({"json.loads"}, "package data, which the wheel brings"),
    "latentclr/generators/biggan/imagenet.py": ({"json.loads"}, "package data, which the wheel brings"),
    "serving/backends/batching.py": ({"json.loads"}, "what Triton hands to its own backend"),
    "serving/backends/onnxruntime/model.py": ({"onnxruntime.InferenceSession"}, "the served model, run by Triton"),
    "serving/contract/openvino_engine.py": (
        {"openvino.Core"},
        "compile_model itself: the served model, or the graph that an export has just written",
    ),
    "export/openvino_lowered.py": ({"onnx.load"}, "the graph that this process has just written"),
    "serving/backends/pytorch/model.py": ({"torch.jit.load"}, "the served model, run by Triton"),
    "serving/doctor/command.py": ({"onnxruntime.InferenceSession"}, "a graph that the doctor has just made"),
    "export/onnx.py": ({"onnx.load", "onnxruntime.InferenceSession"}, "the graph that this process has just written"),
    "export/web/runtime.py": ({"zlib.decompressobj"}, "the runtime's files, bounded, and hashed before they are used"),
    "export/torchscript.py": ({"torch.jit.load"}, "the graph that this process has just written"),
    "serving/contract/pbtxt.py": ({"google.protobuf.text_format.Parse"}, "read_pbtxt itself"),
}


def parsers_used(tree: ast.Module) -> set[str]:
    """Return the parsers that a module names, under whatever name it imported them."""
    known: dict[str, str] = {}
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                known[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module:
            known |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        names, part = [], node
        while isinstance(part, ast.Attribute):
            names.append(part.attr)
            part = part.value
        if isinstance(part, ast.Name) and (names or part.id in {"eval", "exec", "__import__"}):
            found.add(".".join([known.get(part.id, part.id), *reversed(names)]))
    return {parser for name in found if (parser := parser_in(name))}


def parser_in(name: str) -> str:
    """Return the beginning of a dotted name that is a parser (the class, of `yaml.SafeLoader.add`), or nothing."""
    parts = name.split(".")
    beginnings = [".".join(parts[:count]) for count in range(1, len(parts) + 1)]
    return next((part for part in beginnings if any(re.fullmatch(pattern, part) for pattern in PARSERS)), "")


@pytest.mark.parametrize("package", PACKAGES)
def test_what_comes_from_outside_passes_the_named_readers(package):
    """A second reader would need bounds of its own; docs/security.md lists these."""
    for path, tree in sources(package):
        used = parsers_used(tree)
        allowed, reason = READERS.get(path, (set(), ""))
        assert used <= allowed, f"{path} reads with {sorted(used - allowed)}: use a reader of docs/security.md"
        assert used == allowed, f"{path} no longer reads with {sorted(allowed - used)} ({reason})"
    assert all((ROOT / path).is_file() and reason for path, (_, reason) in READERS.items())


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("import json\njson.loads(x)", "json.loads"),
        ("from json import loads as read\nread(x)", "json.loads"),
        ("import numpy as np\ndef f():\n    return np.load(x)", "numpy.load"),
        ("import yaml\nyaml.load_all(x, yaml.CLoader)", "yaml.load_all"),
        ("from yaml import safe_load", "yaml.safe_load"),
        ("import torch\nload = torch.load", "torch.load"),
        ("import torch.jit as jit\njit.load(x)", "torch.jit.load"),
        ("from safetensors.torch import load_file", "safetensors.torch.load_file"),
        ("import pickle as p\np.Unpickler(x)", "pickle.Unpickler"),
        ("from PIL import Image\nImage.open(x)", "PIL.Image.open"),
        ("import PIL.Image\nPIL.Image.open(x)", "PIL.Image.open"),
        ("from omegaconf import OmegaConf\nOmegaConf.load(x)", "omegaconf.OmegaConf.load"),
        ("import zipfile as z\nwith z.ZipFile(x) as a: pass", "zipfile.ZipFile"),
        ("value = eval(x)", "eval"),
        ("import runpy\nrunpy.run_path(x)", "runpy.run_path"),
        ("from importlib import util\nutil.spec_from_file_location(x, y)", "importlib.util.spec_from_file_location"),
    ],
)
def test_the_check_of_readers_can_fail(code, found):
    assert found in parsers_used(ast.parse(code))
    assert not parsers_used(ast.parse("import json, yaml\njson.dumps(x)\nyaml.safe_dump(x)\nmodel.eval()"))


def loaded_by(code: str) -> set[str]:
    """Run code in a fresh interpreter; return the top-level modules that it loaded."""
    script = f"import sys\n{code}\nprint('MODULES', *{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    modules = set(done.stdout.rpartition("MODULES")[2].split())
    assert "sys" in modules
    return modules


@pytest.mark.parametrize(
    "code",
    [
        "import latentclr",
        "import latentclr.config",
        "from latentclr.cli import cli; cli(['--help'], standalone_mode=False)",
        "from latentclr.cli import cli; cli(['--version'], standalone_mode=False)",
        "from latentclr.cli import cli; cli(['train', '--help'], standalone_mode=False)",
        "from latentclr.cli import cli; cli(['gen', '--help'], standalone_mode=False)",
        "from latentclr.cli import cli; cli(['score', '--help'], standalone_mode=False)",
        "from latentclr.cli import cli; cli(['name', '--help'], standalone_mode=False)",
        "from latentclr.cli import cli; cli(['check', '--help'], standalone_mode=False)",
        "from latentclr.cli import cli; cli(['export', '--help'], standalone_mode=False)",
        "from latentclr.cli import cli; cli(['serve', '--help'], standalone_mode=False)",
        "from latentclr.cli import cli; cli(['edit', '--help'], standalone_mode=False)",
        "from latentclr.cli import cli; cli(['certify', '--help'], standalone_mode=False)",
        "from latentclr.cli import cli; cli(['rollback', '--help'], standalone_mode=False)",
        "from latentclr.cli import cli; cli(['doctor', '--help'], standalone_mode=False)",
        "from latentclr.cli import cli; cli(['studio', '--help'], standalone_mode=False)",
    ],
)
def test_help_is_instant(code):
    heavy = loaded_by(code) & HEAVY
    assert not heavy, f"{code} loads {sorted(heavy)}"


def test_a_client_needs_no_torch():
    assert not loaded_by("import serving; serving.EditClient") & {"torch", "latentclr", "export", "hydra"}


def help_of(command: str) -> str:
    result = CliRunner().invoke(cli, [command, "--help"], terminal_width=200, prog_name="latentclr")
    assert result.exit_code == 0
    return result.output


def test_help_of_train_lists_every_option_under_its_heading():
    text = help_of("train")
    places = []
    for heading, lines in option_sections().items():
        places.append(text.index(heading))
        section = text[places[-1] :].partition("\n\n")[0]
        flat = "".join(section.split())  # long defaults and meanings wrap
        for key, default, meaning in lines:
            assert "".join(f"{key}={default}".split()) in flat, key
            assert "".join(meaning.split()) in flat, key
            assert len(re.findall(rf"^  {re.escape(key)}=", section, re.M)) == 1, key
    assert places == sorted(places)
    assert text.index("The run, as KEY=VALUE") < text.index("Groups")
    assert text.count("generator.weights=") == 1
    for group, options in GROUPS.items():
        assert f"{group}=" in text
        assert all(option in text for option in options)


@pytest.mark.parametrize(
    ("command", "schema", "keys"),
    [
        ("eval", TrainConfig, ("checkpoint", "eval_iters", "hparams.batch_size", "output_dir")),
        ("gen", NamedGenConfig, ("checkpoint", "seed", "output_dir")),
        ("score", ScoreConfig, ("checkpoint", "seed", "output_dir")),
        ("export", TrainConfig, ("checkpoint",)),
    ],
)
def test_help_of_the_others_lists_their_own_options_once(command, schema, keys):
    text = help_of(command)
    listed = re.findall(r"^  ([a-z_.]+)=", text, re.M)
    own = [option.name for option in dataclasses.fields(schema)[len(dataclasses.fields(TrainConfig)) :]]
    assert listed[: len(own)] == own
    assert set(keys) <= set(listed)
    assert len(set(listed)) == len(listed) < 15
    flat = "".join(text.split())
    for key, default, meaning in own_lines(schema, keys):
        assert "".join(f"{key}={default}".split()) in flat, key
        assert "".join(meaning.split()) in flat, key
    assert "latentclr train --help lists them" in " ".join(text.split())


@pytest.mark.parametrize("command", ["export", "serve", "edit"])
def test_help_of_every_click_option(command):
    text = help_of(command)
    context = cli.make_context("latentclr", [command], resilient_parsing=True)
    found = cli.get_command(context, command)
    assert found is not None
    for parameter in found.params:
        if parameter.param_type_name == "option":
            assert parameter.opts[0] in text
            assert parameter.help, parameter.opts


def test_help_of_the_group_lists_all_commands():
    result = CliRunner().invoke(cli, ["--help"])
    assert result.exit_code == 0
    commands = re.findall(r"^  (\w+)  ", result.output.partition("Commands:")[2], re.M)
    order = ["train", "eval", "gen", "score", "export", "serve", "edit"]  # of the work
    assert [command for command in commands if command in order] == order


def test_pyproject_lists_every_package():
    """A package that is not listed is missing from the wheel, and only there."""
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(settings["tool"]["setuptools"]["packages"])
    found = {
        str(path.parent.relative_to(ROOT)).replace("/", ".")
        for package in PACKAGES
        for path in (ROOT / package).rglob("__init__.py")
    }
    assert listed == found
    assert settings["project"]["scripts"]["latentclr"] == "latentclr.cli:main"


def copy_of_the_checkout(folder: Path) -> Path:
    """Copy what a package is made of: building leaves files behind."""
    folder.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_an_editable_install_is_found_from_the_folder_above_the_clone(tmp_path):
    """`git clone` makes a folder called latentclr without an __init__.py, which must not be taken for the package."""
    clone, target = copy_of_the_checkout(tmp_path / "latentclr"), tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--no-index"]
    command = [*pip, "--no-build-isolation", "--target", str(target), "--editable", str(clone)]
    subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path)
    code = f"import site; site.addsitedir({str(target)!r}); import latentclr; print(latentclr.__file__)"
    done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.strip() == str(clone / "latentclr" / "__init__.py")


def test_pyproject_keeps_the_tested_range_of_torch():
    """A torch that nobody has tried must not come in by itself; the pinned one is inside."""
    (low, high) = re.findall(r'"torch>=([\d.]+),<([\d.]+)"', (ROOT / "pyproject.toml").read_text())[0]
    (pinned,) = re.findall(r"^torch==([\d.]+)$", (ROOT / "constraints.txt").read_text(), re.M)

    def number(version: str) -> list[int]:
        return [int(part) for part in version.split(".")]

    assert number(low) <= number(pinned) < number(high)


def test_make_benchmarks_installs_every_engine_of_the_tables():
    """The tables' rows are what it writes, so each engine in them must be installed before it measures."""
    engines = set(
        re.findall(r"^\| \d+ \| ([\w .,]+?) \| [\d.]+ \|", (ROOT / "docs" / "benchmarks.md").read_text(), re.M)
    )
    assert {"eager", "onnxruntime", "openvino f32", "openvino bf16", "pytorch_pretrained_biggan"} <= engines
    told = subprocess.run(
        ["make", "-n", "-B", "benchmarks"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    installed = set()
    for extras in re.findall(r"-e '\.\[([\w,]+)\]'", told.partition("benchmarks/")[0]):
        for extra in extras.split(","):
            installed |= {
                re.split(r"[^\w-]", name)[0].replace("-", "_") for name in project["optional-dependencies"][extra]
            }
    for package in ("openvino", "onnxruntime", "pytorch_pretrained_biggan"):
        assert package in installed, package
    assert re.search(r"^openvino==", (ROOT / "constraints.txt").read_text(), re.M)


@pytest.mark.slow
def test_wheel_works_without_the_checkout(tmp_path):
    """Build from a copy, install into a bare environment that sees this one's packages, run from another folder."""
    copy = copy_of_the_checkout(tmp_path / "copy")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path / "dist"), str(copy)]
    subprocess.run(build, check=True, capture_output=True, text=True, cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("latentclr-*.whl")
    shutil.rmtree(copy)

    environment = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True, cwd=tmp_path)
    python = environment / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, text=True, cwd=tmp_path)
    # The dependencies come from this environment: nothing is downloaded. Its editable install of the checkout is a .pth
    # file, which is not read in a folder that is itself added by one.
    site = next((environment / "lib").glob("python*")) / "site-packages"
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")

    def run(*arguments: str) -> str:
        done = subprocess.run(arguments, capture_output=True, text=True, cwd=tmp_path, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    script = str(environment / "bin" / "latentclr")
    where = run(str(python), "-c", "import latentclr, export, serving; print(latentclr.__file__, export.__file__)")
    assert str(ROOT) not in where
    assert str(environment) in where
    assert "train" in run(script, "--help")
    assert run(script, "--version").strip().startswith("latentclr, version")
    for command in ("train", "export", "serve", "edit"):
        assert "Usage: latentclr" in run(script, command, "--help")
    files = run(str(python), "-c", "import serving, pathlib; "
                "print(*pathlib.Path(serving.__file__).parent.rglob('model.py'))")  # fmt: skip
    assert "onnxruntime" in files  # Triton's backends are data of the wheel, not modules of it
    assert "pytorch" in files
    everywhere = (
        "import importlib, pkgutil, latentclr, export; [importlib.import_module(m.name) for p in (latentclr, "
        "export) for m in pkgutil.walk_packages(p.__path__, p.__name__ + '.') if not m.name.endswith('__main__')]"
    )
    run(str(python), "-c", everywhere)


def test_the_documents_hold_no_placeholder():
    """What a reader is told to type must work as it stands; capitals such as RUN are the commands' own words."""
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*/README.md")]:
        for line in path.read_text().splitlines():
            if line.startswith("    "):
                assert not re.search(r"<[a-z][a-z ]+>", line), f"{path.name}: {line}"


def test_the_documents_figures_are_those_of_the_benchmarks() -> None:
    command = [sys.executable, "benchmarks/readme.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
