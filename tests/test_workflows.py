"""The workflows of the project's public home: valid by GitHub's schema, and doing what the project does here."""

from __future__ import annotations

import importlib.resources
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def schema(name: str) -> Any:
    file = importlib.resources.files("check_jsonschema") / "builtin_schemas" / name
    return json.loads(file.read_text())


def read(name: str) -> dict[Any, Any]:
    workflow: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())
    workflow["on"] = workflow.pop(True)  # YAML 1.1 reads the key as a truth value
    return workflow


def steps(name: str) -> list[str]:
    return [line for job in read(name)["jobs"].values() for step in job["steps"] if "run" in step
            for line in step["run"].splitlines()]  # fmt: skip


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_one_by_its_schema(path: Path) -> None:
    import jsonschema

    workflow = read(path.name)
    jsonschema.validate(workflow, schema("vendor/github-workflows.json"))
    jsonschema.validate(workflow, schema("custom/github-workflows-require-timeout.json"))
    job = next(iter(workflow["jobs"].values()))
    job["step"] = job.pop("steps")  # a typing error
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(workflow, schema("vendor/github-workflows.json"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_names_exact_versions_and_may_only_read(path: Path) -> None:
    used = re.findall(r"uses: (\S+)", path.read_text())
    assert used
    assert all(re.fullmatch(r"actions/[\w-]+@v\d+\.\d+\.\d+", action) for action in used)
    assert read(path.name)["permissions"] == {"contents": "read"}
    assert "latest" not in path.read_text()


def test_ci_runs_ours_on_every_python_that_is_allowed() -> None:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    (job,) = read("ci.yml")["jobs"].values()
    assert steps("ci.yml") == [".ci/run"]
    allowed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    low, high = map(int, re.fullmatch(r">=3\.(\d+),<3\.(\d+)", allowed).groups())  # type: ignore[union-attr]
    assert job["strategy"]["matrix"]["python"] == [f"3.{minor}" for minor in range(low, high)]


def test_the_site_is_built_as_here() -> None:
    tomllib = pytest.importorskip("tomllib")
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["docs"]
    install, build = steps("docs.yml")
    assert install.replace("'", "").split()[4:] == [re.split(r"[<>=]", line)[0] for line in wanted]
    assert build in (ROOT / "Makefile").read_text().replace("$(BIN)/", "")


def test_a_release_is_checked_as_here() -> None:
    made = (ROOT / "Makefile").read_text().replace("$(BIN)/", "")
    assert steps("release.yml")[1:3] == ["python -m build", "twine check --strict dist/*"]
    assert all(f"\t{line}\n" in made for line in steps("release.yml")[1:3])
    assert read("release.yml")["on"] == {"push": {"tags": ["v*"]}}
