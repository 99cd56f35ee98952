"""A plain module as a generator: what a plug-in returns, made to follow the protocol, and tried before it is used.

Feature layers are the module's submodules by name. Their output is caught by a forward hook, and the run stops there:
the hook raises, so that what comes later costs nothing, and gradients flow through what was caught as ever.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn

from latentclr.errors import GeneratorError
from latentclr.generators.base import Generator, LatentSpec
from latentclr.generators.plugin import told
from latentclr.training.rng import stream
from serving.contract.manifest import SAMPLERS

IMAGE = "image"  # the feature layer that every module has: the finished picture
SAME = 2e-3
"""By how much a picture in [-1, 1] may differ from itself drawn again or in another batch: sums are rounded in another
order there. A step of a pixel is 8e-3."""
LARGEST = 1.001  # of a pixel in [-1, 1], likewise
CURVED = 1e-3  # by this share of its own change a layer must differ from a linear one to count as not linear


class Wrapped(Generator):
    """A frozen module that maps codes to images.

    Codes are [N, D], or [N, L, D] where its `LatentSpec` has L > 1. A module with `class_names` is also given
    class_id [N] int64; training draws from its `class_ids`, or from all classes.
    """

    def __init__(self, net: nn.Module, latent: LatentSpec, name: str) -> None:
        """Freeze the module on the CPU in float32, and try it.

        Args:
            net: Draws [N, 1 or 3, H, W] in [-1, 1].
            latent: Of its codes.
            name: What to call it, unless it has a `name` itself.

        Raises:
            GeneratorError: It cannot draw, what it draws is no picture, differs from time to time or depends on what
                else is in the batch, or a weight is not a finite number.
        """
        super().__init__()
        own = getattr(net, "name", None)
        self.name = own if isinstance(own, str) and own else name
        self.latent = check_latent(latent, self.name)
        self.net = net.to("cpu", torch.float32)
        self.class_names, self.class_ids = _classes(net, self.name)
        self.random_weights = getattr(net, "random_weights", False) is True
        self.freeze()
        self.weights_sha256 = tensors_sha256(net)
        found, image = self._try()
        self.resolution, width = int(image.shape[2]), int(image.shape[3])
        self.width = None if width == self.resolution else width
        self.feature_layers = (*found, IMAGE) if IMAGE not in found else tuple(found)
        self._curved = next((layer for layer, curved in found.items() if curved), IMAGE)
        wanted = getattr(net, "feature_layer", None)
        if isinstance(wanted, str):
            self._curved = self.check_layer(wanted)
        self._reaching: dict[str, int] = {}

    def synthesize(self, ps: Tensor, class_id: Tensor | None = None) -> Tensor:
        """Generate images [N, 3, H, W] from ps [N, L, D]; grey ones in three equal channels."""
        image: Tensor = self._call(ps, class_id)
        image = image.expand(-1, 3, -1, -1) if image.shape[1] == 1 else image
        return image.float()

    def features(self, ps: Tensor, layer: str, class_id: Tensor | None = None) -> Tensor:
        """Return the output [N, ...] of a submodule for ps [N, L, D]; of `image` the picture."""
        if self.check_layer(layer) == IMAGE and layer not in dict(self.net.named_modules()):
            return self.synthesize(ps, class_id)

        def stop(module: nn.Module, inputs: Any, output: Tensor) -> None:
            raise _Reached(output)

        handle = self.net.get_submodule(layer).register_forward_hook(stop)
        try:
            self._call(ps, class_id)
        except _Reached as reached:
            output: Tensor = reached.output
            return output
        finally:
            handle.remove()
        raise GeneratorError(f"{self.name}: {layer} did not run for codes {list(ps.shape)}")

    def inputs_reaching(self, layer: str) -> int:
        """Return how many latent inputs have a gradient at `layer`, counted from the first; 0 if none has."""
        if self.check_layer(layer) not in self._reaching:
            rng = stream(0, "reaching")
            ps = self._codes(2, rng).to(self.device).requires_grad_()  # [2, L, D]
            with torch.enable_grad():
                output = self.features(ps, layer, self._some_classes(2))
                weights = torch.randn(output.shape, generator=rng).to(output)
                gradient = torch.zeros(())
                if output.requires_grad:
                    found = torch.autograd.grad((output * weights).sum(), ps, allow_unused=True)[0]
                    gradient = torch.zeros_like(ps) if found is None else found
            reached = gradient.detach().abs().amax(dim=(0, 2)).nonzero() if gradient.ndim else gradient.nonzero()
            self._reaching[layer] = int(reached.max()) + 1 if len(reached) else 0
        return self._reaching[layer]

    def default_layer(self) -> str:
        """Return the module's own `feature_layer`, or the first layer that is not linear in the code."""
        return self._curved

    def _call(self, ps: Tensor, class_id: Tensor | None) -> Tensor:
        codes = ps[:, 0] if self.latent.layers == 1 else ps
        image: Tensor = self.net(codes) if self.class_names is None else self.net(codes, class_id)
        return image

    def _codes(self, count: int, rng: torch.Generator) -> Tensor:
        return self.sample(count * self.latent.layers, rng).view(count, self.latent.layers, self.latent.dim)

    def _some_classes(self, count: int) -> Tensor | None:
        if self.class_names is None:
            return None
        return torch.full((count,), self.class_ids[0], device=self.device)

    @torch.no_grad()
    def _try(self) -> tuple[dict[str, bool], Tensor]:
        """Draw four codes, and one of them alone.

        Returns:
            The submodules that can be feature layers, in the order in which they ran, with whether each is curved in
            the code; and the images.
        """
        a, b, c = self._codes(3, stream(0, "try"))
        ps = torch.stack([a, b, c, a + b - c])  # an affine map f has f(a) + f(b) = f(c) + f(a + b - c)
        runs: dict[str, list[bool | None]] = {}  # in the order in which the modules finish
        with contextlib.ExitStack() as stack:
            for name, module in self.net.named_modules():
                if name and not isinstance(module, torch.jit.ScriptModule):
                    handle = module.register_forward_hook(_noting(runs, name, len(ps)))
                    stack.callback(handle.remove)
            image = self._drawn(ps)
        again = self._drawn(ps[1:2])
        if (image[1] - again[0]).abs().max() > SAME:
            if (image - self._drawn(ps)).abs().max() > SAME:
                raise GeneratorError(
                    f"{self.name} draws something else each time for the same code: what it draws inside (noise,"
                    " dropout) must be drawn once, as a buffer"
                )
            raise GeneratorError(
                f"{self.name}: a picture depends on the others in its batch: normalise by stored statistics"
                " (BatchNorm2d with track_running_stats, in eval mode), not by the batch's"
            )
        return {name: run[0] for name, run in runs.items() if len(run) == 1 and run[0] is not None}, image

    def _drawn(self, ps: Tensor) -> Tensor:
        codes = list(ps.shape) if self.latent.layers > 1 else [len(ps), self.latent.dim]
        image: Any
        try:
            image = self._call(ps, self._some_classes(len(ps)))
        except Exception as error:
            raise GeneratorError(
                f"{self.name}: its LatentSpec says codes {codes}, and the module cannot draw them: {told(error)}"
            ) from error
        if not isinstance(image, Tensor) or image.ndim != 4 or len(image) != len(ps) or image.shape[1] not in (1, 3):
            came = list(image.shape) if isinstance(image, Tensor) else type(image).__name__
            raise GeneratorError(f"{self.name} must draw images [{len(ps)}, 1 or 3, H, W] of codes {codes}, got {came}")
        if not torch.isfinite(image).all():
            raise GeneratorError(f"{self.name} draws numbers that are not finite")
        low, high = float(image[:3].min()), float(image[:3].max())
        if not -LARGEST <= low <= high <= LARGEST:
            raise GeneratorError(
                f"{self.name} must draw images in [-1, 1], got values in [{low:.3g}, {high:.3g}]: scale them, as with"
                " x / 127.5 - 1, or cut them with .clamp(-1, 1)"
            )
        pixels: Tensor = image.float()
        return pixels


