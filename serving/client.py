"""A client for a served editor.

    with EditClient("127.0.0.1:8001") as client:
        client.edit(seed=7, edits={3: 4.0}).to_pil().save("edited.png")

It needs only the address: the model describes itself (see `serving.manifest`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from serving.connection import Connection
from serving.edits import Strength, check_latents, check_rows, edit_arrays, resolve_class
from serving.errors import InvalidEdit, RequestFailed
from serving.latents import draw_latents
from serving.manifest import Manifest

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Edited:
    """The pictures of one request.

    Attributes:
        images: RGB of shape [N, H, W, 3], uint8.
    """

    images: NDArray[np.uint8]

    def __len__(self) -> int:
        """Return the number of pictures N."""
        return len(self.images)

    @property
    def image(self) -> NDArray[np.uint8]:
        """The only picture, [H, W, 3].

        Raises:
            ValueError: There are several.
        """
        if len(self.images) != 1:
            raise ValueError(f"there are {len(self.images)} images, use .images")
        only: NDArray[np.uint8] = self.images[0]
        return only

    def pil(self) -> "list[Image]":
        """All pictures as PIL images."""
        from PIL import Image as pil

        return [pil.fromarray(image) for image in self.images]

    def to_pil(self) -> "Image":
        """The only picture as a PIL image.

        Raises:
            ValueError: There are several.
        """
        from PIL import Image as pil

        return pil.fromarray(self.image)


class EditClient:
    """Sends edits to one served editor over one gRPC connection, which threads may share."""

    def __init__(self, url: str = "127.0.0.1:8001", model: str = "latent_edit", timeout: float = 30.0) -> None:
        """Describe the connection; nothing is sent until it is used.

        Args:
            url: `host:port` of Triton's gRPC interface.
            model: Name of the served model.
            timeout: Seconds to wait for each answer.
        """
        self._connection = Connection(url, model, timeout)

    @property
    def manifest(self) -> Manifest:
        """What the model says about itself; asked for once.

        Raises:
            ServerUnavailable: No server answers.
            ModelUnavailable: The server has no such model, or it is not ready.
            ManifestError: The model has no manifest that this client understands.
        """
        return self._connection.describe().manifest

    def edit(
        self,
        seed: int | None = None,
        edits: Mapping[int | str, Strength] | None = None,
        *,
        z: ArrayLike | None = None,
        layers: Sequence[int] | None = None,
        class_id: int | None = None,
        class_name: str | None = None,
    ) -> Edited:
        """Apply edits, all together, to one seed or to each given code.

        Args:
            seed: The picture to edit, in [0, 2**32); or give `z`.
            edits: Strength (a number, or one for each of the L layers) by direction index or edit name. A named edit
                brings its own layers. Without edits, the unedited picture.
            z: Codes [N, D] or [D] instead of a seed.
            layers: Restrict every edit to these latent inputs.
            class_id: Class number, for conditional generators; their default if not given.
            class_name: The same by name.

        Returns:
            N pictures (one for a seed).

        Raises:
            InvalidEdit: Something is out of range; the message says what and which range.
            ServingError: The server cannot answer; see `manifest`.
        """
        manifest = self.manifest
        codes = self._codes(seed, z)  # [N, D]
        direction, alpha = edit_arrays(manifest, edits or {}, layers)  # [M], [M, L]
        rows = len(codes)
        number = resolve_class(manifest, class_id, class_name)
        return self.edit_rows(
            codes,
            np.broadcast_to(direction, (rows, *direction.shape)),
            np.broadcast_to(alpha, (rows, *alpha.shape)),
            None if number is None else np.full(rows, number),
        )

    def sweep(
        self,
        seed: int | None = None,
        direction: int | str = 0,
        alphas: Sequence[Strength] = (-6, -3, 0, 3, 6),
        *,
        z: ArrayLike | None = None,
        layers: Sequence[int] | None = None,
        class_id: int | None = None,
        class_name: str | None = None,
    ) -> Edited:
        """Walk along one direction, in one batched request.

        Args:
            seed: The picture to edit; or give `z`.
            direction: Direction index or edit name.
            alphas: The strengths, at least one.
            z: One code, [D] or [1, D], instead of a seed.
            layers: Restrict the edit to these latent inputs.
            class_id: Class number, for conditional generators.
            class_name: The same by name.

        Returns:
            One picture for each alpha, in order.

        Raises:
            InvalidEdit: Something is out of range.
            ServingError: The server cannot answer; see `manifest`.
        """
        manifest = self.manifest
        if len(alphas) == 0:
            raise InvalidEdit("alphas must hold at least one number")
        code = self._codes(seed, z)
        if len(code) != 1:
            raise InvalidEdit(f"a sweep takes one code, got {len(code)}")
        rows = [edit_arrays(manifest, {direction: alpha}, layers) for alpha in alphas]
        number = resolve_class(manifest, class_id, class_name)
        return self.edit_rows(
            np.repeat(code, len(rows), axis=0),
            np.stack([row[0] for row in rows]),  # [N, 1]
            np.stack([row[1] for row in rows]),  # [N, 1, L]
            None if number is None else np.full(len(rows), number),
        )

    def edit_rows(
        self, z: ArrayLike, direction: ArrayLike, alpha: ArrayLike, class_id: ArrayLike | None = None
    ) -> Edited:
        """Send rows as they are, in requests of at most the model's batch size.

        Args:
            z: Codes [N, D].
            direction: Direction indices [N, M].
            alpha: Strengths [N, M, L].
            class_id: Class numbers [N], for conditional generators only.

        Returns:
            N pictures.

        Raises:
            InvalidEdit: A shape is wrong or a row out of range; the message names the row.
            ServingError: The server cannot answer; see `manifest`.
        """
        description = self._connection.describe()
        arrays = check_rows(description.manifest, z, direction, alpha, class_id)
        rows = len(arrays["direction"])
        step = description.max_batch_size or rows
        parts = [self._send(arrays, start, min(start + step, rows)) for start in range(0, rows, step)]
        return Edited(np.concatenate(parts))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> "EditClient":
        """Return the client itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self.close()

    def _codes(self, seed: int | None, z: ArrayLike | None) -> NDArray[np.float32]:
        if (seed is None) == (z is None):
            raise InvalidEdit("give either a seed or z")
        if seed is not None:
            return draw_latents(self.manifest.latent, seed)
        assert z is not None
        return check_latents(self.manifest, z)

    def _send(self, arrays: Mapping[str, NDArray[Any]], start: int, stop: int) -> NDArray[np.uint8]:
        """Send rows [start, stop) and return their pictures [stop - start, H, W, 3]."""
        images, valid = self._connection.infer({name: array[start:stop] for name, array in arrays.items()})
        if images.ndim != 4 or len(images) != stop - start or valid.size != stop - start:
            raise RequestFailed(f"the server answered {stop - start} rows with images of shape {list(images.shape)}")
        refused = np.flatnonzero(~valid.reshape(-1))
        if len(refused):
            row = start + int(refused[0])
            count = self.manifest.directions.count
            raise InvalidEdit(
                f"row {row}: the server refused it; z and alpha must be finite and direction in [0, {count}), "
                f"got direction {arrays['direction'][row].tolist()} and alpha {arrays['alpha'][row].tolist()}"
            )
        return images
