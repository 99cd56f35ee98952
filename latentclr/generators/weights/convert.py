"""Rewriting weights as safetensors: any supported file of StyleGAN2, StyleGAN3 or R3GAN, checked and in float32."""

from __future__ import annotations

from pathlib import Path

import torch

from latentclr.errors import GeneratorError
from latentclr.generators.weights.files import load_tensors
from latentclr.generators.weights.modules import generator_of
from latentclr.generators.weights.safe_pickle import load_pickle
from latentclr.plain_save import save_safetensors


def convert_weights(source: Path, target: Path) -> None:
    """Rewrite any supported weights file as safetensors, checked, in float32 and with the average w.

    Raises:
        GeneratorError: `source` holds no generator of these families, or `target` is not `.safetensors`.
        SaveError: `target` could not be written.
    """
    if target.suffix != ".safetensors":
        raise GeneratorError(f"converted weights are written as .safetensors, got {target.name}")
    family, tensors = _family_of(source), {}
    if family == "stylegan3":
        from latentclr.generators.stylegan3 import layout, stylegan3, weights

        tensors = layout.with_design(weights.read_tensors(source))
        tensors["mapping.w_avg"] = stylegan3.StyleGAN3(tensors).w_avg
    elif family == "r3gan":
        from latentclr.generators.r3gan import r3gan

        tensors = r3gan.read_tensors(source)
        r3gan.R3GAN(tensors)
    else:
        from latentclr.generators.stylegan2 import stylegan2
        from latentclr.generators.stylegan2 import weights as stylegan2_weights

        tensors = stylegan2_weights.read_tensors(source)
        tensors["latent_avg"] = stylegan2.StyleGAN2(tensors).latent_avg
    # Cloned, because safetensors refuses tensors that share memory, and a `torch.save` file may hold such.
    tensors = {key: value.to(torch.float32).contiguous().clone() for key, value in tensors.items()}
    save_safetensors(target, tensors)


def _family_of(source: Path) -> str | None:
    if source.suffix in (".pkl", ".pickle"):
        return generator_of(load_pickle(source), source).family()
    try:
        names = load_tensors(source)
    except GeneratorError:  # such as a training snapshot, which only StyleGAN2's reader opens
        return None
    if any(name.startswith("synthesis.L0_") for name in names):
        return "stylegan3"
    return "r3gan" if any(name.removeprefix("Model.").startswith("MainLayers.") for name in names) else None