class _Reached(BaseException):
    """Carries a layer's output out of a run; no Exception, which the module might catch."""

    def __init__(self, output: Tensor) -> None:
        self.output = output


def _noting(runs: dict[str, list[bool | None]], name: str, rows: int) -> Any:
    """Return a hook that notes of each run: None if the output is no feature, else whether it is curved in the code."""

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        curved = None
        if isinstance(output, Tensor) and output.ndim > 1 and len(output) == rows and output.is_floating_point():
            a, b, c, d = output.double()
            change, bend = float((a - b).abs().max()), float((a + b - c - d).abs().max())
            curved = bend > CURVED * change if change > 0 else None
        runs.setdefault(name, []).append(curved)

    return note


def as_generator(made: Any, word: str, name: str) -> Generator:
    """Make a generator of what a plug-in's function returned.

    Args:
        made: A module with a `LatentSpec` as its attribute `latent`, a pair (module, LatentSpec), or a whole
            `Generator`, which is used as it is.
        word: What the user typed, for messages.
        name: What to call it, unless it says.

    Raises:
        GeneratorError: It is nothing of that, or cannot be used.
    """
    if isinstance(made, Generator):
        missing = [key for key in ("latent", "resolution", "feature_layers") if not hasattr(made, key)]
        if missing:
            raise GeneratorError(f"{word} returned a Generator without {', '.join(missing)}")
        made.name = getattr(made, "name", name)
        made.freeze()
        made.weights_sha256 = made.weights_sha256 or tensors_sha256(made)
        return made
    net, latent = made if isinstance(made, tuple) and len(made) == 2 else (made, getattr(made, "latent", None))
    if not isinstance(net, nn.Module) or not isinstance(latent, LatentSpec):
        got = f"{type(net).__name__} with latent {latent!r}" if isinstance(net, nn.Module) else type(made).__name__
        raise GeneratorError(
            f"{word} must return a torch.nn.Module with a LatentSpec, as its attribute `latent` or as the pair (module,"
            f" LatentSpec(dim=D)), got {got}"
        )
    return Wrapped(net, latent, name)


