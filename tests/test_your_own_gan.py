"""docs/your-own-gan.md as it stands: the file, every command in its order, and the served slider."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result
from PIL import Image

from serving import EditClient, TritonServer
from serving.triton.ports import Ports

TEXT = (Path(__file__).parents[1] / "docs" / "your-own-gan.md").read_text()


def commands(heading: str) -> list[list[str]]:
    """Return the words of the commands under a heading."""
    section = TEXT.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    lines = re.findall(r"^    latentclr (.+)$", re.sub(r"\\\n\s*", "", section), re.M)
    return [shlex.split(line) for line in lines]


@pytest.mark.slow
def test_the_page_from_a_file_to_a_slider(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, invoke: Callable[..., Result]
) -> None:
    pytest.importorskip("pytriton", reason="install latentclr[triton]")
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.S)
    assert 25 <= sum(bool(line.strip()) for line in code.splitlines()) <= 35  # thirty lines, as its heading says
    Path("mygan.py").write_text(code)
    subprocess.run([sys.executable, "mygan.py"], check=True, timeout=60)
    first, then = commands("A generator in thirty lines"), commands("From the file to a slider")
    assert [words[0] for words in first + then] == [
        "check", "train", "score", "name", "gen", "export", "serve", "edit",
    ]  # fmt: skip
    for words in first + then[:-2]:
        result = invoke(*words)
        assert result.exit_code == 0, f"{words}: {result.output} {result.exception}"
    with TritonServer("model_repository", ports=Ports(0, 0, 0)) as server:
        assert invoke(*then[-1], "--url", server.grpc_url).exit_code == 0
        with EditClient(server.grpc_url) as client:
            assert client.manifest.generator.size == (24, 32)
            unedited, edited = client.edit(seed=7).images, client.edit(seed=7, edits={"mine": 3.0}).images
            assert edited.shape == (1, 24, 32, 3) and (np.abs(edited.astype(int) - unedited.astype(int)) > 1).any()
    with Image.open("mine.png") as strip:
        assert strip.width > 5 * 32


EXAMPLES = {
    "painted_eyes.py:eyes": ("omniart_eye_generator", (128, 128), 8),
    "grey_cats.py:cats": ("generateme", (64, 64), None),
}


@pytest.mark.slow
@pytest.mark.parametrize("word", EXAMPLES)
def test_an_example_draws_its_package_s_pictures(word: str) -> None:
    import importlib.util

    import torch

    from latentclr.compose import compose_train

    package, size, classes = EXAMPLES[word]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    config = compose_train([f"generator={Path(__file__).parents[1] / 'examples' / word}"]).generator
    generator = config.build()
    assert (generator.size, generator.class_names and len(generator.class_names)) == (size, classes)
    ps = generator.sample_seeds(0, 2)[:, None]
    class_id = None if classes is None else torch.tensor([1, 5])  # blue, green
    with torch.no_grad():
        image = generator.synthesize(ps, class_id)
    assert image.std() > 0.3 and generator.inputs_reaching(config.feature_layer) == 1
    if classes is None:
        assert torch.equal(image[:, 0], image[:, 1])
    else:
        blue, green = (image[i].mean(dim=(1, 2)) for i in (0, 1))
        assert blue[2] - blue[1] > green[2] - green[1]  # more blue than green, next to the other
