"""A look at a model repository before Triton sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from serving.contract.layout import CONFIG_FILE, LayoutError, models_in, read_config, steps_of, versions_of
from serving.errors import ServerStartError


def check_repository(repository: Path, models: Sequence[str] = ()) -> None:
    """Find what Triton would report late and obscurely.

    Args:
        repository: Folder with one folder per model.
        models: The models that will be loaded; all if empty.

    Raises:
        ServerStartError: There is no such folder, it has no models or not the wanted ones, one has no version, or an
            ensemble comes without a model that it passes requests on to.
    """
    if not repository.is_dir():
        raise ServerStartError(f"there is no model repository {repository}; `latentclr export` writes one")
    present = [model.name for model in models_in(repository)]
    if not present:
        raise ServerStartError(f"the model repository {repository} has no models; `latentclr export` writes one")
    for name in models:
        if name not in present:
            raise ServerStartError(
                f"the model repository {repository} has no model {name!r}; it has {', '.join(present)}"
            )
    # A model without weights: Triton would say "at least one version must be available", which explains nothing.
    for name in models or present:
        if not versions_of(repository / name):
            raise ServerStartError(
                f"model {name!r} has no version folder (such as {repository / name / '1'}): export it"
            )
        for step in _steps(repository / name):
            if step not in (models or present):
                there = f"add --model {step}" if step in present else "export again"
                raise ServerStartError(f"model {name!r} passes requests on to {step!r}, which is not served: {there}")


def _steps(model: Path) -> list[str]:
    try:
        return steps_of(read_config(model / CONFIG_FILE))
    except LayoutError:
        return []  # left to Triton to refuse
