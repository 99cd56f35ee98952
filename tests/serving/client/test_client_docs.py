"""The commands of docs/client.md, run as they stand there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_editor import SIZE, D, L, assert_close, expected

from serving import TritonServer

TEXT = (Path(__file__).parents[3] / "docs" / "client.md").read_text()


def block(language: str) -> str:
    """Return the only code block of a language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    return str(found)


def put(text: str, old: str, new: str) -> str:
    assert text.count(old) == 1, old
    return text.replace(old, new)


def judge(folder: Path, z: list[float]) -> None:
    with Image.open(folder / "face.ppm") as picture:
        got = np.asarray(picture)
    wanted = expected(np.array([z]), np.array([[2]]), np.full((1, 1, L), 4.0))
    assert_close(got[None], wanted)


@pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")
def test_curl(server: TritonServer, tmp_path: Path) -> None:
    code = put(block("bash"), "URL=http://127.0.0.1:8000", f"URL={server.http_url}")
    code = put(code, "D=100 L=1 SIZE=64", f"D={D} L={L} SIZE={SIZE}")
    subprocess.run(["bash", "-euc", code], cwd=tmp_path, check=True, timeout=20)
    request = json.loads((tmp_path / "request.json").read_text())
    judge(tmp_path, request["inputs"][0]["data"])


def has_node() -> bool:
    node = shutil.which("node")
    if node is None:
        return False
    version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
    return int(version.lstrip("v").split(".")[0]) >= 18


@pytest.mark.skipif(not has_node(), reason="node 18 or newer is not installed")
def test_javascript(server: TritonServer, tmp_path: Path) -> None:
    z = [0.5, -1.0, 0.25, 2.0]
    code = put(block("js"), '"http://127.0.0.1:8000"', json.dumps(server.http_url))
    (tmp_path / "any.mjs").write_text(code)
    (tmp_path / "known.mjs").write_text(put(code, "Array.from({ length: latent.dim }, normal)", json.dumps(z)))
    (tmp_path / "bad.mjs").write_text(put(code, "data: [2]", "data: [99]"))
    for name in ("any", "known"):
        subprocess.run(["node", f"{name}.mjs"], cwd=tmp_path, check=True, timeout=20)
    judge(tmp_path, z)
    done = subprocess.run(["node", "bad.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=20)
    assert done.returncode == 1
    assert "out of range" in done.stderr


def test_python_blocks_are_python() -> None:
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    assert len(blocks) == TEXT.count("```python")
    assert sum("from serving import" in block for block in blocks) >= 3
    for code in blocks:
        compile(code, "client.md", "exec", flags=__import__("ast").PyCF_ALLOW_TOP_LEVEL_AWAIT)
