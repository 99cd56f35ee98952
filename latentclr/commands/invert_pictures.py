"""`latentclr invert`: pictures to codes, with figures and a picture of how near they come."""

from __future__ import annotations

import io
import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from latentclr.compose import compose_run, parse_overrides
from latentclr.config import InvertConfig
from latentclr.errors import CheckpointError, ConfigError
from latentclr.files import write_together
from latentclr.generators.base import Generator
from latentclr.generators.registry import build_generator
from latentclr.inversion.encoder import ENCODER_FILE, SavedEncoder, load_encoder
from latentclr.inversion.objective import at_layers
from latentclr.inversion.refine import from_prior, refine
from latentclr.pictures.render import at_once, draw_codes, grid
from latentclr.progress import progress_bar
from latentclr.training.distributed import resolve_device
from serving.contract.certificate import picture_psnr, ssim
from serving.contract.photo.crop import Crop, centre_crop, cut_out
from serving.contract.photo.crop import paste as paste_back
from serving.contract.photo.faces import choose_crop
from serving.contract.photo.reader import Photo, read_photo

MOST_PICTURES = 1000
_TILE = 192  # pixels of a tile in the picture of all stages, at most
Pixels = NDArray[np.uint8]


@dataclass
class Stage:
    """What is known after a stage: `encoder`, or `refined`.

    Attributes:
        name: Which.
        seconds: That it took, for each picture alike.
        images: What is drawn of the codes, [N, H, W, 3].
        psnr: dB, against the crops; 100 for the same.
        ssim: Against the crops.
        from_prior: How far each code is from the prior's mean, in standard deviations; 1 is usual.
    """

    name: str
    seconds: float
    images: Pixels
    psnr: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    from_prior: list[float] = field(default_factory=list)


def run_invert(
    pictures: Sequence[Path],
    run: Path,
    output: Path,
    *,
    steps: int,
    align: str,
    face: int | None,
    class_id: int | None,
    paste: bool,
    device: str | None,
    words: Sequence[str],
) -> None:
    """Find the codes of pictures; write CODES.npy, CODES.json and CODES.png, all or none, and tell what was reached.

    Raises:
        LatentCLRError: There is no encoder, it is another generator's, an option is out of range, or a file that would
            be written is a picture that is read, is not `invert`'s own or is that of two pictures.
        ServingError: A picture cannot be read, or shows no face or several where one is wanted.
    """
    if output.suffix != ".npy":
        raise ConfigError(f"-o must name an .npy file, got {output}")
    if len(pictures) > MOST_PICTURES:
        raise ConfigError(f"at most {MOST_PICTURES} pictures at once, got {len(pictures)}")
    _check_targets(pictures, output, [_pasted(path, output) for path in pictures] if paste else [])
    folder = run if run.is_dir() else run.parent
    saved = load_encoder(folder / ENCODER_FILE)
    config, generator = opened(saved, [*words, *([] if device is None else [f"device={device}"])])
    place = resolve_device(config)
    generator = generator.to(place)
    saved.encoder.to(place)
    classes = classes_of(generator, class_id, len(pictures), place)
    photos, crops, hows = [], [], []
    template = None if saved.face is None else np.array(saved.face)
    for path in pictures:
        photo = read_photo(path)
        if align == "centre":
            crop, how = centre_crop(photo.size, generator.size), "centre"
        else:
            crop, how = choose_crop(photo, generator.size, template, face)
        photos.append(photo)
        crops.append(crop)
        hows.append(how)
    wanted = np.stack([cut_out(photo.pixels, crop) for photo, crop in zip(photos, crops, strict=True)])  # [N, H, W, 3]
    codes, stages = find_codes(generator, saved, wanted, classes, steps)
    entries = []
    for row, path in enumerate(pictures):
        told = "; ".join(
            f"{stage.name} {stage.psnr[row]:.2f} dB, SSIM {stage.ssim[row]:.3f}, {stage.from_prior[row]:.2f} sd from"
            " the mean"
            for stage in stages
        )
        click.echo(f"{path.name}: {hows[row]}; {told}")
        entries.append(_entry(path, photos[row], crops[row], hows[row], stages, row))
    seconds = ", ".join(f"{stage.name} {stage.seconds:.1f} s" for stage in stages)
    record = {
        "format": 1, "space": saved.encoder.spec.space, "weights_sha256": generator.weights_sha256,
        "encoder": saved.path.name, "steps": steps, "pictures": entries,
    }  # fmt: skip
    contents = {
        output: _npy(codes.cpu().numpy().astype(np.float32)),
        output.with_suffix(".json"): json.dumps(record, indent=1).encode(),
        output.with_suffix(".png"): _png(_sheet(pictures, wanted, stages)),
    }
    if paste:
        contents |= {
            _pasted(path, output): _png(Image.fromarray(paste_back(photo.pixels, crop, image)))
            for path, photo, crop, image in zip(pictures, photos, crops, stages[-1].images, strict=True)
        }
    write_together(contents)
    click.echo(f"wrote {', '.join(path.name for path in contents)} to {output.parent} ({seconds})")


def opened(saved: SavedEncoder, words: Sequence[str]) -> tuple[InvertConfig, Generator]:
    """Build the generator that an encoder was trained for, with overrides laid over its configuration.

    Raises:
        LatentCLRError: The encoder does not say how, or the weights are others.
    """
    settings = saved.training.get("config")
    if not isinstance(settings, dict):
        raise CheckpointError(f"{saved.path} does not say which generator it is of")
    config = compose_run(settings, parse_overrides(words), InvertConfig)
    generator = build_generator(config.generator)
    saved.check_generator(generator)
    return config, generator


