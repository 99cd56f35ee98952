"""Write the tables of README.md and docs/client.md from benchmarks/results/: no figure is typed by hand.

python benchmarks/readme.py          # rewrites what stands between <!-- benchmarks --> and <!-- /benchmarks -->
python benchmarks/readme.py --check  # exit code 1 if a document says something else
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from latentclr.files import replacing

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- benchmarks -->\n", "<!-- /benchmarks -->\n"
LOADS = (None, 1, 16, 32)  # clients of which the table tells; None are the arrivals
Record = dict[str, Any]
Section = tuple[str, str]  # title, Markdown


def block(results: Path = RESULTS) -> str:
    """Return the Markdown for every result there is: what was promised, then the tables, folded away."""
    kinds = (("discovery", _discovery), ("training_step", _training), ("edit_latency", _latency),
             ("serving_load", _load), ("soak", _soak), ("bf16_rounding", _rounding))  # fmt: skip
    records = [(kind, _read(path)) for name, kind in kinds for path in sorted(results.glob(f"{name}*.json"))]
    tables = "\n".join(f"<details><summary>{title}</summary>\n\n{text}</details>\n" for title, text in
                       (kind(record) for kind, record in records))  # fmt: skip
    return f"{_promises([record for _, record in records])}\n{tables}"


def _promises(records: Sequence[Record]) -> str:
    lines = ["| promised | limit | measured | |", "|---|---|---|---|"]
    for record in records:
        settings = record["settings"]
        what = " ".join(str(settings[key]) for key in ("generator", "resolution") if key in settings)
        for entry in record["targets"]:
            limit = f"<= {entry['at_most']}" if "at_most" in entry else f">= {entry['at_least']}"
            name = f"{what or record['benchmark'].replace('_', ' ')}: {entry['name']}"
            lines.append(f"| {name} | {limit} | {entry['value']:g} | {'met' if entry['met'] else '**missed**'} |")
    return "\n".join(lines) + "\n"


def transport_block(results: Path = RESULTS) -> str:
    """Return the Markdown for docs/client.md: what each way of the bytes costs."""
    return "\n".join(_transport(_read(path)) for path in sorted(results.glob("client_transport*.json")))


def _read(path: Path) -> Record:
    record: Record = json.loads(path.read_text())
    return record


def _source(record: Record) -> str:
    machine, versions = record["machine"], record["versions"]
    where = machine["gpu"] or f"{machine['cpu']}, {machine['cores_usable']} cores"
    note = f"; {record['note']}" if record.get("note") else ""
    tools = f"torch {versions['torch']}, ONNX Runtime {versions['onnxruntime']}"
    return f"*{where}; {tools}; {record['date'][:10]}{note}:* `{record['command']}`\n"


def _discovery(record: Record) -> Section:
    runs = record["results"]
    fit, whole = (sorted(run[key] for run in runs)[len(runs) // 2] for key in ("fit_s", "whole_s"))
    return "Discovery", (
        f"{record['settings']['iterations']} steps that find the directions above take {fit:.1f} s, the whole command"
        f" {whole:.1f} s (medians of {len(runs)}).\n\n{_source(record)}"
    )


def _training(record: Record) -> Section:
    generator = record["settings"].get("generator", "dcgan")
    lines = [
        "Against the origin's way of doing it: unfrozen generator, a Python loop over the K networks and generator"
        " passes. Medians; same losses.\n",
        "| features, K, B | way | ms | times faster | peak MiB |\n|---|---|---|---|---|",
    ]
    for row in record["results"]:
        time = f"{row['p50_ms']:.1f}" if "p50_ms" in row else "-"
        time += f" | {row['speed_up']:.1f}" if "speed_up" in row else " | -"
        memory = f"{row['peak_mib']:.0f}" if row.get("peak_mib") is not None else "-"
        lines.append(f"| {row['layer']}, {row['k']}, {row['batch_size']} | {row['way']} | {time} | {memory} |")
    title = f"One training step, {generator}{_random(record)}"
    return title, "\n".join(lines) + f"\n\n{_source(record)}"


def _latency(record: Record) -> Section:
    settings = record["settings"]
    lines = [
        "All engines take turns in one run.\n",
        "| batch | engine | p50 ms | p90 | p99 | images/s | worst pixel difference |\n|---|---|---|---|---|---|---|",
    ]
    for row in record["results"]:
        lines.append(
            f"| {row['batch']} | {row['engine']} | {row['p50_ms']:.2f} | {row['p90_ms']:.2f} | {row['p99_ms']:.2f}"
            f" | {row['images_per_s']:.0f} | {row['worst_step']}/255 |"
        )
    title = f"One edit, {settings['generator']} at {settings['resolution']} pixels{_random(record)}"
    return title, "\n".join(lines) + f"\n\n{_source(record)}"


def _load(record: Record) -> Section:
    offline = max(record["settings"]["offline"], key=lambda row: row["images_per_s"])
    lines = [
        "The served face DCGAN; rows are edits in a request, the clients run on the same cores. With no server and no"
        f" clients the same cores draw at most {offline['images_per_s']:.0f} faces a second, in batches of"
        f" {offline['batch']}. All loads: benchmarks/results/serving_load.csv.\n",
        "| instances x threads | load | rows | faces/s | p50 ms | p90 | p99 | batch | queue | compute | errors |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in record["results"]:
        if row["clients"] not in LOADS:
            continue
        instances, threads = row["shape"].split("x")
        load = f"{row['clients']} clients" if row["clients"] else f"{row['rate']:.0f}/s, Poisson"
        lines.append(
            f"| {instances} x {threads if threads != '0' else 'all'} | {load} | {row['request_rows']}"
            f" | {row['images_per_s']:.0f} | {row['p50_ms']:.1f} | {row['p90_ms']:.1f} | {row['p99_ms']:.1f}"
            f" | {row['mean_batch']:.1f} | {row['queue_ms']:.1f} | {row['compute_ms']:.1f} | {row['errors']} |"
        )
    return "Under load", "\n".join(lines) + f"\n\n{_source(record)}"


def _soak(record: Record) -> Section:
    settings, figures, last = record["settings"], record["settings"]["figures"], record["results"][-1]
    growth = [entry for entry in record["targets"] if "growth" in entry["name"]]
    words = ", ".join(f"{entry['name'].split(':')[0]} {100 * entry['value']:+.1f} %" for entry in growth)
    return "Soak", (
        f"{settings['requests']} requests of one to {settings['rows'][-1]} edits from {settings['clients']}"
        f" clients: {figures['errors']} errors, p50 {figures['p50_ms']:.1f} ms, p99 {figures['p99_ms']:.1f} ms, slowest"
        f" {figures['max_ms']:.0f} ms; {words} after warm-up, to {last['model_mib']:.0f} and"
        f" {last['server_mib']:.0f} MiB.\n\n![Memory and latency, request after request](docs/soak.png)\n\n"
        f"{_source(record)}"
    )


def _rounding(record: Record) -> Section:
    lines = [
        "What is lost where nothing but the convolutions' inputs and weights is rounded: no engine of that format can"
        " be expected to do better. Contrast is the standard deviation of the pixels.\n",
        "| generator | format | contrast | worst pixel difference | mean |\n|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['generator']} | {row['format']} | {row['contrast']:.0f} | {row['worst_step']}/255"
        f" | {row['mean_step']:.2f} |"
        for row in record["results"]
    ]
    return "The price of small formats", "\n".join(lines) + f"\n\n{_source(record)}"


def _transport(record: Record) -> str:
    ways = list(dict.fromkeys(row["way"] for row in record["results"]))
    lines = [f"| pixels | pictures | {' | '.join(ways)} |", "|---|---|" + "---|" * len(ways)]
    for pixels, batch in dict.fromkeys((row["pixels"], row["batch"]) for row in record["results"]):
        times = {
            row["way"]: row["p50_ms"] for row in record["results"] if (row["pixels"], row["batch"]) == (pixels, batch)
        }
        lines.append(f"| {pixels} | {batch} | {' | '.join(f'{times[way]:.1f}' for way in ways)} |")
    return "\n".join(lines) + f"\n\n{_source(record)}"


def _random(record: Record) -> str:
    return ", seeded random weights" if record["random_weights"] else ""


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit code 1 if a document differs.")
def main(check: bool) -> None:
    """Bring the documents' figures in line with benchmarks/results/."""
    for path, text in {ROOT / "README.md": block(), ROOT / "docs" / "client.md": transport_block()}.items():
        before = path.read_text()
        head, _, rest = before.partition(BEGIN)
        _, _, tail = rest.partition(END)
        wanted = head + BEGIN + text + END + tail
        if check and wanted != before:
            click.echo(f"{path.name} differs from benchmarks/results: run python benchmarks/readme.py", err=True)
            sys.exit(1)
        with replacing(path) as temporary:
            temporary.write_text(wanted)


if __name__ == "__main__":
    main()
