"""Reading NVIDIA's network pickles without running them.

A pickle is a program for a stack machine, and `pickle.Unpickler` imports and calls what the program names; NVIDIA's
files go further and bring Python source to be executed. Here the instructions are parsed by `pickletools` and carried
out by a machine of our own that has no way to import, call or set an attribute: a name on the allow-list of
`pickle_objects` becomes a `Name`, applying it runs the function listed there, and every other name is refused.

What comes out is inert: plain containers, `Record` for a module (its embedded source is dropped), `StoredTensor` and
`StoredArray`, whose bytes are decoded only when they are asked for.
"""

from __future__ import annotations

import mmap
import pickletools
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentclr.errors import GeneratorError
from latentclr.generators.weights.pickle_objects import (
    ALLOWED,
    DType,
    Name,
    Record,
    Refused,
    StoredArray,
    key_of,
    kind_of,
    mapping,
)

MAX_OPCODES = 2_000_000  # a published network has about 100,000; a byte of hostile input may cost 100 bytes of memory
MAX_TEXT = 10_000_000  # characters of one string; the largest is a module's source


def load_pickle(path: Path) -> Any:
    """Read a pickle of tensors and plain data.

    Returns:
        dict, list, tuple, set, str, bytes, int, float, bool, None, `Record`, `StoredTensor` and `StoredArray`.

    Raises:
        GeneratorError: The file is missing, truncated, or asks for anything else; the message names what it asked for.
    """
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Machine().run(content)
    except Refused as refusal:
        raise GeneratorError(f"{path} is refused: {refusal}") from None
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, struct.error, MemoryError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise GeneratorError(f"{path} is not a whole pickle: {reason[:200]}") from None
    except OSError as error:
        raise GeneratorError(f"cannot read {path}: {error.strerror or error}") from None


@dataclass
class _Machine:
    stack: list[Any] = field(default_factory=list)
    marks: list[list[Any]] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)
    left: int = 0  # bytes that names may still make out of what the file holds once

    def run(self, content: Any) -> Any:
        self.left = 2 * len(content)
        for count, (opcode, arg, _) in enumerate(pickletools.genops(content)):
            if count >= MAX_OPCODES:
                raise Refused(f"more than {MAX_OPCODES} instructions")
            if opcode.name == "STOP":
                if len(self.stack) != 1 or self.marks:
                    raise Refused("its end leaves work undone")
                return self.stack[0]
            if opcode.name in _VALUES:
                if isinstance(arg, str) and len(arg) > MAX_TEXT:
                    raise Refused(f"a string of {len(arg)} characters")
                self.stack.append(bytes(arg) if type(arg) is bytearray else arg)
            elif opcode.name in _CONSTANTS:
                self.stack.append(_CONSTANTS[opcode.name]())
            elif (action := _ACTIONS.get(opcode.name)) is not None:
                action(self, arg)
            else:
                raise Refused(f"instruction {opcode.name}")
        raise Refused("it has no end")

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def pop_mark(self, _: Any = None) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def push_tuple(self, _: Any) -> None:
        items = tuple(self.pop_mark())  # before `self.stack` is looked up: popping a mark puts another list there
        self.stack.append(items)

    def push_list(self, _: Any) -> None:
        items = self.pop_mark()
        self.stack.append(items)

    def push_dict(self, _: Any) -> None:
        items = self.pop_mark()
        self.stack.append(mapping(zip(items[::2], items[1::2], strict=True)))

    def take(self, count: int) -> tuple[Any, ...]:
        if len(self.stack) < count:
            raise Refused("its stack runs empty")
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        return items

    def put(self, index: Any) -> None:
        self.memo[int(index)] = self.stack[-1]

    def get(self, index: Any) -> None:
        self.stack.append(self.memo[int(index)])

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def append_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise Refused(f"appending to a {kind_of(target)}")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise Refused(f"setting items of a {kind_of(target)}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[key_of(key)] = value

    def add_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not set:
            raise Refused(f"adding to a {kind_of(target)}")
        target.update(key_of(item) for item in items)

    def name(self, module: Any, name: Any) -> None:
        path = f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else "a name that is no text"
        if path not in ALLOWED:
            shown = path[:200] if path.isprintable() else ascii(path[:200])
            raise Refused(f"it asks for {shown} (only tensors and plain data are read)")
        self.stack.append(Name(path))

    def apply(self, _: Any) -> None:
        function, args = self.take(2)
        if type(function) is not Name or type(args) is not tuple:
            raise Refused(f"calling a {kind_of(function)}")
        try:
            made = ALLOWED[function.path](*args)
            self.left -= len(made) if isinstance(made, bytes | dict | set) else 0
            if self.left < 0:
                raise Refused("it makes more out of one text than the file holds")
            self.stack.append(made)
        except (TypeError, ValueError):  # wrong number or kind of arguments
            raise Refused(f"{function.path} with arguments that it never has") from None

    def build(self, _: Any) -> None:
        (state,) = self.take(1)
        target = self.stack[-1]
        if type(target) is DType and type(state) is tuple and len(state) >= 2 and state[1] in ("<", ">", "|", "="):
            target.order = state[1]
        elif type(target) is StoredArray and type(state) is tuple and len(state) == 5 and type(state[3]) is bool:
            try:
                target.set_state(state[1], state[2], state[4], "F" if state[3] else "C")
            except ValueError:
                raise Refused("it holds a numpy array that is not of numbers, or not of their size") from None
        elif type(target) is Record and type(state) is dict and not target.state:
            target.state.update(state)
        elif not (type(target) is dict and (state is None or state == {})):  # EasyDict's attributes are its items
            raise Refused(f"setting the state of a {kind_of(target)}")


def _global(machine: _Machine, arg: str) -> None:
    machine.name(*arg.split(" ", 1))


_VALUES = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT UNICODE SHORT_BINUNICODE BINUNICODE BINUNICODE8"
    " STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8".split()
)
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}


_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, arg: None,
    "FRAME": lambda machine, arg: None,
    "MARK": _Machine.mark,
    "TUPLE": _Machine.push_tuple,
    "TUPLE1": lambda machine, _: machine.stack.append(machine.take(1)),
    "TUPLE2": lambda machine, _: machine.stack.append(machine.take(2)),
    "TUPLE3": lambda machine, _: machine.stack.append(machine.take(3)),
    "LIST": _Machine.push_list,
    "DICT": _Machine.push_dict,
    "APPEND": lambda machine, _: machine.append_items([*machine.take(1)]),
    "APPENDS": lambda machine, _: machine.append_items(machine.pop_mark()),
    "SETITEM": lambda machine, _: machine.set_items([*machine.take(2)]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_mark()),
    "ADDITEMS": lambda machine, _: machine.add_items(machine.pop_mark()),
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "POP": lambda machine, _: machine.stack.__delitem__(-1),
    "POP_MARK": lambda machine, _: machine.pop_mark().clear(),
    "GLOBAL": _global,
    "STACK_GLOBAL": lambda machine, _: machine.name(*machine.take(2)),
    "REDUCE": _Machine.apply,
    "NEWOBJ": _Machine.apply,
    "BUILD": _Machine.build,
}
