"""What a Triton that we start does not do for whoever can reach its ports.

Triton trusts its clients. In its explicit mode any of them may load a model with a configuration and files that the
request itself brings, which runs the client's code; the logging and trace interfaces turn on what fills a disk; and
whoever registers shared memory may read and write other programs' regions. A web page can send such requests to
127.0.0.1, too. So no server of ours runs in explicit mode (a choice of models is a folder that holds only these), and
the other interfaces want a key that is drawn anew at each start. Nothing but `--print-command` prints it, but it stands
in the arguments of the process, where `ps` shows it to whoever has an account on the machine.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from pathlib import Path

KEY_NAME = "latentclr-admin"
"""Name of the HTTP header that carries the key; gRPC's is `triton-grpc-protocol-latentclr-admin`."""

GRPC_ONLY = ("--allow-http=false", "--allow-metrics=false")
"""Triton's options that open gRPC's port alone."""

RESTRICTED = ("logging", "trace")
SHARED_MEMORY = "shared-memory"


def control_arguments(poll_s: int | None) -> list[str]:
    """Return Triton's options for when it loads models.

    Args:
        poll_s: Seconds between looks for new versions; None loads once. In both modes Triton refuses to load or unload
            a model on request.
    """
    if poll_s is None:
        return ["--model-control-mode=none"]
    return ["--model-control-mode=poll", f"--repository-poll-secs={poll_s}"]


def restriction_arguments(key: str, shared_memory: bool = False) -> list[str]:
    """Return Triton's options that close the interfaces which editing pictures does not need.

    Args:
        key: A secret that opens them.
        shared_memory: Leave the registration of shared memory open.
    """
    closed = ",".join((*RESTRICTED, *(() if shared_memory else (SHARED_MEMORY,))))
    return [f"--{option}={closed}:{KEY_NAME}={key}" for option in ("http-restricted-api", "grpc-restricted-protocol")]


def choose_models(repository: Path, models: Sequence[str], folder: Path) -> Path:
    """Return a folder that holds the chosen models only.

    Args:
        repository: Folder with one folder per model.
        models: The models; all if empty.
        folder: Where to make a folder of links, if it takes one; each choice has its own there.
    """
    whole = repository.resolve()
    if not models:
        return whole
    chosen = folder / hashlib.sha256("\0".join([str(whole), *sorted(models)]).encode()).hexdigest()[:16]
    chosen.mkdir(parents=True, exist_ok=True)
    for name in models:
        with contextlib.suppress(FileExistsError):  # of the same choice, made before
            (chosen / name).symlink_to(whole / name)
    return chosen
