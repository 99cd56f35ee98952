"""Hostile files in every format end in one line and exit code 2, within bounds, and nothing in them is executed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("run_hostile.py")
FORMATS = {
    ".pt", ".safetensors", ".pkl", "BigGAN folder", "checkpoint", "origin's .pt", "config.yaml", "resume.pt",
    "catalog.yaml", ".npy", ".npz", "gen.json", "PNG", "config.pbtxt", "manifest", ".journal.json", "repository",
    "photo", "encoder",
}  # fmt: skip
COMMANDS = {
    "train",
    "gen",
    "eval",
    "export",
    "import",
    "invert",
    "names",
    "name",
    "weights",
    "edit",
    "doctor",
    "rollback",
    "serve",
}


@pytest.mark.slow
def test_no_hostile_file_does_any_harm():
    command = [sys.executable, str(SCRIPT), "--seed", "0", "--count", "520"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    told, *outcomes = map(json.loads, done.stdout.splitlines())
    assert len(outcomes) == told["tries"] >= 500
    faults = [
        f"{o['format']}: {o['name']}: {o['command']}: {o['faults']}: {o['said']}" for o in outcomes if o["faults"]
    ]
    assert not faults, "\n".join(faults)
    assert {outcome["format"] for outcome in outcomes} == FORMATS
    assert {outcome["command"].split()[0] for outcome in outcomes} == COMMANDS
    codes = Counter(outcome["code"] for outcome in outcomes)
    assert codes[2] > 0.7 * len(outcomes)  # most are refused, not found harmless
