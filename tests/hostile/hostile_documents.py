"""Hostile values for JSON and YAML: a valid document with one or two of its parts replaced."""

from __future__ import annotations

import copy
import json
from random import Random
from typing import Any

# Written into the text as they stand, where a value was: what no Python value is written as.
RAW = {
    "@deep@": "[" * 3000 + "]" * 3000,
    "@tables@": '{"a":' * 3000 + "1" + "}" * 3000,
    "@digits@": "9" * 5000,
    "@minus@": "-" + "9" * 5000,
    "@large@": "1e400",
    "@escape@": '"\\u0024{oc.env:SECRET}"',
    "@env@": '"${oc.env:SECRET}"',
    "@within@": '"a ${oc.env:SECRET} b"',
    "@resolver@": '"${oc.decode:${oc.env:SECRET}}"',
    "@surrogate@": '"\\ud800"',
    "@nul@": '"a\\u0000b"',
    "@wide@": "[" + "0," * 60_000 + "0]",
    "@long@": '"' + "a" * 300_000 + '"',
    "@colour@": '"\\u001b[2J\\u202e"',
    "@line@": '"a\\nError: b"',
    "@huge@": "9" * 60,
}
VALUES: tuple[Any, ...] = (
    *RAW, None, True, False, -1, 0, 1, 1.5, -2.5, float("nan"), float("inf"), 2**31, 2**63, 10**30, "", "0", "nan", "a",
    "../../precious.txt", "/etc/passwd", "precious.txt", [], {}, [[]], [{}], {"a": {"b": {}}}, [1, [2, [3]]], {"": None},
    ["a"] * 300, [None], "__import__('os').system('touch $CANARY')", "os.system", "!!python/object:os.system",
)  # fmt: skip


def nested(depth: int, kind: type = list) -> Any:
    """Return containers inside one another."""
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if kind is dict else [value]
    return value


def hostile_copy(draw: Random, document: Any) -> Any:
    """Return a copy with one or two parts replaced, removed, added or renamed."""
    changed = copy.deepcopy(document)
    for _ in range(draw.choice((1, 1, 1, 2))):
        places = list(_places(changed))
        if not places:
            return draw.choice(VALUES)
        container, key = draw.choice(places)
        how = draw.random()
        if how < 0.75:
            container[key] = copy.deepcopy(draw.choice(VALUES))
        elif how < 0.85 and isinstance(container, dict):
            del container[key]
        elif isinstance(container, dict):
            word = draw.choice(("", "a" * 1000, "\n", "${oc.env:SECRET}", "_target_", "__class__", "0", "null"))
            container[word] = copy.deepcopy(container[key])
        else:
            container *= draw.choice((0, 2, 1000))
    return changed


def _places(value: Any) -> Any:
    if isinstance(value, dict):
        for key in value:
            yield value, key
            yield from _places(value[key])
    elif isinstance(value, list):
        for index in range(min(len(value), 20)):
            yield value, index
            yield from _places(value[index])


def text_of(document: Any) -> str:
    """Write it as JSON, which is YAML too, with the raw parts in place."""
    text = json.dumps(document)
    for word, raw in RAW.items():
        text = text.replace(f'"{word}"', raw)
    return text


YAML_BOMBS = {
    "aliases": "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 10)),
    "merged aliases": "a0: &a0 {x: 1, y: 2}\n" + "".join(f"a{i}: &a{i} {{<<: *a{i - 1}, k{i}: *a{i - 1}}}\n" for i in range(1, 40)),
    "an alias of itself": "&a [*a]\n",
    "deep lists": "[" * 20_000 + "]" * 20_000,
    "deep tables": "{a: " * 20_000 + "1" + "}" * 20_000,
    "deep blocks": "".join(" " * i + "a:\n" for i in range(900)),
    "deep dashes": "- " * 5000 + "1\n",
    "sexagesimal": "a: " + ":".join(["59"] * 60_000) + "\n",
    "sexagesimal float": "a: " + ":".join(["59"] * 60_000) + ".5\n",
    "digits": "a: " + "9" * 900_000 + "\n",
    "binary digits": "a: 0b" + "1" * 900_000 + "\n",
    "hexadecimal": "a: 0x" + "f" * 900_000 + "\n",
    "underscores": "a: 1" + "_" * 900_000 + "\n",
    "python object": "a: !!python/object/apply:os.system ['touch $CANARY']\n",
    "python name": "a: !!python/name:os.system\n",
    "python module": "a: !!python/module:os\n",
    "python tuple": "a: !!python/tuple [1, 2]\n",
    "python object, new": "!!python/object/new:type {args: [z, !!python/tuple [], {}]}\n",
    "python eval": "!!python/object/apply:builtins.eval [\"open(__import__('os').environ['CANARY'], 'w')\"]\n",
    "binary": "a: !!binary " + "QUFB" * 1000 + "\n",
    "set": "!!set {a, b}\n",
    "omap": "!!omap [a: 1]\n",
    "pairs": "!!pairs [a: 1, a: 2]\n",
    "timestamp": "a: 2001-12-14t21:59:43.10-05:00\n",
    "bad timestamp": "a: 9999-99-99\n",
    "local tag": "a: !secret b\n",
    "secret": "a: ${oc.env:SECRET}\n",
    "escaped secret": 'a: "\\x24{oc.env:SECRET}"\n',
    "unicode secret": 'a: "\\u0024\\u007boc.env:SECRET}"\n',
    "folded secret": 'a: "$\\\n  {oc.env:SECRET}"\n',
    "secret key": "${oc.env:SECRET}: 1\n",
    "escaped key": '"\\x24{oc.env:SECRET}": 1\n',
    "a list as key": "? [a, b]\n: 1\n",
    "a table as key": "? {a: 1}\n: 1\n",
    "many keys": "".join(f"k{i}: {i}\n" for i in range(80_000)),
    "one key often": "a: 1\n" * 100_000,
    "long key": "a" * 900_000 + ": 1\n",
    "many documents": "--- a\n" * 100_000,
    "two documents": "a: 1\n---\nb: 2\n",
    "directives": "%YAML 9.9\n---\na: 1\n",
    "tag directive": "%TAG ! tag:yaml.org,2002:python/\n---\na: !object/apply:os.system ['touch $CANARY']\n",
    "control characters": "a: \x01\x02\n",
    "NUL": "a: \x00\n",
    "tabs": "\ta: 1\n",
    "open quote": 'a: "' + "b" * 500_000,
    "open bracket": "a: [" + "b, " * 100_000,
    "comments": "# a\n" * 200_000,
    "blank": "",
    "blank lines": "\n" * 900_000,
    "a scalar": "42\n",
    "a list": "[1, 2]\n",
    "half a surrogate": 'a: "\\ud800"\n',
    "beyond Unicode": 'a: "\\U00110000"\n',
    "infinite": "a: .inf\nb: .nan\n",
    "too large": "a: " + "a" * 3_000_000 + "\n",
}  # fmt: skip