def classes_of(generator: Generator, class_id: int | None, count: int, device: torch.device) -> Tensor | None:
    """Return the class of each of `count` pictures [N]: the given one, or the run's first; None without classes.

    Raises:
        ConfigError: There is no such class.
    """
    if generator.class_names is None:
        if class_id is not None:
            raise ConfigError(f"{generator.name} has no classes, got --class-id {class_id}")
        return None
    known = len(generator.class_names)
    chosen = (generator.class_ids[0] if generator.class_ids else 0) if class_id is None else class_id
    if chosen >= known:
        raise ConfigError(f"--class-id must be in [0, {known}), got {chosen}")
    return torch.full((count,), chosen, device=device)


def find_codes(
    generator: Generator, saved: SavedEncoder, wanted: Pixels, classes: Tensor | None, steps: int
) -> tuple[Tensor, list[Stage]]:
    """Encode pictures of the generator's size and, if asked for, refine their codes.

    Args:
        generator: On its device, as the encoder.
        saved: The encoder.
        wanted: [N, H, W, 3].
        classes: [N] of a conditional generator.
        steps: Of the refinement; 0 for none.

    Returns:
        Codes [N, D] or [N, L, D], and what was reached after each stage.
    """
    device, size = generator.device, at_once(generator)
    pixels = torch.from_numpy(wanted).to(device)
    parts = [slice(i, i + size) for i in range(0, len(pixels), size)]

    def stage(name: str, start: float, codes: Tensor) -> Stage:
        seconds = time.perf_counter() - start
        with torch.no_grad():
            reached = Stage(name, seconds, draw_codes(generator, at_layers(generator, codes), classes))
        judge(reached, wanted, saved, codes)
        return reached

    start = time.perf_counter()
    with torch.no_grad():
        codes = torch.cat([saved.encoder(pixels[part]) for part in parts])
    stages = [stage("encoder", start, codes)]
    if steps:
        start = time.perf_counter()
        images = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
        with progress_bar(steps * len(parts), "step", desc="refine", delay=2) as bar:

            def told(step: int, errors: Tensor) -> bool:
                decibel = -10 * torch.log10(errors.clamp_min(1e-10) / 4).mean()
                bar.set_postfix(dB=f"{float(decibel):.2f}", refresh=False)
                bar.update(bool(step))
                return True

            codes = torch.cat([
                refine(
                    generator, saved.encoder, images[part], codes[part], steps,
                    None if classes is None else classes[part], told,
                )
                for part in parts
            ])  # fmt: skip
        stages.append(stage("refined", start, codes))
    return codes, stages


def judge(stage: Stage, wanted: Pixels, saved: SavedEncoder, codes: Tensor) -> None:
    """Fill in how near a stage's pictures are to the wanted ones [N, H, W, 3], and its codes to the prior."""
    for one, other in zip(wanted, stage.images, strict=True):
        stage.psnr.append(picture_psnr(one, other))
        stage.ssim.append(ssim(one, other))
    stage.from_prior = from_prior(saved.encoder, codes).tolist()


def _pasted(picture: Path, output: Path) -> Path:
    return output.parent / f"{picture.stem}.pasted.png"


def _check_targets(pictures: Sequence[Path], output: Path, pasted: Sequence[Path]) -> None:
    """Refuse to write over a picture that is read, over what `invert` did not write, or one file twice."""
    files = {(status.st_dev, status.st_ino) for path in pictures if path.is_file() for status in [path.stat()]}
    beside = [output.with_suffix(suffix) for suffix in (".json", ".png")]
    targets = [output, *beside, *pasted]
    for path in targets:
        if path.is_file() and (path.stat().st_dev, path.stat().st_ino) in files:
            raise ConfigError(f"{path} is one of the pictures and would be overwritten: choose another -o")
    for path in [] if output.exists() else beside:  # the three are written together: without codes it is not ours
        if path.exists():
            raise ConfigError(f"{path} exists, and {output.name} does not: move it, or choose another -o")
    for path, times in Counter(targets).items():
        if times > 1:
            raise ConfigError(f"--paste would write {path} twice: rename a picture, or invert them one by one")


def _entry(path: Path, photo: Photo, crop: Crop, how: str, stages: Sequence[Stage], row: int) -> dict[str, Any]:
    reached = {
        stage.name: {
            "psnr_db": round(stage.psnr[row], 3), "ssim": round(stage.ssim[row], 4),
            "from_prior": round(stage.from_prior[row], 3), "seconds": round(stage.seconds, 2),
        }
        for stage in stages
    }  # fmt: skip
    return {"picture": path.name, "sha256": photo.sha256, "crop": crop.as_dict(), "how": how, "reached": reached}


def _sheet(pictures: Sequence[Path], wanted: Pixels, stages: Sequence[Stage]) -> Image.Image:
    """Put crops and what was drawn of their codes side by side, a row for each of the first pictures."""
    rows = min(len(pictures), 24)
    columns = [wanted[:rows], *(stage.images[:rows] for stage in stages)]
    table = np.stack(columns, axis=1)  # [R, C, H, W, 3]
    labels = [f"{path.name[:24]}" for path in pictures[:rows]]
    return grid(table, labels, ["picture", *(stage.name for stage in stages)], tile=_TILE)


def _npy(codes: NDArray[np.float32]) -> bytes:
    file = io.BytesIO()
    np.save(file, codes)
    return file.getvalue()


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
