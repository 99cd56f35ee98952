"""What the API takes and gives, with bounds. FastAPI checks it and writes the OpenAPI document from it.

Numbers are strict: a string is no number and true is not 1. Whether a direction or a layer exists is the served
model's matter, which `service` checks; that is an error 400, while a request that breaks these types is a 422.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from serving.contract.latents import SEEDS
from serving.contract.named_edit import NAME_LENGTH, check_name
from serving.studio.names import NOTE_LENGTH

ALPHA_LIMIT = 1000.0


def _whole(value: Any) -> Any:
    """Read 7.0 as 7: JSON does not tell them apart."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _kind(value: Any) -> str:
    """Tell an edit by name from one by index, so that a mistake is explained in the terms that were meant."""
    by_name = "name" in value if isinstance(value, dict) else isinstance(value, NamedTarget)
    return "name" if by_name else "direction"


WHOLE = BeforeValidator(_whole)  # stands last, so that the bounds stay in the document
Seed = Annotated[int, Field(ge=0, lt=SEEDS, description="The picture to edit; what numpy's RandomState takes."), WHOLE]
Index = Annotated[int, Field(ge=0, lt=100_000), WHOLE]
Alpha = Annotated[float, Field(ge=-ALPHA_LIMIT, le=ALPHA_LIMIT, allow_inf_nan=False)]
Layers = Annotated[
    list[Index], Field(max_length=64, description="Latent inputs to act at; the model's own if not given.")
]
ClassId = Annotated[
    int, Field(ge=0, lt=1_000_000, description="For conditional generators; else their default."), WHOLE
]
PhotoKey = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
Name = Annotated[str, Field(min_length=1, max_length=NAME_LENGTH), AfterValidator(check_name)]


class Checked(BaseModel):
    """Base of everything a client sends."""

    model_config = ConfigDict(extra="forbid", strict=True)


class DirectionTarget(Checked):
    """A direction by its index."""

    direction: Index
    layers: Layers | None = None


class NamedTarget(Checked):
    """A named edit, which brings its own layers; `layers` can only narrow them."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    layers: Layers | None = None


class DirectionEdit(DirectionTarget):
    """A direction and its strength."""

    alpha: Alpha


class NamedEdit(NamedTarget):
    """A named edit and its strength."""

    alpha: Alpha


Target = Annotated[
    Annotated[DirectionTarget, Tag("direction")] | Annotated[NamedTarget, Tag("name")], Discriminator(_kind)
]
Edit = Annotated[Annotated[DirectionEdit, Tag("direction")] | Annotated[NamedEdit, Tag("name")], Discriminator(_kind)]
Edits = Annotated[list[Edit], Field(max_length=32, description="Applied together.")]


class Picture(Checked):
    """How a picture is written."""

    quality: Annotated[int, Field(ge=1, le=100, description="For jpeg and webp."), WHOLE] = 90
    scale: Annotated[int, Field(ge=1, le=8, description="Enlarge each side this many times."), WHOLE] = 1


_OF_SEED: dict[str, JsonValue] = {
    "required": ["seed"],
    "not": {"required": ["photo"]},
    "properties": {"keep": {"const": False}},
}
_OF_PHOTO: dict[str, JsonValue] = {"required": ["photo"], "not": {"required": ["seed"]}}


class SubjectRequest(Checked):
    """What is edited: a seed, or a photo that the studio was given."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [_OF_SEED, _OF_PHOTO]})

    seed: Seed | SkipJsonSchema[None] = None
    photo: Annotated[PhotoKey | SkipJsonSchema[None], Field(description="A name that `POST /api/photos` gave.")] = None
    keep: Annotated[bool, Field(description="Of a photo: draw only what the edits change.")] = False
    class_id: ClassId | None = None

    @model_validator(mode="after")
    def _one(self) -> SubjectRequest:
        if (self.seed is None) == (self.photo is None):
            raise ValueError("give either a seed or a photo")
        if self.keep and self.photo is None:
            raise ValueError("keep needs a photo")
        return self


class ImageRequest(SubjectRequest, Picture):
    """One picture."""

    edits: Edits = []
    paste: Annotated[bool, Field(description="Of a photo: put the picture back into it.")] = False
    format: Literal["png", "jpeg", "webp"] = "png"


class GalleryRequest(Picture):
    """Several seeds, side by side."""

    seeds: Annotated[list[Seed], Field(min_length=1, max_length=32)]
    edits: Edits = []
    class_id: ClassId | None = None
    format: Literal["png", "jpeg", "webp"] = "png"


