"""Models that are published together with an editor, its preview and its encoder: which of those served are its own.

A server may still have the preview or the encoder of an older version, or not have the newer one yet; its directions or
codes would be others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from serving.contract.layout import encoder_of, preview_of
from serving.contract.manifest import EncoderInfo, Manifest, Preview
from serving.errors import NoEncoder, NoPreview, ServingError


@dataclass(frozen=True)
class Beside:
    """A kind of model beside an editor.

    Attributes:
        what: What it is called.
        called: The name of an editor's.
        told: What an editor's manifest says of it; None if it was published without.
        missing: What is said of an editor without one, after its name.
        error: What is raised where it cannot be had.
    """

    what: str
    called: Callable[[str], str]
    told: Callable[[Manifest], Preview | EncoderInfo | None]
    missing: str
    error: type[ServingError]

    def had_by(self, full: Manifest) -> bool:
        """Whether an editor was published with one."""
        return self.told(full) is not None

    def is_of(self, its: Manifest, full: Manifest) -> bool:
        """Whether a model is the one that was published with this editor."""
        told = self.told(full)
        return told is not None and its.files_sha256 == told.files_sha256

    def check_had(self, full: Manifest, model: str) -> None:
        """Check that an editor was published with one.

        Args:
            full: The editor's manifest.
            model: Its name.

        Raises:
            ServingError: It was not; of the kind's own class.
        """
        if not self.had_by(full):
            raise self.error(f"model {model!r} has no {self.missing} publishes one with it")

    def check(self, its: Manifest, full: Manifest, model: str) -> None:
        """Check that what is served under its name is the editor's.

        Args:
            its: The manifest of what is served under its name.
            full: The editor's manifest.
            model: The editor's name.

        Raises:
            ServingError: It is not; of the kind's own class.
        """
        self.check_had(full, model)
        if not self.is_of(its, full):
            raise self.not_served(model, f"{self.called(model)} is of another version; see `latentclr doctor`")

    def not_served(self, model: str, reason: str) -> ServingError:
        """Say that the one that an editor was published with cannot be had.

        Args:
            model: The editor's name.
            reason: What was found instead.
        """
        return self.error(f"the {self.what} of {model!r} is not served: {reason}")


PREVIEW = Beside(
    "preview", preview_of, lambda full: full.preview, "preview: `latentclr export --preview PIXELS`", NoPreview
)
ENCODER = Beside(
    "encoder",
    encoder_of,
    lambda full: full.encoder,
    "encoder, so it cannot edit photos: `latentclr export --with-encoder`",
    NoEncoder,
)
