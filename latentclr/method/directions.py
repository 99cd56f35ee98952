"""Direction models: K directions d_k(p) of unit length, as stacked weights [K, ...].

LatentCLR (arXiv 2104.00820), section 3.2: global directions are K free vectors; linear and nonlinear ones are
K networks of the latent code. An edit is p + alpha * d_k(p). Directions that other methods compute (`closed_form` and
its neighbours) are K vectors too, and differ from global ones in nothing but where they came from.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentclr.config import FIXED_VECTORS

BATCH_NORM_EPS = 1e-5
BATCH_NORM_MOMENTUM = 0.1
SMALLEST_ALPHA = 0.05  # of the range's larger end


class Directions(nn.Module, ABC):
    """K directions over codes of size D.

    Attributes:
        k: K.
        dim: D.
        kind: The model's name: `global`, `linear`, `nonlinear`, or the method that computed K vectors.
        normalize: Whether directions have unit length.
    """

    kind: str
    per_direction_alpha = True

    def __init__(self, k: int, dim: int, normalize: bool = True) -> None:
        super().__init__()
        self.k, self.dim, self.normalize = k, dim, normalize

    def forward(self, p: Tensor) -> Tensor:
        """Return all directions at all codes: p [B, D] -> [K, B, D]."""
        return self._unit(self._all(p))

    def select(self, p: Tensor, direction: Tensor) -> Tensor:
        """Return chosen directions: p [N, D], direction [N, M] int64 in [0, K) -> [N, M, D].

        Gathers only the chosen weights, so the cost does not grow with K. Uses running batch-norm statistics.
        """
        return self._unit(self._chosen(p, direction))

    def _unit(self, d: Tensor) -> Tensor:
        return F.normalize(d, dim=-1, eps=1e-12) if self.normalize else d

    @abstractmethod
    def _all(self, p: Tensor) -> Tensor: ...

    @abstractmethod
    def _chosen(self, p: Tensor, direction: Tensor) -> Tensor: ...


class GlobalDirections(Directions):
    """K free vectors, the same for every code."""

    kind = "global"
    per_direction_alpha = False

    def __init__(self, k: int, dim: int, rng: torch.Generator, normalize: bool = True) -> None:
        """Draw K x D standard normal parameters."""
        super().__init__(k, dim, normalize)
        self.params = nn.Parameter(torch.randn(k, dim, generator=rng))

    def _all(self, p: Tensor) -> Tensor:
        return self.params[:, None].expand(self.k, p.shape[0], self.dim)

    def _chosen(self, p: Tensor, direction: Tensor) -> Tensor:
        return self.params[direction]


class MLPDirections(Directions):
    """K networks Linear, then (BatchNorm, ReLU, Linear) x (depth - 1), evaluated as batched matrix products.

    As in the origin, the last Linear has no bias when depth > 1, and the one Linear of depth 1 always has one.
    """

    def __init__(
        self, k: int, dim: int, depth: int, rng: torch.Generator, normalize: bool = True, orient: bool = False
    ) -> None:
        """Initialise every network like `torch.nn.Linear`: uniform in +-1/sqrt(D).

        With `orient` the model in inference mode turns a direction that points against its axis (see `set_axes`).
        """
        super().__init__(k, dim, normalize)
        self.depth, self.orient = depth, orient
        if orient:
            self.register_buffer("axes", torch.zeros(k, dim))  # which turn nothing
        self.kind = "linear" if depth == 1 else "nonlinear"
        bound = dim**-0.5
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        self.gains, self.shifts = nn.ParameterList(), nn.ParameterList()
        for i in range(depth):
            self.weights.append(nn.Parameter(torch.empty(k, dim, dim).uniform_(-bound, bound, generator=rng)))
            if i + 1 < depth or depth == 1:
                self.biases.append(nn.Parameter(torch.empty(k, dim).uniform_(-bound, bound, generator=rng)))
            if i + 1 < depth:
                self.gains.append(nn.Parameter(torch.ones(k, dim)))
                self.shifts.append(nn.Parameter(torch.zeros(k, dim)))
                self.register_buffer(f"mean_{i}", torch.zeros(k, dim))
                self.register_buffer(f"var_{i}", torch.ones(k, dim))

    @torch.no_grad()
    def set_axes(self, p: Tensor) -> None:
        """Find for each direction the axis along which it lies, to tell its two senses apart by.

        A loss that compares without sign leaves d(p) free to point one way at one code and the other way at the next.
        Most so the linear model: d(p) = W p + b with W p far larger than b, and p as likely as -p. But W p has a
        leading axis, and the sign along it is that of the change in the features at 95 to 100 of 100 codes (of the
        faces). The axis is the leading singular vector of d at the given codes, in the sense in which d points on
        average.

        Args:
            p: Codes [B, D].
        """
        if not self.orient:
            return
        training, axes = self.training, self.get_buffer("axes")
        self.eval()
        axes.zero_()
        d = self(p)  # [K, B, D]
        self.train(training)
        leading = torch.linalg.eigh((d.transpose(1, 2) @ d).double()).eigenvectors[..., -1]  # [K, D]
        sense = torch.einsum("kbd,kd->k", d.double(), leading)
        axes.copy_(leading * torch.where(sense < 0, -1.0, 1.0)[:, None])

    def _turned(self, d: Tensor, axes: Tensor) -> Tensor:
        return torch.where((d * axes).sum(dim=-1, keepdim=True) < 0, -d, d)

    def _all(self, p: Tensor) -> Tensor:
        d = self._network(p)
        return self._turned(d, self.get_buffer("axes")[:, None]) if self.orient and not self.training else d

    def _network(self, p: Tensor) -> Tensor:
        x = p.expand(self.k, *p.shape)  # [K, B, D]
        for i, weight in enumerate(self.weights):
            x = x @ weight.transpose(1, 2)
            if i < len(self.biases):
                x = x + self.biases[i][:, None]
            if i + 1 < self.depth:
                x = torch.relu(self._batch_norm(x, i))
        return x

    def _batch_norm(self, x: Tensor, i: int) -> Tensor:
        k, b, d = x.shape
        flat = x.transpose(0, 1).reshape(b, k * d)  # statistics over B, for each direction and unit on its own
        flat = F.batch_norm(
            flat,
            self.get_buffer(f"mean_{i}").view(-1),
            self.get_buffer(f"var_{i}").view(-1),
            self.gains[i].view(-1),
            self.shifts[i].view(-1),
            self.training,
            BATCH_NORM_MOMENTUM,
            BATCH_NORM_EPS,
        )
        return flat.view(b, k, d).transpose(0, 1)

    def _chosen(self, p: Tensor, direction: Tensor) -> Tensor:
        x = p[:, None].expand(-1, direction.shape[1], -1)  # [N, M, D]
        for i, weight in enumerate(self.weights):
            x = (weight[direction] @ x[..., None])[..., 0]  # [N, M, D, D] @ [N, M, D, 1]
            if i < len(self.biases):
                x = x + self.biases[i][direction]
            if i + 1 < self.depth:
                scale, shift = self._folded_norm(i)
                x = torch.relu(x * scale[direction] + shift[direction])
        return self._turned(x, self.get_buffer("axes")[direction]) if self.orient else x

    def _folded_norm(self, i: int) -> tuple[Tensor, Tensor]:
        scale = self.gains[i] * torch.rsqrt(self.get_buffer(f"var_{i}") + BATCH_NORM_EPS)
        return scale, self.shifts[i] - self.get_buffer(f"mean_{i}") * scale


def build_directions(
    kind: str,
    k: int,
    dim: int,
    rng: torch.Generator,
    depth: int = 1,
    normalize: bool = True,
    orient: bool = False,
) -> Directions:
    """Make a direction model of `kind` `global` (or another of vectors), `linear` (depth 1) or `nonlinear`."""
    model: Directions
    if kind in FIXED_VECTORS:
        model = GlobalDirections(k, dim, rng, normalize)
    else:
        model = MLPDirections(k, dim, 1 if kind == "linear" else depth, rng, normalize, orient)
    model.kind = kind
    return model


def draw_alpha(alpha: float | Sequence[float], k: int, per_direction: bool, rng: torch.Generator) -> Tensor:
    """Draw the strengths of one step.

    The origin draws from the whole range; near zero an edit changes nothing, and the loss would compare
    normalised rounding noise. The band within 5 % of the range's larger end around zero is therefore left out.

    Args:
        alpha: A fixed strength, or a (low, high) range to draw from uniformly.
        k: K.
        per_direction: One draw for each direction (conditional models), else one for all.
        rng: A CPU random generator.

    Returns:
        [K].
    """
    if isinstance(alpha, int | float):
        return torch.full((k,), float(alpha))
    low, high = alpha
    gap = SMALLEST_ALPHA * max(abs(low), abs(high))
    below, above = (low, min(high, -gap)), (max(low, gap), high)
    length_below, length_above = max(below[1] - below[0], 0.0), max(above[1] - above[0], 0.0)
    u = torch.rand(k if per_direction else 1, generator=rng) * (length_below + length_above)
    drawn = torch.where(u < length_below, below[0] + u, above[0] + u - length_below)
    return drawn.expand(k)
