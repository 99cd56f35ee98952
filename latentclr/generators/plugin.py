"""Generators of the user's own: a Python function that runs by the user's own word, and by nothing else.

    generator=FILE.py:FUNCTION             a file
    generator=package.module:FUNCTION      what is installed
    generator=NAME                         what another package announces under `latentclr.generators`

`generator.KEY=VALUE` are the function's arguments, typed by its annotations. A run records the word as a note for
people; whoever opens the run says it again, because a file that anybody may have written must name no code to run.
What the function may return is told by `wrapped.as_generator`. Nothing here imports torch.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import inspect
import sys
import traceback
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from latentclr.config import BaseGeneratorConfig
from latentclr.errors import ConfigError, GeneratorError, LatentCLRError, nearest
from latentclr.generators.registry import entries

if TYPE_CHECKING:
    from latentclr.generators.base import Generator

MISSING = "???"  # OmegaConf's word for a value that has to be given
_PLAIN = (int, float, str, bool)
_LISTS: dict[Any, Any] = {int: list[int], float: list[float], str: list[str], bool: list[bool]}


@dataclass
class PluginConfig(BaseGeneratorConfig):
    """generator=FILE.py:FUNCTION: your own. Of each function a class of its own is derived, with its arguments."""

    feature_layer: str = field(
        default="", metadata={"help": "any submodule by name; empty for the first that is not linear in the code"}
    )
    function: ClassVar[Callable[..., Any]]
    converters: ClassVar[dict[str, Callable[[Any], Any]]]

    def build(self) -> Generator:
        """Call the function, and fill in the feature layer if it was left open.

        Raises:
            GeneratorError: The function raises, or what it returns is no generator.
        """
        from latentclr.generators.wrapped import as_generator, loading_onto_cpu

        cls = type(self)
        arguments = {
            option.name: cls.converters.get(option.name, _same)(getattr(self, option.name))
            for option in dataclasses.fields(self)
            if option.name not in ("name", "feature_layer")
        }
        try:
            with loading_onto_cpu():
                made = cls.function(**arguments)
        except LatentCLRError:
            raise
        except (Exception, SystemExit) as error:
            raise GeneratorError(f"{self.name} raised {told(error, cls.function)}") from error
        generator = as_generator(made, self.name, getattr(cls.function, "__name__", self.name))
        self.feature_layer = self.feature_layer or generator.default_layer()
        return generator


def is_word(name: str) -> bool:
    """Return whether a generator is named as code, FILE.py:FUNCTION or package.module:FUNCTION."""
    return ":" in name


def short_name(name: str) -> str:
    """Return a generator's name as part of a folder's: `digits-make` of `examples/digits.py:make`."""
    place, _, function = name.rpartition(":")
    kept = Path(place).stem if place.endswith(".py") else place
    return "-".join("".join(c if c.isalnum() or c in "._" else "-" for c in part) for part in (kept, function) if part)


def plugin_class(word: str) -> type[BaseGeneratorConfig]:
    """Import what a word names, and return its configuration: the function's arguments as options.

    Raises:
        ConfigError: There is no such file, module or function, or it cannot be imported or called by name.
    """
    found = _entry(word) if not is_word(word) else _named(word)
    if isinstance(found, type) and issubclass(found, BaseGeneratorConfig):
        return found
    if not callable(found):
        raise ConfigError(f"generator={word} names a {type(found).__name__}, expected a function")
    return _class_for(word, found)


def told(error: BaseException, function: Callable[..., Any] | None = None, file: str = "") -> str:
    """Return an error of the user's code on one line, with the last of its own lines that led there."""
    if function is not None:
        file = getattr(inspect.unwrap(function), "__code__", types.SimpleNamespace(co_filename="")).co_filename
    own = [frame for frame in traceback.extract_tb(error.__traceback__) if file and frame.filename == file]
    place = f" ({Path(file).name}, line {own[-1].lineno})" if own else ""
    if isinstance(error, SyntaxError) and error.lineno and error.filename:
        place = f" ({Path(error.filename).name}, line {error.lineno})"
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}{place}"


