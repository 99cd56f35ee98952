"""The encoder beside a published editor: from photos to codes, and an ensemble that edits a photo in one request.

The ensemble asks the editor twice, edited and unedited. Triton's ensembles know no constants, so the encoder's graph
answers with them too: an edit of direction 0 at strength zero. It also answers with its code twice, see
`serving.contract.tensors.CODE`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.editor import FusedEditor
from export.engines import BACKENDS, Graphs
from export.errors import ExportError
from export.onnx import OPSET, OnnxEditor, split_weights, write_onnx
from export.openvino import OpenVINOEditor, export_openvino
from export.parity import Arrays, Engine, batches, run_eager, why_not
from export.torchscript import TorchScriptEditor, write_torchscript
from latentclr.files import sha256_of
from latentclr.inversion.augment import augment
from latentclr.inversion.encoder import ENCODER_FILE, Encoder, SavedEncoder, load_encoder
from latentclr.pictures.pixels import to_uint8
from latentclr.progress import progress_bar
from latentclr.training.rng import stream
from serving.contract.certificate import GATES, Certificate, Comparison, Gate
from serving.contract.golden import GOLDEN_FILE, LARGEST_PICTURES
from serving.contract.golden_photos import CODES_APART, GoldenPhotos, photos_identity_of, write_golden_photos
from serving.contract.layout import ENGINES, WEIGHTS_FILE
from serving.contract.manifest import EncoderInfo, encoder_entry
from serving.contract.tensors import PICTURE, encoder_outputs

PICTURES = 64  # of the certificate, half of them changed as photos are
GOLDEN_PHOTOS = 12  # of these
CertifiedPhotos = tuple[NDArray[np.uint8], NDArray[np.int64] | None]


class ServedEncoder(nn.Module):
    """An encoder as it is served: pictures in; codes, and the edit that leaves their pictures as they are, out."""

    def __init__(self, encoder: Encoder) -> None:
        """Take an encoder in inference mode."""
        super().__init__()
        self.encoder = encoder.eval()
        self.nothing: Tensor
        self.register_buffer("nothing", torch.zeros(1, 1, encoder.spec.layers))

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Find the codes of N pictures.

        Args:
            picture: [N, H, W, 3] uint8 RGB.

        Returns:
            Codes [N, D], or [N, L, D] of w+; zero_direction [N, 1] int64; zero_alpha [N, 1, L] float32; the codes
            again.
        """
        code = self.encoder(picture)
        # Zeros that follow the batch in every graph; a code is finite, whatever the picture, since its pixels are.
        first = code.flatten(1)[:, :1]  # [N, 1]
        zero = first * 0.0
        # A sum, and not the same tensor: an engine may give two outputs that are one the same name.
        again = code + (zero[:, :, None] if code.ndim == 3 else zero)
        return code, zero.long(), first[:, :, None] * self.nothing, again

    def example_inputs(self, n: int = 3) -> tuple[Tensor]:
        """Return pictures to trace it with."""
        height, width = self.encoder.spec.height, self.encoder.spec.width
        return (torch.randint(0, 256, (n, height, width, 3), generator=stream(0, "example"), dtype=torch.uint8),)


def read_encoder(folder: Path, editor_generator: Any) -> SavedEncoder:
    """Read a run's encoder and check that it is of its generator.

    Raises:
        LatentCLRError: There is none, or it is another generator's.
    """
    saved = load_encoder(folder / ENCODER_FILE)
    saved.check_generator(editor_generator)
    return saved


