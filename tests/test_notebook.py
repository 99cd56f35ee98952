"""The demo notebook: outputs are stripped, and it runs from top to bottom, in Jupyter's kernel and without Jupyter."""

from __future__ import annotations

import ast
import importlib.util
import json
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest
from PIL import Image

from latentclr.catalog import read_catalog

NOTEBOOK = Path(__file__).resolve().parent.parent / "examples" / "edit_faces.ipynb"
JUPYTER = all(importlib.util.find_spec(name) for name in ("nbformat", "nbclient", "ipykernel"))


def cells(kind):
    content = json.loads(NOTEBOOK.read_text())
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == kind]


def test_outputs_are_stripped():
    content = json.loads(NOTEBOOK.read_text())
    assert (content["nbformat"], len(cells("code")) > 5) == (4, True)
    for cell in content["cells"]:
        assert cell["metadata"] == {}
        assert cell.get("outputs", []) == []
        assert cell.get("execution_count") is None
    assert set(content["metadata"]) == {"kernelspec", "language_info"}
    assert "/home" not in NOTEBOOK.read_text()


def execute(monkeypatch, shown, widgets):
    """Run all code cells in order, as a kernel would: the last expression of a cell is shown."""
    display = types.SimpleNamespace(display=shown.append)
    ipython = types.SimpleNamespace(display=display, version_info=(9, 0), get_ipython=lambda: None)  # matplotlib asks
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setitem(sys.modules, "ipywidgets", widgets)  # None: as if it were not installed
    names = {"__name__": "__main__"}
    for source in cells("code"):
        tree = ast.parse(source)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "cell", "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)  # noqa: S307  # our own notebook
            shown += [value] if value is not None else []
    return names


class Widgets(types.SimpleNamespace):
    """As much of ipywidgets as the notebook uses; moves every slider to its end once."""

    def __init__(self):
        box = types.SimpleNamespace
        super().__init__(HBox=lambda children: box(children=children), VBox=lambda children: box(children=children),
                         FloatSlider=lambda value, **o: box(value=value, **o),
                         BoundedIntText=lambda value, **o: box(value=value, **o))  # fmt: skip

    def interactive_output(self, draw, controls):
        draw(**{name: getattr(control, "value", 0) for name, control in controls.items()})
        draw(**{name: control.max if name != "seed" else 3 for name, control in controls.items()})
        return types.SimpleNamespace()


@pytest.mark.parametrize("widgets", [None, Widgets()], ids=["grids", "sliders"])
def test_it_runs_on_a_run_that_it_trains(monkeypatch, tmp_path, widgets):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LATENTCLR_RUN", raising=False)
    monkeypatch.setenv("LATENTCLR_ITERATIONS", "3")
    shown = []
    execute(monkeypatch, shown, widgets)
    pictures = [item for item in shown if isinstance(item, Image.Image)]
    assert len(pictures) == (3 if widgets is None else 4)
    assert all(picture.width > 200 and picture.height > 100 for picture in pictures)
    assert list(read_catalog(tmp_path / "outputs" / "edit_faces_3")) == [
        "smile", "moustache", "hat", "turned head", "light from the side"]  # fmt: skip


@pytest.mark.parametrize("catalog", ["", "open mouth: {direction: 3, alpha: [-2, 4]}\ngone: {direction: 9}\n"])
def test_it_runs_on_a_run_of_ones_own(monkeypatch, run, catalog, capsys):
    if catalog:
        (run / "catalog.yaml").write_text(catalog)
    before = sorted(path.name for path in run.iterdir())
    monkeypatch.setenv("LATENTCLR_RUN", str(run))
    shown = []
    names = execute(monkeypatch, shown, None)
    assert list(names["edits"]) == (["open mouth"] if catalog else [f"direction {i}" for i in range(4)])
    assert len([item for item in shown if isinstance(item, Image.Image)]) == 3
    assert ("gone: direction must be in" in capsys.readouterr().out) == bool(catalog)
    assert sorted(path.name for path in run.iterdir()) == before  # somebody's run gets no names of ours


@pytest.mark.slow
@pytest.mark.skipif(not JUPYTER, reason="nbformat, nbclient and ipykernel are not installed")
def test_it_runs_in_jupyters_kernel(monkeypatch, tmp_path):
    monkeypatch.setenv("LATENTCLR_ITERATIONS", "3")
    monkeypatch.delenv("LATENTCLR_RUN", raising=False)
    shutil.copy(NOTEBOOK, tmp_path / "edit.ipynb")
    code = (
        "import nbformat, nbclient; nb = nbformat.read('edit.ipynb', 4); nbformat.validate(nb);"
        "nbclient.NotebookClient(nb, timeout=300, kernel_name='python3').execute(); nbformat.write(nb, 'done.ipynb')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    outputs = [
        o for cell in json.loads((tmp_path / "done.ipynb").read_text())["cells"] for o in cell.get("outputs", [])
    ]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
