"""Write the documents' figures from benchmarks/results/: no figure is typed by hand.

README.md gets a line for each, docs/benchmarks.md every table, docs/client.md what each way of the bytes costs.

python benchmarks/readme.py          # rewrites what stands between <!-- benchmarks --> and <!-- /benchmarks -->
python benchmarks/readme.py --check  # exit code 1 if a document says something else
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from latentclr.files import replacing
from serving.contract.certificate import Certificate

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- benchmarks -->\n", "<!-- /benchmarks -->\n"
NAMES = {"dcgan": "faces", "biggan": "BigGAN", "stylegan2": "StyleGAN2", "stylegan3": "StyleGAN3"}  # in README
# One worst pixel tells little of what is seen: docs/precision.md has the gate that took its place. Old records have it.
WITHDRAWN = {"openvino bf16: worst difference of a pixel, steps"}
LOADS = (None, 1, 16, 32)  # clients of which the table tells; None are the arrivals
Record = dict[str, Any]
Section = tuple[str, str]  # title, Markdown


def summary(results: Path = RESULTS) -> str:
    """Return README's lines: how long things take, and which promises were missed."""
    records = [_read(path) for path in sorted(results.glob("*.json"))]
    told = [record for record in records if _in_readme(record)]
    kinds = {kind: [r for r in told if r["benchmark"] == kind] for kind in {r["benchmark"] for r in told}}
    parts = (("directions", _directions_line), ("discovery", _discovery_line), ("training_step", _training_line),
             ("edit_latency", _edit_line), ("photos", _photos_line), ("serving_load soak", _load_line),
             ("web", _web_line))  # fmt: skip
    lines = [
        line(*(kinds[kind] for kind in words.split())) for words, line in parts if kinds.keys() >= {*words.split()}
    ]
    text = "".join(f"- {line}\n" for line in [*lines, _missed_line(records)])
    places: dict[str, list[str]] = {}  # where and when -> what was measured there
    for kind in " ".join(words for words, _ in parts).split():
        for where in dict.fromkeys(f"{_machine(record)}; {_date(record)}" for record in kinds.get(kind, ())):
            places.setdefault(where, []).append(kind.replace("_", " "))
    measured = ". ".join(f"{_and(what).capitalize()}: {where}" for where, what in places.items())
    return f"{text}\n*{measured}. BigGAN and StyleGAN2 with seeded random weights.*\n"


def _in_readme(record: Record) -> bool:
    """Whether README tells of it: of the faces' photos, and of edits where they were served."""
    if record["benchmark"] == "photos":
        return bool(record["settings"]["generator"] == "dcgan")
    return record["benchmark"] != "edit_latency" or record["settings"]["triton"] is not None


def _discovery_line(records: Sequence[Record]) -> str:
    steps, fit, whole = _discovery_figures(records[0])
    return (
        f"**Discovery.** {steps} steps find the directions above in {fit:.1f} s, the whole command takes {whole:.1f} s."
    )


def _directions_line(records: Sequence[Record]) -> str:
    rows = records[0]["results"]
    effect = next(key for key in rows[0] if key.startswith("mean largest effect") and key.endswith("sd"))
    each = ", ".join(f"{row['method']} {row[effect]:.2f}" for row in rows)
    return (
        "**Directions.** At equal change of the picture a direction's largest effect is, in standard deviations of the"
        f" attribute: {each} ([intervals](docs/benchmarks.md))."
    )


def _photos_line(records: Sequence[Record]) -> str:
    refined = next(row for row in records[0]["results"] if row["way"] == "refined")
    effects = next(entry for entry in records[0]["targets"] if "effects" in entry["name"])
    return (
        f"**Photos.** Of held-out faces the found code draws the picture to {refined['psnr_db']:.0f} dB, and sliders"
        f" keep {100 * effects['value']:.0f} % of their effect."
    )