def export_encoder(saved: SavedEncoder, names: Sequence[str], folder: Path, opset: int = OPSET) -> Graphs:
    """Write an encoder for each engine, and load what was written.

    Args:
        saved: The encoder, on the CPU.
        names: Of the engines.
        folder: Where to write; made.
        opset: ONNX operator set.

    Raises:
        ExportError: A graph cannot be made or loaded.
    """
    folder.mkdir()
    module, outputs = ServedEncoder(saved.encoder), encoder_outputs(saved.encoder.spec.space)
    made = Graphs({BACKENDS[name]: folder / ENGINES[BACKENDS[name]].file for name in names})
    onnx = folder / ENGINES["onnxruntime"].file
    if {"onnxruntime", "openvino"} & {*names}:
        rows = {PICTURE: {0: torch.export.Dim("N", min=1)}}
        write_onnx(module, module.example_inputs(), rows, outputs, onnx, opset)
    if "onnxruntime" in names:
        if split_weights(onnx, folder / WEIGHTS_FILE):
            made.weights.append(folder / WEIGHTS_FILE)
        made.engines["onnxruntime"] = OnnxEditor(onnx, outputs=outputs[:2])
    if "openvino" in names:
        export_openvino(onnx, made.files["openvino"])
        made.weights.append(made.files["openvino"].with_suffix(".bin"))
        made.engines["openvino"] = OpenVINOEditor(made.files["openvino"], outputs=outputs[:2])
    if "torchscript" in names:
        write_torchscript(module, module.example_inputs(), made.files["pytorch"])
        made.engines["torchscript"] = TorchScriptEditor(made.files["pytorch"])
    made.engines = {name: made.engines[name] for name in names}
    return made


def check_encoder(
    editor: FusedEditor, saved: SavedEncoder, engines: Mapping[str, Any], photos: CertifiedPhotos
) -> list[Certificate]:
    """Certify an encoder's graphs: their codes, and the pictures that the eager editor draws of these.

    Args:
        editor: The eager editor, which takes the encoder's codes.
        saved: The encoder.
        engines: name -> function of pictures.
        photos: See `certified_photos`.

    Raises:
        ExportError: A graph's codes or pictures differ by more than `CODES_APART` or one step.
    """
    seen, classes = photos
    comparisons = {name: Comparison() for name in engines}
    with progress_bar(len(seen), "image", desc="parity of the encoder", delay=2) as bar:
        for rows in batches(list(range(len(seen)))):
            with torch.no_grad():
                codes = saved.encoder(torch.from_numpy(seen[rows])).numpy()
            expected = _drawn(editor, codes, classes, rows)
            for name, engine in engines.items():
                found = _ran(name, engine, seen[rows], codes)
                apart = float((np.abs(found - codes) / saved.encoder.scale.numpy()).max())
                if not apart <= CODES_APART:
                    raise ExportError(
                        f"parity failed, nothing is published: {name}: codes of the encoder differ by {apart:.2g}"
                        f" standard deviations, at most {CODES_APART:g} are allowed"
                    )
                comparisons[name].add(expected, _drawn(editor, found, classes, rows), [[] for _ in expected])
            bar.update(len(expected))
    certificates = []
    for name, comparison in comparisons.items():
        certificate = comparison.certificate(name, "fp32", GATES["exact"])
        if not certificate.passed:
            raise ExportError(
                f"parity failed, nothing is published: encoder, {certificate}: {why_not(comparison, GATES['exact'])}"
            )
        certificates.append(certificate)
    return certificates


def encoder_manifest(
    name: str, manifest: Mapping[str, Any], made: Graphs, golden: Path, certificates: Sequence[Certificate]
) -> dict[str, Any]:
    """Describe an encoder as plain data: the editor's manifest, with its own files and certificates.

    Args:
        name: The editor's.
        manifest: The editor's.
        made: The encoder's graphs.
        golden: Its golden photos.
        certificates: Their proof.
    """
    own = {key: value for key, value in manifest.items() if key not in ("preview", "encoder", "edits")}
    files = {path.name: sha256_of(path) for path in (*made.all_files, golden)}
    parity = {certificate.engine: certificate.as_dict() for certificate in certificates}
    return {**own, "edits": {}, "precision": "fp32", "files_sha256": files, "parity": parity, "encoder_of": name}


def encoder_info(saved: SavedEncoder, files: Mapping[str, str]) -> dict[str, Any]:
    """Return what the editor's manifest says of its encoder."""
    figures = dict(saved.figures)
    return encoder_entry(EncoderInfo(saved.encoder.spec.space, saved.sha256, files, saved.face, figures))


