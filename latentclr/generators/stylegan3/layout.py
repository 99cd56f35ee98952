"""StyleGAN3's table of names and shapes, which every weights file must fit, and how its layers resample.

The names are NVIDIA's, such as `synthesis.L3_52_512.weight`: layer 3, 52 pixels, 512 channels. How a layer resamples
stands beside its weights in small tensors of our own, `synthesis.L3_52_512.geometry` and `synthesis.input.geometry`:
a pickle tells it as attributes, a bare table of tensors leaves it out, and then the published design says it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from latentclr.errors import GeneratorError
from latentclr.generators.stylegan3.filters import low_pass
from latentclr.generators.weights.table import check_table, count_indices, listed

FILTER_TAPS = 6  # of a filter, for each pixel of its lower resolution
UPSAMPLING = 2  # of the leaky ReLU
CRITICAL = 2  # last layers that keep all frequencies
FIRST_CUTOFF, FIRST_STOPBAND, LAST_STOPBAND = 2.0, 2.0**2.1, 2.0**0.3  # the last relative to the last cutoff
OUTPUT_SCALE, CLAMP = 0.25, 256.0
MAX_LAYERS, MAX_PIXELS, MAX_TAPS = 64, 2112, 64
LAYER = re.compile(r"synthesis\.(L(\d{1,3})_(\d{1,6})_(\d{1,6}))\.")


@dataclass(frozen=True)
class Design:
    """The published design (arXiv 2106.12423, section 3.2 and appendix D), as far as released networks differ in it.

    Attributes:
        resolution: H = W in pixels.
        channel_base: Channels times cutoff frequency, doubled.
        channel_max: Most channels.
        kernel: 3 of configuration T, 1 of R.
        radial: Filters of R are the same in all directions, but in the last layers.
        layers: Of the synthesis network, without the input and the last, which makes RGB.
        margin: Pixels around the picture, on each side.
    """

    resolution: int
    channel_base: int = 32768
    channel_max: int = 512
    kernel: int = 3
    radial: bool = False
    layers: int = 14
    margin: int = 10

    def bands(self) -> tuple[list[float], list[float], list[int]]:
        """Return cutoff, half the transition band, and sampling rate of each layer, the RGB one included."""
        last = self.resolution / 2
        cutoffs, half_widths, rates = [], [], []
        for i in range(self.layers + 1):
            along = min(i / (self.layers - CRITICAL), 1.0)
            cutoff = FIRST_CUTOFF * (last / FIRST_CUTOFF) ** along
            stop = FIRST_STOPBAND * (last * LAST_STOPBAND / FIRST_STOPBAND) ** along
            rate = 2 ** math.ceil(math.log2(min(2 * stop, self.resolution)))
            cutoffs.append(cutoff)
            half_widths.append(max(stop, rate / 2) - cutoff)
            rates.append(rate)
        return cutoffs, half_widths, rates

    def sizes(self) -> list[int]:
        """Return the pixels of each layer's output, margins included but for the last two."""
        rates = self.bands()[2]
        return [rate + 2 * self.margin for rate in rates[:-2]] + [self.resolution] * 2

    def channels(self) -> list[int]:
        """Return the channels of each layer's output."""
        cutoffs = self.bands()[0]
        widths = [int(min(self.channel_base / 2 / cutoff, self.channel_max) + 0.5) for cutoff in cutoffs]
        return [*widths[:-1], 3]

    def names(self) -> list[str]:
        """Return NVIDIA's names of the layers."""
        return [
            f"L{i}_{size}_{width}" for i, (size, width) in enumerate(zip(self.sizes(), self.channels(), strict=True))
        ]

    def fixed(self) -> dict[str, Tensor]:
        """Return what is no weight, by name: filters and geometry, as `check_layout` expects them."""
        cutoffs, half_widths, rates = self.bands()
        sizes, tensors = self.sizes(), {}
        tensors["synthesis.input.geometry"] = torch.tensor([float(sizes[0]), float(rates[0]), cutoffs[0]])
        for i, name in enumerate(self.names()):
            before, rgb = max(i - 1, 0), i == self.layers
            if rgb:
                up, down, fine = 1, 1, rates[i]
            else:
                fine = max(rates[before], rates[i]) * UPSAMPLING
                up, down = fine // rates[before], fine // rates[i]
            up_taps, down_taps = (FILTER_TAPS * factor if factor > 1 else 1 for factor in (up, down))
            # Appendix D: the output's pixels at the fine rate, less what the convolution and the filters leave.
            kernel = 1 if rgb else self.kernel
            total = (sizes[i] - 1) * down + 1 - (sizes[before] + kernel - 1) * up + up_taps + down_taps - 2
            low = (total + up) // 2
            key = f"synthesis.{name}"
            tensors[f"{key}.geometry"] = torch.tensor([up, down, low, total - low, sizes[i]]).float()
            radial = self.radial and i < self.layers - CRITICAL
            if not rgb:
                tensors[f"{key}.up_filter"] = low_pass(up_taps, cutoffs[before], 2 * half_widths[before], fine)
                down_filter = low_pass(down_taps, cutoffs[i], 2 * half_widths[i], fine, radial=radial)
                tensors[f"{key}.down_filter"] = down_filter
        return tensors


