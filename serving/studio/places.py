"""From the words of `latentclr studio` to the place where names are kept."""

from __future__ import annotations

from pathlib import Path

from serving.contract.catalog import CATALOG_FILE, CatalogFile
from serving.contract.published import PublishedModel, checkpoint_hashes, holds_checkpoint
from serving.errors import InvalidEdit
from serving.studio.names import Names


def names_for(run: Path | None, catalog: Path | None, repository: Path | None, model: str) -> Names:
    """Choose where names are kept.

    Args:
        run: The run's folder, or a checkpoint in it.
        catalog: Another file of names.
        repository: The served model's repository; None for a server elsewhere.
        model: The served model.

    Raises:
        InvalidEdit: Both a run and a file are given, one of them is not there, or the model is another run's.
        CatalogError: The file is no catalog, or the model does not describe itself.
    """
    published = None if repository is None else PublishedModel(repository, model)
    if run is not None and catalog is not None:
        raise InvalidEdit("give a run or --catalog, not both: a run has its own catalog")
    if run is not None:
        return _of_run(run, published, model)
    if catalog is not None:
        if not catalog.resolve().parent.is_dir():
            raise InvalidEdit(f"there is no folder {catalog.parent} for the catalog")
        file = CatalogFile(catalog, catalog.name)  # a browser need not know where it lies
        file.read()  # a damaged file is told now, not at the first click
        if published is not None and holds_checkpoint(catalog.resolve().parent, published.manifest()):
            return _of_run(catalog.resolve().parent, published, model, file)
        return Names(file, None, f"Names are kept in {catalog.name} alone: other clients of {model} do not know them.")
    if published is not None:
        published.manifest()
        note = f"Names are kept with the served model {model}. Start `latentclr studio RUN` to keep them with its run."
        return Names(None, published, note)
    return Names(
        note=f"Names cannot be given here: this server's {model} lies elsewhere. Start the studio with its run, "
        "with --repository or with --catalog."
    )


def _of_run(
    run: Path,
    published: PublishedModel | None,
    model: str,
    file: CatalogFile | None = None,
) -> Names:
    folder = run if run.is_dir() else run.parent
    checkpoints = checkpoint_hashes(folder)
    if not run.exists() or not checkpoints:
        raise InvalidEdit(f"{run} is no run folder: it has no checkpoint")
    file = file or CatalogFile(folder / CATALOG_FILE, CATALOG_FILE)
    file.read()
    if published is None:
        note = (
            f"Names are kept with the run {folder.name}. Other clients of {model} learn them with "
            "`latentclr names RUN --publish`."
        )
        return Names(file, None, note, checkpoints)
    if not holds_checkpoint(folder, published.manifest()):
        raise InvalidEdit(f"{model} was not exported from a checkpoint in {folder}, so its directions are others")
    note = f"Names are kept with the run {folder.name} and the served model {model}."
    return Names(file, published, note, checkpoints)