class SweepRequest(SubjectRequest, Picture):
    """One seed or photo at several strengths of one edit, side by side or as an animation (gif)."""

    walk: Target
    alphas: Annotated[list[Alpha], Field(min_length=1, max_length=33)]
    edits: Annotated[list[Edit], Field(max_length=31, description="Other edits, which stay as they are.")] = []
    format: Literal["png", "jpeg", "webp", "gif"] = "png"
    labels: Annotated[bool, Field(description="Write each strength above its picture (not in gif).")] = False


class ThumbnailsRequest(SubjectRequest):
    """One seed or photo with each of several edits alone, side by side and small."""

    edits: Annotated[list[Edit], Field(min_length=1, max_length=32, description="One for each picture.")]
    side: Annotated[int, Field(ge=16, le=256, description="The most pixels of a side."), WHOLE] = 128
    format: Literal["png", "jpeg", "webp"] = "png"
    quality: Annotated[int, Field(ge=1, le=100, description="For jpeg and webp."), WHOLE] = 90


class SaveRequest(Checked):
    """An edit to be kept under a name."""

    direction: Index
    layers: Layers = []
    alpha: Annotated[list[Alpha], Field(min_length=2, max_length=2, description="Range of its slider: [low, high].")]
    note: Annotated[str, Field(max_length=NOTE_LENGTH)] = ""
    reverse: Annotated[bool, Field(description="Whether + of the name goes against the direction.")] = False
    move: Annotated[bool, Field(description="Also if the name means something else now.")] = False


class SignIn(Checked):
    """The token that `latentclr studio --token` was started with."""

    token: Annotated[str, Field(min_length=1, max_length=500)]


class NamedInfo(BaseModel):
    """A named edit; `source` tells whether it came with the model or from the run's catalog.

    `alpha` is the range of its slider, in the name's own sense: with `reverse`, + goes against the direction.
    """

    name: str
    direction: int
    layers: list[int]
    alpha: list[float]
    note: str
    reverse: bool
    source: Literal["model", "catalog"]
    removable: bool


class PhotoInfo(BaseModel):
    """A photo that the studio holds."""

    photo: Annotated[str, Field(description="Its name in requests.")]
    width: Annotated[int, Field(description="In pixels, upright.")]
    height: int
    how: Annotated[Literal["face", "centre"], Field(description="Whether a face was found, or the middle was taken.")]
    psnr: Annotated[float | None, Field(description="How near its unedited picture is, in dB; null if not known.")]
    refined: Annotated[int, Field(description="Steps of refinement so far.")]
    refinable: Annotated[bool, Field(description="Whether its code is small enough to be refined here.")]


class ClassInfo(BaseModel):
    """A class of a conditional generator."""

    id: int
    name: str


class Effect(BaseModel):
    """What a direction does to an attribute, in standard deviations of that attribute."""

    attribute: str
    effect: float


class DirectionInfo(BaseModel):
    """What `latentclr score` found of a direction.

    The range in which its pictures are still the generator's, another direction that does the same and is to be kept
    instead, what it might be called, and its largest effects.
    """

    range: list[float]
    twin_of: int | None
    name: str
    top: list[Effect]


class ModelInfo(BaseModel):
    """Everything the page has to know of the served model."""

    name: str
    generator: str
    resolution: Annotated[int, Field(description="Height of a picture in pixels.")]
    width: int
    preview: Annotated[int | None, Field(description="Height of a preview in pixels; null if there is none.")]
    seeds: Annotated[bool, Field(description="Whether it takes seeds: not if it takes w, which a photo has.")]
    photos: Annotated[bool, Field(description="Whether it takes photos.")]
    random_weights: bool
    weights_sha256: str
    directions: int
    layers: int
    default_layers: Annotated[list[int], Field(description="Where directions act if nothing is said; empty for all.")]
    alpha_range: list[float]
    scores: Annotated[list[DirectionInfo], Field(description="Of each direction; empty if the run was not scored.")]
    class_count: int
    default_class: ClassInfo | None
    edits: list[NamedInfo]
    names_writable: bool
    names_note: str
    problems: list[str]


class Health(BaseModel):
    """Whether the model can be asked."""

    ready: bool
    message: str


class Code(BaseModel):
    """Code that makes a picture again."""

    python: str
    curl: str


class Failure(BaseModel):
    """What went wrong: a word for programs, a line for people, and the field, if one is to blame."""

    code: str
    message: str
    where: str
    places: Annotated[list[list[float]], Field(description="Middles of the faces to choose from, in shares.")]


class FailureBody(BaseModel):
    """The body of every answer that is not a success."""

    error: Failure
