"""The origin's eight StyleGAN2 generators by name: their resolutions, where they come from, where they lie here."""

from __future__ import annotations

from pathlib import Path

from latentclr.errors import GeneratorError, nearest
from latentclr.generators.weights.cache import by_hand, cache_folder

# class -> (pixels, Google Drive id), from the origin's table of weights
CLASSES = {
    "ffhq": (1024, "1FJRwzAkV-XWbxgTwxEmEACvuqF5DsBiV"),
    "car": (512, "1iRoWclWVbDBAy5iXYZrQnKYSbZUqXI6y"),
    "cat": (256, "15vJP8GDr0FlRYpE8gD7CdeEz2mXrQMgN"),
    "church": (256, "1HFM694112b_im01JT7wop0faftw9ty5g"),
    "horse": (256, "18SkqWAkgt0fIwDEf2pqeaenNi4OoCo-0"),
    "bedrooms": (256, "1nZTW7mjazs-qPhkmbsOLLA_6qws-eNQu"),
    "kitchen": (256, "15dCpnZ1YLAnETAPB0FGmXwdBclbwMEkZ"),
    "places": (256, "1X8-wIH3aYKjgDZt4KMOtQzN1m4AlCVhm"),
}


def address_of(class_name: str) -> str:
    """Return where a browser gets the weights of a class.

    Raises:
        GeneratorError: There is no such class.
    """
    return f"https://drive.google.com/uc?export=download&id={_entry(class_name)[1]}"


def resolution_of(class_name: str) -> int:
    """Return the pixels of a class.

    Raises:
        GeneratorError: There is no such class.
    """
    return _entry(class_name)[0]


def find_weights(class_name: str) -> Path:
    """Return the weights file of a class in the cache.

    Raises:
        GeneratorError: There is no such class, or the file is not there; the message says how to get it.
    """
    address = address_of(class_name)
    path = cache_folder() / f"stylegan2-{class_name}" / f"{class_name}.pt"
    if not path.is_file():
        raise GeneratorError(
            f"StyleGAN2 weights for {class_name} are not here and come by hand:"
            f" {by_hand(f'stylegan2-{class_name}', address, path)}; generator.weights=PATH takes any other file,"
            " generator.weights=random makes noise for latency work"
        )
    return path


def _entry(class_name: str) -> tuple[int, str]:
    if class_name not in CLASSES:
        raise GeneratorError(
            f"generator.class_name must be one of {', '.join(CLASSES)}, got {class_name!r}"
            f"{nearest(class_name, CLASSES)}"
        )
    return CLASSES[class_name]
