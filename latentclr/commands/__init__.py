"""What the commands of discovery do: `train`, `eval`, `gen`, `score`, `name`, `names`, `import`, `weights`.

The functions behind the first four, and behind sweeps, are names of this package, loaded when first used: the others
need no torch to say their help.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentclr.commands.evaluate import run_eval
    from latentclr.commands.gen import run_gen
    from latentclr.commands.score import run_score
    from latentclr.commands.sweep import run_sweep
    from latentclr.commands.train import run_train

__all__ = ["run_eval", "run_gen", "run_score", "run_sweep", "run_train"]

_HOME = {"run_eval": "evaluate", "run_gen": "gen", "run_score": "score", "run_sweep": "sweep", "run_train": "train"}


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