def _entry(name: str) -> Any:
    entry = entries()[name]
    try:
        return entry.load()
    except (Exception, SystemExit) as error:
        raise ConfigError(f"generator={name}: {entry.value} cannot be loaded: {told(error)}") from error


def _named(word: str) -> Any:
    place, _, name = word.rpartition(":")
    if not place or not name:
        raise ConfigError(f"generator must be FILE.py:FUNCTION or package.module:FUNCTION, got {word!r}")
    if place.endswith(".py") or "/" in place:
        path = Path(place).expanduser()
        if not path.is_file():
            raise ConfigError(f"generator={word}: there is no file {place}")
        status = path.stat()
        module = _of_file(str(path.resolve()), status.st_mtime_ns, status.st_size)
    else:
        try:
            module = importlib.import_module(place)
        except (Exception, SystemExit) as error:
            raise ConfigError(f"generator={word}: {place} cannot be imported: {told(error)}") from error
    if not hasattr(module, name):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ConfigError(f"generator={word}: {place} has no function {name!r}{nearest(name, known)}")
    return getattr(module, name)


@functools.cache
def _of_file(path: str, modified: int, size: int) -> types.ModuleType:
    """Run a file once for each of its states; modules beside it are found, after those that are installed."""
    name = f"latentclr_plugin_{hashlib.sha256(f'{path} {modified} {size}'.encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is no Python file: its name must end in .py")
    folder = str(Path(path).parent)
    if folder not in sys.path:
        sys.path.append(folder)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and torch look a class's module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ConfigError(f"{path} cannot be imported: {told(error, file=path)}") from error
    return module


def _class_for(word: str, function: Callable[..., Any]) -> type[PluginConfig]:
    try:
        signature = inspect.signature(function)
        hints = typing.get_type_hints(function.__init__ if isinstance(function, type) else function)  # type: ignore[misc]
    except (TypeError, ValueError, NameError) as error:
        raise ConfigError(f"generator={word}: the arguments cannot be read: {told(error)}") from error
    options, converters = [], {}
    for name, parameter in signature.parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY or name in ("name", "feature_layer", "build", "function"):
            raise ConfigError(f"generator={word}: an argument cannot be called {name!r} there, or be positional only")
        given = parameter.default is not parameter.empty
        kind, convert = _plain(hints.get(name, type(parameter.default) if given else Any))
        default = parameter.default if given else MISSING
        default = str(default) if isinstance(default, Path) else list(default) if type(default) is tuple else default
        if convert is not None:
            converters[name] = convert
        if isinstance(default, list | dict):
            made = field(default_factory=functools.partial(_copied, default), metadata={"help": ""})
        elif default is None or isinstance(default, _PLAIN):
            kind = kind | None if default is None and kind is not Any else kind
            made = field(default=default, metadata={"help": ""})
        else:
            continue  # such as a device: the function's own business, and no option
        options.append((name, kind, made))
    namespace = {"function": staticmethod(function), "converters": converters, "__module__": __name__}
    named = ("name", str, field(default=word))
    return dataclasses.make_dataclass("Arguments", [named, *options], bases=(PluginConfig,), namespace=namespace)


def _plain(hint: Any) -> tuple[Any, Callable[[Any], Any] | None]:
    """Return the type that a configuration holds of an annotation, and what makes the annotated one of it."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType) and type(None) in inner and len(inner) == 2:
        kind, convert = _plain(next(part for part in inner if part is not type(None)))
        return (kind if kind is Any else kind | None), convert and functools.partial(_unless_none, convert)
    if hint in _PLAIN:
        return hint, None
    if hint is Path:
        return str, Path
    if hint is tuple or origin is tuple:
        return list[Any], tuple
    if hint is list or origin is list:
        return _LISTS.get(inner[0] if inner else Any, list[Any]), None
    if hint is dict or origin is dict:
        return dict[str, Any], None
    return Any, None


def _unless_none(convert: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else convert(value)


def _same(value: Any) -> Any:
    return value


def _copied(default: Any) -> Any:
    return type(default)(default)