def _training_line(records: Sequence[Record]) -> str:
    gains = []
    for record in records:
        lean = next(row for row in record["results"] if row["way"] == "lean" and "speed_up" in row)
        gains.append(f"{lean['speed_up']:.1f} ({_what(record)})")
    times = _and(gains)
    return (
        f"**A training step** is faster than the authors' own (catlab-team/latentclr) by a factor of {times}, with"
        " equal losses."
    )


def _edit_line(records: Sequence[Record]) -> str:
    times = []
    for record in sorted(records, key=lambda record: _edit_ms(record, "served, EditClient")):
        served, bare = (_edit_ms(record, engine) for engine in ("served, EditClient", "onnxruntime"))
        digits = 0 if served >= 100 else 1
        times.append(f"{served:.{digits}f} ms ({bare:.{digits}f}) for {_what(record)}")
    return f"**One edit**, from a client's call to the pixels (and the graph without a server): {'; '.join(times)}."


def _what(record: Record) -> str:
    settings = record["settings"]
    return f"{NAMES.get(settings['generator'], settings['generator'])}, {settings['resolution']} pixels"


def _edit_ms(record: Record, engine: str) -> float:
    return next(float(row["p50_ms"]) for row in record["results"] if (row["batch"], row["engine"]) == (1, engine))


def _load_line(loads: Sequence[Record], soaks: Sequence[Record]) -> str:
    load, soak = loads[0], soaks[0]
    best = max(load["results"], key=lambda row: float(row["images_per_s"]))
    offline = max(float(row["images_per_s"]) for row in load["settings"]["offline"])
    figures = soak["settings"]["figures"]
    growth = max(entry["value"] for entry in soak["targets"] if "growth" in entry["name"])
    return (
        f"**Under load** the served faces reach {best['images_per_s']:.0f} pictures a second ({best['clients']}"
        f" clients, {best['request_rows']} edits a request; {offline:.0f} without server and clients). Of"
        f" {soak['settings']['requests']:,} requests {figures['errors']} failed, 99 of 100 took at most"
        f" {figures['p99_ms']:.0f} ms, and the server's memory grew by {100 * growth:.1f} %."
    )


def _web_line(records: Sequence[Record]) -> str:
    faces = records[0]["results"][0]
    return (
        f"**In a browser** without GPU the faces' model, {faces['graph_mb']:.1f} MB, draws {faces['dragged_per_s']:.0f}"
        " pictures a second while a slider moves."
    )


def _missed_line(records: Sequence[Record]) -> str:
    promises = list(_each_promise(records))
    missed = [
        f"*{name}* is {entry['value']:g}, promised {limit.replace('<=', 'at most').replace('>=', 'at least')}"
        for name, limit, entry in promises
        if _outcome(entry) == "missed"
    ]
    withdrawn = sum(_outcome(entry) == "withdrawn" for _, _, entry in promises)
    said = f", {withdrawn} [withdrawn](docs/precision.md#the-certificate)" if withdrawn else ""
    return "; ".join([f"**Missed**: {len(missed)} of {len(promises)} promises{said}", *missed]) + "."


