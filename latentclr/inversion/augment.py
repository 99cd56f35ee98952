"""What happens to a picture before it is a photo: shifts, turns, blur, noise, colours, JPEG.

An encoder sees the generator's own pictures only. Photos are framed, lit and stored otherwise, so a part of what it is
trained on is changed in these ways while the code that it is to find stays the same (the robust training of arXiv
2010.00352 and 2102.02766 in spirit; the changes are our own choice).
"""

from __future__ import annotations

import io
import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from latentclr.pictures.pixels import to_uint8
from serving.contract.photo.reader import read_photo

CHANGED = 0.6
"""Share of the pictures that are changed at all; the others teach what the generator draws exactly."""
_SHIFT, _SCALE, _TURN = 0.06, 0.12, 8.0  # shares of the picture, share, degrees
_BLUR, _NOISE = 1.5, 0.08  # standard deviations: 64ths of the side, and of values in [-1, 1]
_LIGHT, _CONTRAST, _COLOUR, _SATURATION = 0.2, 0.25, 0.08, 0.5
_JPEG = (25, 90)  # quality


def augment(images: Tensor, rng: torch.Generator, changed: float = CHANGED) -> Tensor:
    """Change a part of the pictures at random, each in its own way, and leave the others as they are.

    Args:
        images: [N, 3, H, W] in [-1, 1].
        rng: Where the random numbers come from, on the CPU.
        changed: Share of the pictures that are changed, in [0, 1].

    Returns:
        [N, 3, H, W] in [-1, 1].
    """
    rows = torch.nonzero(torch.rand(len(images), generator=rng) < changed).flatten().to(images.device)
    if not len(rows):
        return images
    some = _colours(_noise(_blur(_moved(images[rows], rng), rng), rng), rng).clamp(-1, 1)
    some = _jpeg(some, rng)
    result = images.clone()
    result[rows] = some
    return result


def _moved(images: Tensor, rng: torch.Generator) -> Tensor:
    """Shift, scale and turn each picture a little; what comes in at the sides repeats the border."""
    n, _, height, width = images.shape
    scale = torch.exp(_uniform((n,), _SCALE, rng))
    angle = _uniform((n,), math.radians(_TURN), rng)
    cos, sin, aspect = scale * torch.cos(angle), scale * torch.sin(angle), width / height
    shift = 2 * _uniform((n, 2), _SHIFT, rng)
    maps = torch.stack(
        [torch.stack([cos, -sin / aspect, shift[:, 0]], 1), torch.stack([sin * aspect, cos, shift[:, 1]], 1)], 1
    )  # [N, 2, 3]
    grid = F.affine_grid(maps.to(images), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _blur(images: Tensor, rng: torch.Generator) -> Tensor:
    """Blur half of the pictures, all by the same Gaussian: one convolution each way."""
    sigma = float(torch.rand((), generator=rng)) * _BLUR * min(images.shape[2:]) / 64
    radius = min(math.ceil(2 * sigma), min(images.shape[2:]) - 1)
    if radius < 1:
        return images
    at = torch.arange(-radius, radius + 1, dtype=torch.float32)
    taps = torch.exp(-(at**2) / (2 * sigma**2)).to(images)
    taps = (taps / taps.sum()).expand(3, 1, -1)
    padded = F.pad(images, (radius, radius, radius, radius), mode="replicate")
    blurred = F.conv2d(F.conv2d(padded, taps[:, :, None], groups=3), taps[..., None], groups=3)
    chosen = _chosen(len(images), 0.5, rng).to(images)[:, None, None, None]
    return images + chosen * (blurred - images)


def _noise(images: Tensor, rng: torch.Generator) -> Tensor:
    strength = torch.rand(len(images), 1, 1, 1, generator=rng) * _NOISE
    strength *= _chosen(len(images), 0.5, rng)[:, None, None, None]
    return images + (strength * torch.randn(images.shape, generator=rng)).to(images)


def _colours(images: Tensor, rng: torch.Generator) -> Tensor:
    """Change light, contrast, colour and saturation of each picture."""
    n = len(images)
    contrast = torch.exp(_uniform((n, 1, 1, 1), _CONTRAST, rng)).to(images)
    light = (_uniform((n, 1, 1, 1), _LIGHT, rng) + _uniform((n, 3, 1, 1), _COLOUR, rng)).to(images)
    saturation = torch.exp(_uniform((n, 1, 1, 1), _SATURATION, rng)).to(images)
    grey = images.mean(1, keepdim=True)
    images = grey + saturation * (images - grey)
    middle = images.mean((1, 2, 3), keepdim=True)
    return middle + contrast * (images - middle) + light


def _jpeg(images: Tensor, rng: torch.Generator) -> Tensor:
    """Write half of the pictures as JPEG files and read them back."""
    chosen = torch.nonzero(_chosen(len(images), 0.5, rng)).flatten()
    quality = torch.randint(_JPEG[0], _JPEG[1] + 1, (len(images),), generator=rng).tolist()
    if not len(chosen):
        return images
    pixels, result = to_uint8(images[chosen.to(images.device)]).cpu().numpy(), images.clone()
    for row, picture in zip(chosen.tolist(), pixels, strict=True):
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=quality[row])
        read = read_photo(file.getvalue()).pixels.astype(np.float32).transpose(2, 0, 1) / 127.5 - 1
        result[row] = torch.from_numpy(read).to(images)
    return result


def _uniform(shape: tuple[int, ...], most: float, rng: torch.Generator) -> Tensor:
    return (torch.rand(shape, generator=rng) * 2 - 1) * most


def _chosen(count: int, share: float, rng: torch.Generator) -> Tensor:
    return (torch.rand(count, generator=rng) < share).float()
