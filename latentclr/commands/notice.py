"""What every command says of a generator that was never trained."""

from __future__ import annotations

RANDOM_NOTICE = "the generator has random weights: whatever it draws or learns is noise, for latency work only"