def _and(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def block(results: Path = RESULTS) -> str:
    """Return the Markdown of docs/benchmarks.md for every result there is: what was promised, then the tables."""
    kinds = (("directions", _directions), ("recipes", _recipes), ("recipe_sweep", _sweep),
             ("attributes_limit", _limit), ("scoring", _scoring), ("photos", _photos), ("encoder", _encoder),
             ("discovery", _discovery), ("training_step", _training), ("edit_latency", _latency),
             ("precision", _precision), ("served_precision", _served_precision), ("preview", _preview),
             ("serving_load", _load), ("soak", _soak), ("robustness", _robustness), ("bf16_rounding", _rounding),
             ("web", _web))  # fmt: skip
    records = [(kind, _read(path)) for name, kind in kinds for path in sorted(results.glob(f"{name}*.json"))]
    tables = "".join(f"\n## {title}\n\n{text}" for title, text in (kind(record) for kind, record in records))
    return f"{_promises([record for _, record in records])}{tables}"


def _promises(records: Sequence[Record]) -> str:
    lines = ["| promised | limit | measured | |", "|---|---|---|---|"]
    words = {"met": "met", "missed": "**missed**", "withdrawn": "[withdrawn](precision.md#the-certificate)"}
    for name, limit, entry in _each_promise(records):
        lines.append(f"| {name} | {limit} | {entry['value']:g} | {words[_outcome(entry)]} |")
    return "\n".join(lines) + "\n"


def _outcome(entry: Record) -> str:
    if entry["met"]:
        return "met"
    return "withdrawn" if entry["name"] in WITHDRAWN else "missed"


def _each_promise(records: Sequence[Record]) -> Iterator[tuple[str, str, Record]]:
    """Yield each promise's name, its limit in words, and what was measured."""
    for record in records:
        settings = record["settings"]
        what = " ".join(str(settings[key]) for key in ("generator", "resolution") if key in settings)
        for entry in record["targets"]:
            limit = f"<= {entry['at_most']}" if "at_most" in entry else f">= {entry['at_least']}"
            yield f"{what or record['benchmark'].replace('_', ' ')}: {entry['name']}", limit, entry


def transport_block(results: Path = RESULTS) -> str:
    """Return the Markdown for docs/client.md: what each way of the bytes costs."""
    return "\n".join(_transport(_read(path)) for path in sorted(results.glob("client_transport*.json")))


def _read(path: Path) -> Record:
    record: Record = json.loads(path.read_text())
    return record


def _source(record: Record) -> str:
    note = f"; {record['note']}" if record.get("note") else ""
    return f"*{_where(record)}{note}:* `{record['command']}`\n"


def _sourced(lines: Sequence[str], record: Record) -> str:
    return "\n".join(lines) + f"\n\n{_source(record)}"


def _where(record: Record) -> str:
    versions = record["versions"]
    used = f"torch {versions['torch']}, ONNX Runtime {versions['onnxruntime']}"
    return f"{_machine(record)}; {used}; {_date(record)}"


def _machine(record: Record) -> str:
    machine = record["machine"]
    cores = machine["cores_usable"]
    return machine["gpu"] or f"{machine['cpu']}, {cores} core{'s' if cores > 1 else ''}"


def _date(record: Record) -> str:
    return str(record["date"][:10])


def _discovery_figures(record: Record) -> tuple[int, float, float]:
    """Return the steps, and the medians of their seconds and of the whole command's."""
    runs = record["results"]
    fit, whole = (float(sorted(run[key] for run in runs)[len(runs) // 2]) for key in ("fit_s", "whole_s"))
    return record["settings"]["iterations"], fit, whole


def _discovery(record: Record) -> Section:
    steps, fit, whole = _discovery_figures(record)
    return "Discovery", (
        f"{steps} steps that find the directions of README's picture take {fit:.1f} s, the whole command {whole:.1f} s"
        f" (medians of {len(record['results'])}).\n\n{_source(record)}"
    )


def _directions(record: Record) -> Section:
    settings, rows = record["settings"], record["results"]
    over = "over runs, each on codes of its own, and attributes"
    if "first_seed" not in settings:  # measured before intervals were Student's
        over = "by a bootstrap over runs, directions, attributes and codes"
    measures = [key.removesuffix(", verdict") for key in rows[0] if key.endswith(", verdict")]
    lines = [
        f"Directions of the faces, K = {settings['k']}, each moved until the mean RMS change of the pixels is"
        f" {255 * settings['change']:.0f}/255, on {settings['codes']} codes that no training saw; effects on"
        f" {len(settings['attributes'])} attributes, in standard deviations, with 95 % intervals {over}."
        f" The words compare with {rows[0]['method']}.\n",
        f"| method | runs | {' | '.join(measures)} |\n|---|---|" + "---|" * len(measures),
    ]
    for row in rows:
        cells = []
        for measure in measures:
            low, high = row[f"{measure}, interval"]
            verdict = row[f"{measure}, verdict"]
            cells.append(f"{row[measure]:.2f} [{low:.2f}, {high:.2f}]" + (f" {verdict}" if verdict else ""))
        lines.append(f"| {row['method']} | {row['runs']} | {' | '.join(cells)} |")
    picture = f"![The comparison as bars]({record['benchmark']}.png)"
    return "Which method finds better directions", "\n".join(lines) + f"\n\n{picture}\n\n{_source(record)}"


def _recipes(record: Record) -> Section:
    today, *others = record["settings"]["methods"].items()
    told = "".join(f"; *{name}* adds `{words.removeprefix(today[1]).strip()}`" for name, words in others)
    text = f"*{today[0]}* is the recipe of the documents, `{today[1]}`{told}.\n\n"
    return "Which recipe of LatentCLR", text + _directions(record)[1]


def _sweep(record: Record) -> Section:
    settings = record["settings"]
    lines = [
        f"One training each (seed 0), K = 16 unless it says so, on {settings['codes']} codes: to find what is worth"
        f" several seeds. {settings['told']}\n",
        "| recipe | adds | purity | mean largest effect, sd | attributes moved | twins | training, CPU s |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in record["results"]:
        lines.append(
            f"| {row['recipe']} | `{row['adds'] or 'nothing'}` | {row['purity']:.2f} |"
            f" {row['mean largest effect, sd']:.2f} | {row['attributes moved']} | {row['twins']} |"
            f" {row['training, CPU s']:.0f} |"
        )
    return "A first look at many recipes", _sourced(lines, record)


def _limit(record: Record) -> Section:
    settings = record["settings"]
    lines = [
        f"Effects at a change of the picture of {255 * settings['change']:.0f}/255 on {settings['codes']} codes that"
        " nothing here had seen, with 95 % bootstrap intervals over codes. *Climbed* is told the effect itself,"
        " and nothing else, and learns more in each round.\n",
        "| attribute | direction | effect, sd | times the best unsupervised |\n|---|---|---|---|",
    ]
    for row in record["results"]:
        low, high = row["interval"]
        least, most = row["ratio, interval"]
        lines.append(
            f"| {row['attribute']} | {row['direction']} | {row['effect, sd']:.2f} [{low:.2f}, {high:.2f}] |"
            f" {row['times the best unsupervised']:.2f} [{least:.2f}, {most:.2f}] |"
        )
    return "How much of one attribute a single direction can move", _sourced(lines, record)


def _scoring(record: Record) -> Section:
    settings = record["settings"]
    lines = [
        f"`latentclr score` of {settings['k']} directions with {_and(settings['scorers'])}: {settings['pictures']:,}"
        f" pictures. The whole command, median of {settings['runs']}.\n",
        "| threads | seconds | fastest | slowest | pictures/s |\n|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['threads']} | {row['p50_s']:.0f} | {row['least_s']:.0f} | {row['most_s']:.0f}"
        f" | {row['pictures_per_s']:.0f} |"
        for row in record["results"]
    ]
    return "Scoring directions", _sourced(lines, record)


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
    return title, _sourced(lines, record)


def _latency(record: Record) -> Section:
    settings = record["settings"]
    lines = [
        "All engines take turns in one run.\n",
        "| batch | engine | p50 ms | p90 | p99 | images/s | worst pixel difference |\n|---|---|---|---|---|---|---|",
    ]
    for row in record["results"]:
        lines.append(
            f"| {row['batch']} | {row['engine']} | {row['p50_ms']:.2f} | {row['p90_ms']:.2f} | {row['p99_ms']:.2f}"
            f" | {_rate(row)} | {row['worst_step']}/255 |"
        )
    for tier, found in settings.get("certificates", {}).items():
        psnr = "identical" if found["psnr_db"] is None else f"PSNR {found['psnr_db']:.1f} dB"
        lines.append(
            f"\n*{tier.replace(':', ' ')}*, certificate of {found['images']} pictures: {psnr} and SSIM"
            f" {found['ssim']:.4f} of the worst, mean at most {found['mean_step']:.2g}/255, edit fidelity"
            f" {found['edit_fidelity']:.4f}; it holds {found['gate']}."
        )
    title = f"One edit, {settings['generator']} at {settings['resolution']} pixels{_random(record)}"
    return title, _sourced(lines, record)


def _rate(row: Record) -> str:
    """Return images a second, of slow rows with two digits."""
    rate = row["images_per_s"]
    return f"{rate:.0f}" if rate >= 10 else f"{1e3 * row['batch'] / row['p50_ms']:.2g}"


def _precision(record: Record) -> Section:
    settings = record["settings"]
    peaks = ", ".join(f"{kind} {peak:.0f}" for kind, peak in settings["matrix_product_peak_gops"].items())
    lines = [
        f"The fastest of each tier that holds {settings['quality']} on {settings['edited']} edited pictures; all take"
        f" turns in one run. Kept: operations that stay in float32. Peaks of this machine's matrix products, billions"
        f" of operations a second: {peaks}.\n",
        "| engine | kept | p50 ms | times faster | worst, mean step | PSNR dB | SSIM | edit fidelity |"
        "\n|---|---|---|---|---|---|---|---|",
    ]
    for row in record["results"]:
        time = f"{row['p50_ms']:.1f} | {row['speed_up']:.2f}" if "p50_ms" in row else "not timed | -"
        if "ssim" not in row:
            lines.append(f"| {row['engine']} | | {time} | | | | |")
            continue
        psnr = "identical" if row["psnr_db"] is None else f"{row['psnr_db']:.1f}"
        lines.append(
            f"| {row['engine']} | {row['kept']} | {time} | {row['worst_step']}, {row['mean_step']:.2g} | {psnr}"
            f" | {row['ssim']:.4f} | {row['edit_fidelity']:.4f} |"
        )
    none = [tier for tier, found in settings["frontiers"].items() if not any(p["best"] for p in found["points"])]
    lines += [f"\nNothing that holds the gate and is faster than float32 was found for {_and(none)}."] if none else []
    rounded = settings["frontiers"].get("openvino bf16", {})
    if "speed_up_below" in rounded:
        share = 1 - min((point["of_float32"] for point in rounded["points"] if point["best"]), default=1.0)
        text = "\nThis CPU has no bfloat16, so it was emulated and not timed."
        text += f" It may have {100 * share:.1f} % of the arithmetic"
        if share < 0.9:  # beyond, the bound says nothing
            text += f"; if that took no time at all, a picture would come {rounded['speed_up_below']:.1f} times as fast"
        lines.append(f"{text}.")
    title = f"Precision tiers, {settings['generator']} at {settings['resolution']} pixels{_random(record)}"
    return title, _sourced(lines, record)


def _served_precision(record: Record) -> Section:
    settings = record["settings"]
    lines = [
        f"Requests of {settings['batch']} faces from {settings['clients']} clients, which wait for their answers and"
        f" share the cores with the server ({settings['instances']} instances, threads of each: {settings['threads']});"
        f" eager PyTorch draws the same with no server. Medians of {settings['rounds']} turns.\n",
        "| way | images/s | times eager | worst, mean step | PSNR dB | edit fidelity | holds |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in record["results"]:
        speed = f"| {row['way']} | {row['images_per_s']:.0f} | {row['speed_up']:.2f} |"
        if "gate" not in row:
            lines.append(f"{speed} | | | |")
            continue
        lines.append(
            f"{speed} {row['worst_step']}, {row['mean_step']:.2g} | {row['psnr_db']:.1f} | {row['edit_fidelity']:.4f} |"
            f" {row['gate']} |"
        )
    return "Served faces in certified precision", _sourced(lines, record)


def _preview(record: Record) -> Section:
    settings = record["settings"]
    engine, precision = settings.get("engine", "onnxruntime"), settings.get("precision", "fp32")
    lines = [
        f"StyleGAN2 of {settings['resolution']} pixels under {engine}: bare sessions in float32 that stop at each size,"
        f" and served, full pictures in float32 and previews in {precision}.\n",
        "| way | pixels | p50 ms | p90 ms | of the full picture's time | features and picture there, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for row in record["results"]:
        kept = "" if row["kept_mib"] is None else f"{row['kept_mib']:.1f}"
        times = f"{row['p50_ms']:.0f} | {row['p90_ms']:.0f} | {row['share']:.2f}"
        lines.append(f"| {row['way']} | {row['pixels']} | {times} | {kept} |")
    if settings.get("certificate"):
        lines.append(f"\nThe preview itself: {Certificate(**settings['certificate'])}")
    return f"Previews of {settings['preview']} pixels in {precision}, {engine}", _sourced(lines, record)


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
    return "Under load", _sourced(lines, record)


def _photos(record: Record) -> Section:
    settings, effects = record["settings"], record["settings"]["effects"]
    lines = [
        f"The encoder was trained for {settings['encoder_steps']} steps in {settings['encoder_minutes']} minutes with"
        f" {settings['encoder_threads']} thread of a machine that was busy; refinement is {settings['steps']} steps by"
        " gradient. From the prior: root mean square distance of the code from the mean, in standard deviations; 1 is"
        " usual.\n",
        "| pictures | way | count | PSNR dB | worst | SSIM | from the prior |\n|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['pictures']} | {row['way']} | {row['count']} | {row['psnr_db']:.2f} | {row['psnr_worst_db']:.2f}"
        f" | {row['ssim']:.3f} | {row['from_prior']:.2f} |"
        for row in record["results"]
    ]
    lines += [
        f"\nWhat each direction does to its clearest attribute, from alpha -{settings['strength']:g} to"
        f" +{settings['strength']:g}, in standard deviations:\n",
        "| direction | attribute | from the true code | from the found one | kept |\n|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['direction']} | {row['attribute']} | {row['true_sd']:+.2f} | {row['found_sd']:+.2f}"
        f" | {row['kept']:.2f} |"
        for row in effects
    ]
    other = "" if settings["generator"] == "dcgan" else f" of {_what(record)}"
    return f"Photos{other}", _sourced(lines, record)


def _encoder(record: Record) -> Section:
    lines = [
        "Likeness to held-out faces of what is drawn of the code that the encoder finds, after trainings of different"
        " length:\n",
        "| minutes | steps | threads | PSNR dB | changed as photos are | the mean picture | error of the code |"
        "\n|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['minutes']:.0f} | {row['steps']} | {row['threads']} | {row['psnr_db']:.2f}"
        f" | {row['psnr_changed_db']:.2f} | {row['floor_db']:.2f} | {row['code_error']:.2f} |"
        for row in record["results"]
    ]
    return "Training an encoder", _sourced(lines, record)


def _soak(record: Record) -> Section:
    settings, figures, last = record["settings"], record["settings"]["figures"], record["results"][-1]
    growth = [entry for entry in record["targets"] if "growth" in entry["name"]]
    words = ", ".join(f"{entry['name'].split(':')[0]} {100 * entry['value']:+.1f} %" for entry in growth)
    return "Soak", (
        f"{settings['requests']} requests of one to {settings['rows'][-1]} edits from {settings['clients']}"
        f" clients: {figures['errors']} errors, p50 {figures['p50_ms']:.1f} ms, p99 {figures['p99_ms']:.1f} ms, slowest"
        f" {figures['max_ms']:.0f} ms; {words} after warm-up, to {last['model_mib']:.0f} and"
        f" {last['server_mib']:.0f} MiB.\n\n![Memory and latency, request after request](soak.png)\n\n"
        f"{_source(record)}"
    )


def _robustness(record: Record) -> Section:
    settings, rows = record["settings"], record["results"]
    tries: dict[str, list[Record]] = {}
    for row in rows:
        tries.setdefault(row["format"], []).append(row)
    lines = [
        f"{settings['tries']} hostile files, each before the command that reads it: {len(settings['faults'])} faults."
        f" Also {settings['crash_points']} kills at a rename, link, deletion or fsync, and odd overrides"
        f" ({settings['override_tests']} tests). Memory is that of the whole process, with all libraries loaded.\n",
        "| format | commands | files | refused | worst CPU s | worst peak MiB |\n|---|---|---|---|---|---|",
    ]
    for name, group in tries.items():
        commands = ", ".join(sorted({row["command"] for row in group}))
        files, refused = (sum(row[key] for row in group) for key in ("tries", "refused"))
        worst = (max(row[key] for row in group) for key in ("cpu_s", "peak_mib"))
        lines.append(f"| {name} | {commands} | {files} | {refused} | {next(worst):.1f} | {next(worst):.0f} |")
    return "Hostile files", _sourced(lines, record)


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
    return "The price of small formats", _sourced(lines, record)


def _web(record: Record) -> Section:
    lines = [
        "Pages of `latentclr export --target web` in a headless Chromium on the same machine, without a GPU, as a"
        " static host gives them (one thread) and isolated (threads). What a visitor loads, when the first picture is"
        f" there, what the engine takes for one, and how many are shown in a second while a mouse drags a slider for"
        f" {record['settings']['seconds']:g} s. Pixels are compared with eager PyTorch's in float32. BigGAN and"
        " StyleGAN2 have seeded random weights, whose edits show rounding more than real ones. Sizes are the same"
        " everywhere, times are this machine's.\n",
        "| page | engine | graph, MB (weights) | loads, MB | first picture, s | p50 ms | dragged, 1/s |"
        " worst, mean step | peak MiB |\n|---|---|---|---|---|---|---|---|---|",
    ]
    for row in record["results"]:
        lines.append(
            f"| {row['page']}, {row['pixels']} | {row['way']} | {row['graph_mb']:.1f} ({row['weights']})"
            f" | {row['loads_mb']:.1f} | {row['first_s']:.1f} | {row['p50_ms']:.0f} | {row['dragged_per_s']:.1f}"
            f" | {row['worst_step']}, {row['mean_step']:.2f} | {row['peak_mib']} |"
        )
    return "A page without a server", _sourced(lines, record)


def _transport(record: Record) -> str:
    ways = list(dict.fromkeys(row["way"] for row in record["results"]))
    lines = [f"| pixels | pictures | {' | '.join(ways)} |", "|---|---|" + "---|" * len(ways)]
    for pixels, batch in dict.fromkeys((row["pixels"], row["batch"]) for row in record["results"]):
        times = {
            row["way"]: row["p50_ms"] for row in record["results"] if (row["pixels"], row["batch"]) == (pixels, batch)
        }
        lines.append(f"| {pixels} | {batch} | {' | '.join(f'{times[way]:.1f}' for way in ways)} |")
    return _sourced(lines, record)


def _random(record: Record) -> str:
    return ", seeded random weights" if record["random_weights"] else ""


@click.command()
@click.option("--check", is_flag=True, help="Change nothing; exit code 1 if a document differs.")
def main(check: bool) -> None:
    """Bring the documents' figures in line with benchmarks/results/."""
    docs = ROOT / "docs"
    for path, text in {
        ROOT / "README.md": summary(),
        docs / "benchmarks.md": block(),
        docs / "client.md": transport_block(),
    }.items():
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