def check_latent(latent: LatentSpec, name: str) -> LatentSpec:
    """Return a `LatentSpec` that codes can be drawn by.

    Raises:
        GeneratorError: A size is no number above zero, or the sampler is unknown.
    """
    for key in ("dim", "layers"):
        value = getattr(latent, key)
        if type(value) is not int or not 1 <= value <= 1_000_000:
            raise GeneratorError(f"{name}: LatentSpec.{key} must be a whole number of at least 1, got {value!r}")
    if latent.sampler not in SAMPLERS:
        raise GeneratorError(f"{name}: LatentSpec.sampler must be one of {', '.join(SAMPLERS)}, got {latent.sampler!r}")
    factor = latent.truncation
    if factor is not None and not (isinstance(factor, int | float) and 0 < factor < float("inf")):
        raise GeneratorError(f"{name}: LatentSpec.truncation must be a number above 0 or None, got {factor!r}")
    return latent


def _classes(net: nn.Module, name: str) -> tuple[tuple[str, ...] | None, tuple[int, ...]]:
    names = getattr(net, "class_names", None)
    if names is None:
        return None, ()
    if isinstance(names, str) or not isinstance(names, Sequence) or not names:
        raise GeneratorError(f"{name}: class_names must be a list of names, got {names!r}")
    wanted = getattr(net, "class_ids", None)
    ids = tuple(range(len(names)) if wanted is None else wanted)
    if not ids or not all(type(i) is int and 0 <= i < len(names) for i in ids):
        raise GeneratorError(f"{name}: class_ids must be numbers in [0, {len(names)}), got {wanted!r}")
    return tuple(map(str, names)), ids


def tensors_sha256(module: nn.Module) -> str:
    """Return a hash of a module's parameters and buffers: names, types, shapes and bytes."""
    digest = hashlib.sha256()
    tensors = itertools.chain(module.named_parameters(), module.named_buffers())
    for name, tensor in sorted(tensors, key=lambda entry: entry[0]):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


_ONTO_CPU: ContextVar[bool] = ContextVar("onto_cpu", default=False)


@contextlib.contextmanager
def loading_onto_cpu() -> Iterator[None]:
    """Let `torch.load` put what was saved on a GPU onto the CPU, whatever the code that calls it says."""
    token = _ONTO_CPU.set(True)
    try:
        yield
    finally:
        _ONTO_CPU.reset(token)


def _onto_cpu(storage: Any, location: str) -> Any:
    return storage if _ONTO_CPU.get() and location.startswith(("cuda", "mps", "xpu")) else None


# torch asks in the order of these numbers; the CPU's own is 10, the GPU's 20.
torch.serialization.register_package(5, lambda storage: None, _onto_cpu)