def layer_names(keys: Iterable[str]) -> list[str]:
    """Return NVIDIA's names of the layers that a table holds, by index; a layer that is missing is `L{i}`."""
    found = {int(m[2]): m[1] for key in keys if (m := LAYER.match(key)) and int(m[2]) <= MAX_LAYERS}
    return [found.get(i, f"L{i}") for i in range(max(found, default=-1) + 1)]


def with_design(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put in the filters and the geometry of the published design where a table leaves them out.

    Raises:
        GeneratorError: The table is not of that design, so that nobody knows how its layers resample.
    """
    names = layer_names(tensors)
    if len(names) < CRITICAL + 2:
        found = ", ".join(sorted(tensors)[:3])[:200] or "nothing"
        raise GeneratorError(f"not StyleGAN3 weights: expected synthesis.L0_SIZE_CHANNELS and so on, found {found}")
    wanted = [f"synthesis.{name}.{part}" for name in names for part in ("geometry", "up_filter", "down_filter")]
    wanted = [key for key in wanted if not key.startswith(f"synthesis.{names[-1]}.") or key.endswith("geometry")]
    if all(key in tensors for key in wanted) and "synthesis.input.geometry" in tensors:
        return tensors
    sizes = [int(name.split("_")[1]) if "_" in name else 0 for name in names]
    kernel = tensors.get(f"synthesis.{names[0]}.weight", torch.empty(0)).shape[-1:]
    radial = tensors.get(f"synthesis.{names[0]}.down_filter", torch.empty(0)).ndim == 2 or kernel == (1,)
    plain = Design(max(8, min(sizes[-1], MAX_PIXELS)), layers=len(names) - 1)
    margin = (sizes[0] - plain.bands()[2][0]) // 2
    design = Design(
        plain.resolution, layers=plain.layers, margin=margin, kernel=kernel[0] if kernel else 3, radial=radial
    )
    if design.sizes() != sizes:
        raise GeneratorError(
            f"StyleGAN3 weights of layers with {listed([str(size) for size in sizes])} pixels do not tell how these"
            " resample, and are not of the published design: give NVIDIA's pickle"
        )
    short = {f"synthesis.{ours}.": f"synthesis.{theirs}." for ours, theirs in zip(design.names(), names, strict=True)}
    fixed = {}
    for key, value in design.fixed().items():
        start = key[: key.rindex(".") + 1]
        fixed[short.get(start, start) + key[len(start) :]] = value
    return fixed | tensors


def expected_shapes(tensors: dict[str, Tensor], names: list[str]) -> dict[str, tuple[int, ...]]:
    """Return name -> shape of a generator whose sizes are read from the weights themselves."""

    def size(key: str, axis: int, otherwise: int = 0) -> int:
        return tensors[key].shape[axis] if key in tensors and tensors[key].ndim > axis else otherwise

    n_mlp = count_indices(tensors, r"mapping\.fc(\d+)\.", limit=63) + 1
    dim = size("synthesis.input.affine.weight", 1)
    shapes: dict[str, tuple[int, ...]] = {"mapping.w_avg": (dim,)}
    width = size("mapping.fc0.weight", 1)
    if "mapping.embed.weight" in tensors:
        shapes |= {"mapping.embed.weight": (dim, size("mapping.embed.weight", 1)), "mapping.embed.bias": (dim,)}
        width = 2 * dim
    elif width != dim:
        width = dim
    for i in range(n_mlp):
        out = dim if i + 1 == n_mlp else size(f"mapping.fc{i}.weight", 0)
        shapes |= {f"mapping.fc{i}.weight": (out, width), f"mapping.fc{i}.bias": (out,)}
        width = out
    channels = size("synthesis.input.weight", 0)
    shapes |= {
        "synthesis.input.weight": (channels, channels),
        "synthesis.input.affine.weight": (4, dim),
        "synthesis.input.affine.bias": (4,),
        "synthesis.input.transform": (3, 3),
        "synthesis.input.freqs": (channels, 2),
        "synthesis.input.phases": (channels,),
        "synthesis.input.geometry": (3,),
        "synthesis.output_scale": (),
        "synthesis.conv_clamp": (),
    }
    for i, name in enumerate(names):
        key, rgb = f"synthesis.{name}", i + 1 == len(names)
        out = 3 if rgb else size(f"{key}.weight", 0)
        kernel = 1 if rgb else size(f"{key}.weight", 2)
        shapes |= {
            f"{key}.weight": (out, channels, kernel, kernel),
            f"{key}.bias": (out,),
            f"{key}.affine.weight": (channels, dim),
            f"{key}.affine.bias": (channels,),
            f"{key}.magnitude_ema": (),
            f"{key}.geometry": (5,),
        }
        if not rgb:
            taps = size(f"{key}.down_filter", 0)
            square = tensors[f"{key}.down_filter"].ndim == 2 if f"{key}.down_filter" in tensors else False
            shapes[f"{key}.up_filter"] = (size(f"{key}.up_filter", 0),)
            shapes[f"{key}.down_filter"] = (taps, taps) if square else (taps,)
        channels = out
    return shapes


OPTIONAL = ("mapping.w_avg", "synthesis.input.transform", "synthesis.output_scale", "synthesis.conv_clamp")


def check_layout(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Check every key and shape, and put in what a file may leave out.

    Returns:
        The tensors as float32, and NVIDIA's names of the layers.

    Raises:
        GeneratorError: A report of all that is missing, unexpected or of a wrong shape.
    """
    tensors = with_design(tensors)
    names = layer_names(tensors)
    shapes = expected_shapes(tensors, names)
    check_table(f"StyleGAN3 weights ({len(names)} layers)", tensors, shapes, OPTIONAL, integers=True)
    _check_geometry(tensors, names)
    return {key: value.float() for key, value in tensors.items()}, names


def _check_geometry(tensors: dict[str, Tensor], names: list[str]) -> None:
    size, rate, band = (float(value) for value in tensors["synthesis.input.geometry"])
    whole = size == int(size) and 1 <= size <= MAX_PIXELS and 0 < band < rate / 2
    for name in names:
        up, down, low, high, out = (float(value) for value in tensors[f"synthesis.{name}.geometry"])
        weight = tensors[f"synthesis.{name}.weight"]
        taps = [
            tensors[key].shape[0] if (key := f"synthesis.{name}.{part}_filter") in tensors else 1
            for part in ("up", "down")
        ]
        whole &= all(value == int(value) and abs(value) <= MAX_PIXELS for value in (up, down, low, high, out))
        whole &= 1 <= down <= up <= 8 and up % down == 0 and max(taps) <= MAX_TAPS and weight.shape[-1] <= MAX_TAPS
        if not whole:
            break
        fine = (size + weight.shape[-1] - 1) * up + low + high - (taps[0] - 1) - (taps[1] - 1)
        whole &= 1 <= out <= MAX_PIXELS and out == (fine + down - 1) // down
        size = out
    if not whole:
        raise GeneratorError(f"StyleGAN3 weights: the geometry of {name} does not fit the layer before it")


def random_tensors(
    design: Design, *, n_mlp: int = 2, dim: int = 512, classes: int = 0, seed: int = 0
) -> dict[str, Tensor]:
    """Return seeded noise in the shape of real weights, for latency and parity work.

    Args:
        design: The shape of the synthesis network.
        n_mlp: Mapping layers.
        dim: D.
        classes: Of a class-conditional network; 0 for none.
        seed: Of a local random generator.
    """
    rng, channels = torch.Generator().manual_seed(seed), design.channels()
    fixed = design.fixed()

    def draw(*shape: int, mean: float = 0.0, std: float = 1.0) -> Tensor:
        return torch.randn(shape, generator=rng) * std + mean

    tensors: dict[str, Tensor] = {}
    if classes:
        tensors |= {"mapping.embed.weight": draw(dim, classes), "mapping.embed.bias": draw(dim, std=0.1)}
    for i in range(n_mlp):
        width = 2 * dim if classes and i == 0 else dim
        tensors[f"mapping.fc{i}.weight"] = draw(dim, width, std=100.0)
        tensors[f"mapping.fc{i}.bias"] = draw(dim, std=10.0)
    # As the network is made: frequencies inside the band, the direction of the input mostly left alone.
    band, width = design.bands()[0][0], channels[0]
    freqs = draw(width, 2)
    radius = freqs.norm(dim=1, keepdim=True)
    tensors |= {
        "synthesis.input.weight": draw(width, width),
        "synthesis.input.affine.weight": draw(4, dim, std=0.05),
        "synthesis.input.affine.bias": torch.tensor([1.0, 0.0, 0.0, 0.0]),
        "synthesis.input.freqs": freqs / (radius * (radius**2).exp() ** 0.25) * band,
        "synthesis.input.phases": torch.rand(width, generator=rng) - 0.5,
    }
    before = width
    for i, (name, after) in enumerate(zip(design.names(), channels, strict=True)):
        key, kernel = f"synthesis.{name}", 1 if i == design.layers else design.kernel
        tensors |= {
            f"{key}.weight": draw(after, before, kernel, kernel),
            f"{key}.bias": draw(after, std=0.1),
            f"{key}.affine.weight": draw(before, dim),
            f"{key}.affine.bias": draw(before, mean=1.0, std=0.1),
            f"{key}.magnitude_ema": torch.ones(()),
        }
        before = after
    return tensors | fixed
