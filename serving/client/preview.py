"""Which model draws previews: the one that was published together with the full model, and no other.

A server may still have the preview of an older version, or not have the newer one yet; its directions would be others.
"""

from __future__ import annotations

from serving.contract.layout import preview_of
from serving.contract.manifest import Manifest
from serving.errors import NoPreview


def has_preview(full: Manifest) -> bool:
    """Whether a model was published with a preview."""
    return full.preview is not None


def is_preview_of(preview: Manifest, full: Manifest) -> bool:
    """Whether a model is the preview that was published with this full model."""
    return full.preview is not None and preview.files_sha256 == full.preview.files_sha256


def check_has_preview(full: Manifest, model: str) -> None:
    """Check that a model was published with a preview.

    Args:
        full: The full model's manifest.
        model: Its name.

    Raises:
        NoPreview: It was not.
    """
    if not has_preview(full):
        raise NoPreview(f"model {model!r} has no preview: `latentclr export --preview PIXELS` publishes one with it")


def check_preview(preview: Manifest, full: Manifest, model: str) -> None:
    """Check that what is served under the preview's name is the full model's preview.

    Args:
        preview: The manifest of what is served under the preview's name.
        full: The full model's manifest.
        model: The full model's name.

    Raises:
        NoPreview: It is not.
    """
    check_has_preview(full, model)
    if not is_preview_of(preview, full):
        raise not_served(model, f"{preview_of(model)} is of another version; see `latentclr doctor`")


def not_served(model: str, reason: str) -> NoPreview:
    """Say that the preview that a model was published with cannot be had.

    Args:
        model: The full model's name.
        reason: What was found instead.
    """
    return NoPreview(f"the preview of {model!r} is not served: {reason}")
