"""The settings of a training job: a validated job file with its defaults filled in.

A value of None is inferred from the data.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from model_store.tables.options import TableOptions
from model_store.tables.table_file import LongRows
from training.config.defaults import OPTIMIZER_DEFAULTS
from training.config.search_space import SearchSpace


def is_image_folder(path: str | None) -> bool:
    """Return True if a path of a job file is a folder of images."""
    return path is not None and path.endswith("/")


@dataclass(frozen=True)
class ModelSection:
    name: str
    description: str = ""
    examples: str = "synthetic"


@dataclass(frozen=True)
class ImageSection:
    """How the files of a folder of images become pixels: `size` is (height, width)."""

    size: list[int] = field(default_factory=lambda: [32, 32])
    colour: str = "rgb"
    crop: str = "center"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an image: (height, width) in grey, (height, width, 3) in RGB."""
        return (*self.size, 3) if self.colour == "rgb" else tuple(self.size)


@dataclass(frozen=True)
class DataSection(TableOptions):
    """What is read, and how; `TableOptions` says how a table file is written.

    A `path` that ends in "/" is a folder of images, and `image` is then not None.
    """

    path: str | None = None
    images: str | None = None
    labels: str | None = None
    target: str | list[str] | None = None
    task: str | None = None
    label_separator: str | None = None
    label_threshold: float | None = None
    columns: list[str] | None = None
    kinds: dict[str, str] = field(default_factory=dict)
    missing: str = "impute"
    long_rows: LongRows = "refuse"
    indicators: bool = False
    optional: str | list[str] | None = None
    unknown: str = "bucket"
    scale: str = "standard"
    asinh: str | list[str] | None = None
    target_transform: str | None = None
    weight: str | None = None
    stream: bool | None = None
    image: ImageSection | None = None

    def __post_init__(self) -> None:
        if is_image_folder(self.path) and self.image is None:
            object.__setattr__(self, "image", ImageSection())

    @property
    def optional_names(self) -> list[str]:
        """The inputs that are listed as optional."""
        return self.optional if isinstance(self.optional, list) else []

    @property
    def asinh_names(self) -> list[str]:
        """The inputs that are listed to be scaled by their asinh."""
        return self.asinh if isinstance(self.asinh, list) else []

    def is_optional(self, name: str) -> bool:
        """Return True if requests may leave out an input although no row lacks it."""
        return self.optional == "all" or name in self.optional_names


@dataclass(frozen=True)
class SplitSection:
    """How rows are held out. With a `test_file`, its rows are the test rows, and `test` is 0."""

    test: float = 0.2
    validation: float = 0.1
    by: str | None = None
    column: str | None = None
    stratify: bool | None = None
    test_file: str | None = None
    calibration: float | None = None

    def __post_init__(self) -> None:
        if self.test_file is not None:
            object.__setattr__(self, "test", 0.0)


@dataclass(frozen=True)
class NetworkSection:
    layers: list[int | str | dict[str, Any]] = field(default_factory=list)
    output: str | None = None
    initializer: str | None = None
    parametrization: str | None = None
    clip_outputs: bool | None = None
    dtype: str = "float32"


@dataclass(frozen=True)
class EarlyStoppingSection:
    patience: int = 20
    min_delta: float = 0.0
    metric: str | None = None


@dataclass(frozen=True)
class AugmentSection:
    """How training images are changed at random: `shift` is the largest share of a side, `rotate` is in degrees."""

    flip: str | None = None
    shift: float = 0.0
    rotate: float = 0.0


@dataclass(frozen=True)
class ScheduleSection:
    """A learning-rate schedule with its keys; `warm_up` applies to every schedule."""

    name: str
    warm_up: float | None = None
    epochs: int | None = None
    decay: float | None = None
    min_factor: float | None = None
    rise_fraction: float | None = None
    initial_factor: float | None = None
    final_factor: float | None = None
    patience: int | None = None
    threshold: float | None = None
    cooldown: int | None = None


@dataclass(frozen=True)
class TrainSection:
    """How the network is trained. Keys that are left out get the optimizer's defaults."""

    loss: str | None = None
    quantile: float | None = None
    label_smoothing: float | None = None
    class_weights: str | dict[str, float] | None = None
    optimizer: str = "sgd"
    learning_rate: float = None  # type: ignore[assignment]  # __post_init__ fills in the optimizer's default
    momentum: float | None = None
    nesterov: bool | None = None
    beta1: float | None = None
    beta2: float | None = None
    smoothing: float | None = None
    epsilon: float | None = None
    weight_decay: float | None = None
    rate_factors: dict[str, float] | None = None
    decay_factors: dict[str, float] | None = None
    clip_norm: float | None = None
    clip_value: float | None = None
    schedule: ScheduleSection | None = None
    regularization_schedule: ScheduleSection | None = None
    ensemble: int | None = None
    epochs: int = 100
    batch_size: int | str = 32
    seed: int = 0
    threads: int = 1
    reduce: str | None = None
    early_stopping: EarlyStoppingSection | None = None
    augment: AugmentSection | None = None

    def __post_init__(self) -> None:
        for key, value in OPTIMIZER_DEFAULTS[self.optimizer].items():
            if getattr(self, key) is None:
                object.__setattr__(self, key, value)


@dataclass(frozen=True)
class AnswersSection:
    """What is fitted on held-out rows after the training, for the answers of the model."""

    temperature: bool = True
    threshold: float | str | dict[str, Any] | None = None


@dataclass(frozen=True)
class PublishSection:
    alias: str | None = None


@dataclass(frozen=True)
class SearchSection:
    """What `train sweep` searches, and how long."""

    trials: int = 50
    timeout: float | None = None  # seconds
    metric: str | None = None
    pruning: str = "median"
    folds: int | None = None
    space: SearchSpace = field(default_factory=SearchSpace)


@dataclass(frozen=True)
class JobSettings:
    """All sections of a job file that decide what is trained; `search` is None without one."""

    model: ModelSection
    data: DataSection
    split: SplitSection = field(default_factory=SplitSection)
    network: NetworkSection = field(default_factory=NetworkSection)
    train: TrainSection = field(default_factory=TrainSection)
    answers: AnswersSection = field(default_factory=AnswersSection)
    publish: PublishSection = field(default_factory=PublishSection)
    search: SearchSection | None = None

    @property
    def extra_columns(self) -> dict[str, str]:
        """The columns that are read besides inputs and targets, by the keys that name them."""
        named = {"split.column": self.split.column, "data.weight": self.data.weight}
        return {key: name for key, name in named.items() if name is not None}

    def as_dict(self) -> dict[str, Any]:
        """Return the sections as in a job file, without values of None, and without `[search]`."""
        sections = asdict(replace(self, search=None))
        return {name: _without_none(section) for name, section in sections.items() if section is not None}


def _without_none(section: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in section.items()
        if value is not None
    }
