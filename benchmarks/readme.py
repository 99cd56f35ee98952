"""Write the tables of README.md from benchmarks/results/, so that no figure is typed by hand.

python benchmarks/readme.py          # rewrites what stands between <!-- benchmarks --> and <!-- /benchmarks -->
python benchmarks/readme.py --check  # exit code 1 if README.md says something else
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from latentclr.files import replacing

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- benchmarks -->\n", "<!-- /benchmarks -->\n"
Record = dict[str, Any]


def block(results: Path = RESULTS) -> str:
    """Return the Markdown for every result there is."""
    parts = []
    discovery = sorted(results.glob("discovery*.json"))
    parts += [_discovery(_read(path)) for path in discovery]
    parts += [_training(_read(path)) for path in sorted(results.glob("training_step*.json"))]
    parts += [_latency(_read(path)) for path in sorted(results.glob("edit_latency*.json"))]
    return "\n".join(parts)


def _read(path: Path) -> Record:
    record: Record = json.loads(path.read_text())
    return record


def _source(record: Record) -> str:
    machine, versions = record["machine"], record["versions"]
    where = machine["gpu"] or f"{machine['cpu']}, {machine['cores_usable']} cores"
    note = f"; {record['note']}" if record.get("note") else ""
    tools = f"torch {versions['torch']}, ONNX Runtime {versions['onnxruntime']}"
    return f"*{where}; {tools}; {record['date'][:10]}{note}:* `{record['command']}`\n"


def _discovery(record: Record) -> str:
    runs = record["results"]
    fit, whole = (sorted(run[key] for run in runs)[len(runs) // 2] for key in ("fit_s", "whole_s"))
    return (
        f"**Discovery.** {record['settings']['iterations']} steps that find the directions above take {fit:.1f} s,"
        f" the whole command {whole:.1f} s (medians of {len(runs)}).\n{_source(record)}"
    )


def _training(record: Record) -> str:
    generator = record["settings"].get("generator", "dcgan")
    lines = [
        f"**One training step, {generator}**{_random(record)}, against the origin's way of doing it: unfrozen"
        " generator, a Python loop over the K networks and generator passes. Medians; same losses.\n",
        "| features, K | way | ms | times faster | peak MiB |\n|---|---|---|---|---|",
    ]
    for row in record["results"]:
        time = f"{row['p50_ms']:.1f} | {row['speed_up']:.1f}" if "p50_ms" in row else "- | -"
        memory = f"{row['peak_mib']:.0f}" if row.get("peak_mib") is not None else "-"
        lines.append(f"| {row['layer']}, {row['k']} | {row['way']} | {time} | {memory} |")
    return "\n".join(lines) + f"\n\n{_source(record)}"


def _latency(record: Record) -> str:
    settings = record["settings"]
    lines = [
        f"**One edit, {settings['generator']} at {settings['resolution']} pixels**{_random(record)}."
        " All engines take turns in one run.\n",
        "| batch | engine | p50 ms | p90 | p99 | images/s | worst pixel difference |\n|---|---|---|---|---|---|---|",
    ]
    for row in record["results"]:
        lines.append(
            f"| {row['batch']} | {row['engine']} | {row['p50_ms']:.2f} | {row['p90_ms']:.2f} | {row['p99_ms']:.2f}"
            f" | {row['images_per_s']:.0f} | {row['worst_step']}/255 |"
        )
    return "\n".join(lines) + f"\n\n{_source(record)}"


def _random(record: Record) -> str:
    return ", seeded random weights" if record["random_weights"] else ""


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit code 1 if README.md differs.")
def main(check: bool) -> None:
    """Bring README.md's figures in line with benchmarks/results/."""
    readme = ROOT / "README.md"
    text = readme.read_text()
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    wanted = head + BEGIN + block() + END + tail
    if check:
        sys.exit(0 if wanted == text else 1)
    with replacing(readme) as temporary:
        temporary.write_text(wanted)


if __name__ == "__main__":
    main()