def save_golden_photos(
    folder: Path,
    editor: FusedEditor,
    saved: SavedEncoder,
    manifest: Mapping[str, Any],
    photos: CertifiedPhotos,
    engines: Mapping[str, Engine],
    gate: Gate,
) -> Path:
    """Write some of the certificate's pictures, what eager PyTorch finds in them and draws of it, to `golden.npz`.

    Args:
        folder: Where to.
        editor: As `check_encoder`.
        saved: The encoder.
        manifest: The editor's, as plain data.
        photos: Of the certificate.
        engines: Of the editor, which hold the gate for pictures of other codes.
        gate: Of these engines.

    Returns:
        The file.

    Raises:
        ExportError: An engine draws one of these codes outside the gate, so that no server could be certified.
    """
    seen, classes = photos
    half = max(1, min(GOLDEN_PHOTOS, LARGEST_PICTURES // (2 * seen[0].nbytes)) // 2)
    rows = [*range(half), *range(len(seen) // 2, len(seen) // 2 + half)]
    with torch.no_grad():
        codes = saved.encoder(torch.from_numpy(seen[rows])).numpy()
    images = _drawn(editor, codes, classes, rows)
    for name, engine in engines.items():
        comparison = Comparison()
        comparison.add(images, engine(*_unedited(editor, codes, classes, rows))[0], [[] for _ in rows])
        if missed := gate.misses(comparison.measured()):
            raise ExportError(
                f"{name} draws golden photos outside {gate.name}, nothing is published: {', '.join(missed)}"
            )
    about = photos_identity_of(manifest, saved.sha256)
    golden = GoldenPhotos(
        pictures=seen[rows],
        codes=codes,
        scale=saved.encoder.scale.numpy(),
        class_id=None if classes is None else classes[rows],
        images=images,
        about=about,
    )
    write_golden_photos(folder / GOLDEN_FILE, golden)
    return folder / GOLDEN_FILE


def certified_photos(editor: FusedEditor, count: int = PICTURES) -> CertifiedPhotos:
    """Return the pictures [count, H, W, 3] that encoders are certified on, and their classes if there are any.

    Half of them are the generator's own, of held-out codes; the others are changed as photos are.
    """
    generator, rng = editor.generator, stream(0, "encoder-parity")
    z = generator.sample(count, rng)
    names = generator.class_names
    classes = None if names is None else torch.randint(len(names), (count,), generator=rng)
    with torch.no_grad():
        p = generator.encode(z, classes)
        images = torch.cat([
            generator.synthesize(p[i : i + 1, None].expand(-1, generator.latent.layers, -1), _row(classes, i)).float()
            for i in range(count)
        ])  # fmt: skip
    images = images.clamp(-1, 1)
    seen = torch.cat([images[: count // 2], augment(images[count // 2 :], rng, 1.0)])
    return to_uint8(seen).numpy(), None if classes is None else classes.numpy()


def _row(classes: Tensor | None, row: int) -> Tensor | None:
    return None if classes is None else classes[row : row + 1]


def _drawn(
    editor: FusedEditor, codes: NDArray[np.float32], classes: NDArray[np.int64] | None, rows: list[int]
) -> NDArray[np.uint8]:
    images: NDArray[np.uint8] = run_eager(editor, *_unedited(editor, codes, classes, rows))[0]
    return images


def _unedited(
    editor: FusedEditor, codes: NDArray[np.float32], classes: NDArray[np.int64] | None, rows: list[int]
) -> Arrays:
    """Return the editor's inputs for codes [N, ...] without an edit."""
    n, layers = len(codes), editor.generator.latent.layers
    nothing = np.zeros((n, 0), np.int64), np.zeros((n, 0, layers), np.float32)
    return (codes, *nothing, *([] if classes is None else [classes[rows]]))


def _ran(name: str, engine: Callable[..., Any], pictures: NDArray[np.uint8], codes: NDArray[np.float32]) -> Any:
    try:
        found, zeros = engine(pictures)[:2]
    except Exception as error:  # each engine has its own
        reason = " ".join(str(error).split())[:300]
        raise ExportError(
            f"parity failed, nothing is published: {name} cannot encode {len(pictures)} pictures: {reason}"
        ) from error
    if found.shape != codes.shape or zeros.any():
        raise ExportError(f"{name}: got codes {found.shape}, expected {codes.shape}, and a zero edit")
    return found
