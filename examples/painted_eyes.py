"""Eyes of painted portraits in eight colours, 128 x 128: a plug-in for a class-conditional DCGAN from PyPI (MIT).

    pip install --no-deps omniart-eye-generator==0.1
    latentclr check generator=examples/painted_eyes.py:eyes
    latentclr train generator=examples/painted_eyes.py:eyes k=16 model=nonlinear model.alpha='[-3.0,+3.0]' \
        hparams.batch_size=8 hparams.iterations=400 output_dir=outputs/eyes

The package saved its weights on a GPU and loads them when it is imported, which fails where there is none: while a
plug-in is called, `torch.load` puts such weights onto the CPU.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from latentclr.generators.base import LatentSpec

COLOURS = ("amber", "blue", "brown", "gray", "grayscale", "green", "hazel", "red")


class Eyes(nn.Module):
    """The package's network, which takes the colour as further numbers of its code."""

    latent = LatentSpec(dim=100)
    class_names = COLOURS

    def __init__(self, main: nn.Module, class_ids: list[int]) -> None:
        """Keep the layers `main.0` to `main.17`, and the colours that training draws from."""
        super().__init__()
        self.main, self.class_ids = main, class_ids

    def forward(self, z: Tensor, class_id: Tensor) -> Tensor:
        """Draw [N, 3, 128, 128] from z [N, 100] and class_id [N]."""
        code = torch.cat([z, F.one_hot(class_id, len(COLOURS)).to(z.dtype)], dim=1)  # [N, 108]
        image: Tensor = self.main(code[:, :, None, None])
        return image


def eyes(colours: list[str] = ["blue", "brown", "green"]) -> Eyes:  # noqa: B006 - a plain default, which --help shows
    """Return the generator; training draws from `colours`, pictures may have any."""
    from omniart_eye_generator.eye_generator import generator  # type: ignore[import-not-found]

    return Eyes(generator.main, [COLOURS.index(colour) for colour in colours])
