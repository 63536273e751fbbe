"""What a pre-training run is: one complete recipe, read from one YAML file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from skysense.config import Config
from skysense.models.encoder import Schedule
from skysense.models.readout import ReadoutConfig
from skysense.pretrain.views import ViewConfig
from skysense.sensors import MODALITIES, Modality

AtLeastTwo = Annotated[int, Field(ge=2)]
"""A number of samples that something can be fitted on."""


_FITTED_ON = 4000
"""Samples of a modality for a read-out, where nothing else is asked for."""


def _paper_dates() -> dict[Modality, int]:
    """Dates of a sample in SkySense [paper]."""
    return {"s2": 20, "s1": 10}


class DataConfig(Config):
    """Which samples, and how many a step."""

    shards: tuple[Path, ...] = Field(min_length=1)
    """Folders written by `skysense shards build`; their samples are mixed."""
    batch_size: int = Field(default=64, ge=1)
    """Samples of a step over all ranks and accumulated parts."""
    accumulate: int = Field(default=1, ge=1)
    """Parts that a step's batch is computed in, one after the other; 1 for all at once."""
    workers: int = Field(default=0, ge=0)
    """Reading processes of each rank; 0 for a thread that reads ahead."""
    max_dates: dict[Modality, int] = Field(default_factory=_paper_dates)
    """Dates read at most, drawn anew each epoch. 20 and 10 in SkySense [paper]."""
    modalities: tuple[Modality, ...] = MODALITIES
    """Modalities that are read; each must occur in some sample."""

    @field_validator("shards", mode="before")
    @classmethod
    def _one_folder(cls, value: object) -> object:
        """One folder stands for a list of it."""
        return [value] if isinstance(value, str | Path) else value


class HeadConfig(Config):
    """Projection heads: MLP, unit bottleneck, cosine to learned codes. Source: DINO [paper]."""

    codes: int = Field(default=4096, ge=2)
    """K of the image level."""
    dense_codes: int = Field(default=1024, ge=2)
    """K of the pixel, object and query levels."""
    hidden: int = Field(default=1024, ge=1)
    """Hidden width."""
    bottleneck: int = Field(default=256, ge=1)
    """Width in which features are compared with codes."""
    layers: int = Field(default=3, ge=1)
    """Linear maps of the MLP."""
    standard: bool = True
    """Give the bottleneck's channels mean 0 and spread 1 over the rows of a term [ours]."""


class LossConfig(Config):
    """Weights of the losses, and what each needs. A weight of 0 costs nothing.

    Source: docs/sources.md 14: total = MGCL + ITA + QSACL, alignment as in V1 [paper]; the sizes
    of the weights are [ours].
    """

    image: float = Field(default=1.0, ge=0)
    """MGCL, image level."""
    pixel: float = Field(default=0.5, ge=0)
    """MGCL, pixel level."""
    object: float = Field(default=0.5, ge=0)
    """MGCL, object level."""
    alignment: float = Field(default=0.5, ge=0)
    """Cross-modal alignment."""
    qsacl: float = Field(default=0.5, ge=0)
    """Query-based semantic aggregation."""
    text: float = Field(default=0.0, ge=0)
    """Dense image-text alignment; needs class names in the shards."""
    koleo: float = Field(default=0.0, ge=0)
    """KoLeo spread of image vectors [ours]."""
    instance: float = Field(default=0.0, ge=0)
    """Instance discrimination on means and spreads of every level: SimCLR, with no teacher [ours
    here]."""
    variance: float = Field(default=0.0, ge=0)
    """Least spread of the means of every level and of the fused map: VICReg's term [ours here]."""
    masked: float = Field(default=0.0, ge=0)
    """Hidden pixels of the first global view: SimMIM, a baseline for the others. Alone, it looks
    at no other view and needs no teacher."""
    load_balance: float = Field(default=0.01, ge=0)
    """Even use of experts, of models that have them [ours]."""
    streams: tuple[Literal["modality", "fused"], ...] = ("modality", "fused")
    """Which features MGCL contrasts: each modality's, and the fused ones."""
    targets: Literal["sinkhorn", "centering"] = "sinkhorn"
    """How the teacher's logits become targets."""
    student_temperature: float = Field(default=0.1, gt=0)
    """Of the student's softmax."""
    instance_temperature: float = Field(default=0.1, gt=0)
    """Of the instance level's softmax."""
    least_spread: float = Field(default=0.5, gt=0)
    """Standard deviation over images that the variance term asks of each channel."""
    teacher_temperature: tuple[float, float] = (0.04, 0.07)
    """Of the targets, first and last value of the warm-up."""
    teacher_temperature_steps: int = Field(default=0, ge=0)
    """Length of that warm-up."""
    pixels: int = Field(default=16, ge=1)
    """Places of a view that the pixel level and the alignment draw at most."""
    groups: int = Field(default=4, ge=1, le=8)
    """Groups of the object level."""
    queries: int = Field(default=16, ge=1)
    """m of QSACL. 16 in the paper."""
    query_locals: int = Field(default=1, ge=1)
    """Local views that QSACL's teacher looks at."""
    masked_block: int = Field(default=8, ge=1)
    """Side in pixels of the blocks that are hidden; a multiple of the model's patch. SimMIM hides
    blocks of 32 of 192 pixels [paper]."""
    masked_share: float = Field(default=0.6, gt=0, lt=1)
    """Share of the blocks that is hidden. 0.6 in SimMIM [paper]."""
    text_embeddings: Path | None = None
    """A .npz with `names` and `vectors`; `None` for the sentence encoder of the `text` extra."""
    geo_momentum: float = Field(default=0.99, ge=0, le=1)
    """m of the geo-context prototypes, of models that have them."""

    def weights(self) -> dict[str, float]:
        """Weight of each loss that needs no experts."""
        taught = ("image", "pixel", "object", "alignment", "qsacl")
        names = (*taught, "text", "koleo", "instance", "variance", "masked")
        return {name: getattr(self, name) for name in names}

    @property
    def taught(self) -> bool:
        """Whether some loss asks a teacher."""
        weights = (self.image, self.pixel, self.object, self.alignment, self.qsacl)
        return any(weights)

    @property
    def masked_alone(self) -> bool:
        """Whether no other loss looks at the views: no teacher, no second view, no fusion."""
        return [name for name, weight in self.weights().items() if weight] == ["masked"]


class OptimizerConfig(Config):
    """AdamW and its schedules. Defaults: the paper's, where it says them [paper]."""

    lr: float = Field(default=2e-4, gt=0)
    """Peak of the learning rate."""
    min_lr: float = Field(default=1e-6, ge=0)
    """Where the cosine ends."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps of linear warm-up."""
    weight_decay: tuple[float, float] = (0.04, 0.4)
    """First and last value of a cosine; of matrices alone. Source: DINO [paper]."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of AdamW."""
    clip: float = Field(default=3.0, ge=0)
    """Largest gradient norm; 0 for none."""


class TeacherConfig(Config):
    """The EMA copy."""

    momentum: tuple[float, float] = (0.996, 1.0)
    """First and last value of a cosine. Source: DINO [paper]."""


class FittedReadout(ReadoutConfig):
    """The read-out that the exported model gets."""

    samples: AtLeastTwo | dict[Modality, AtLeastTwo] = _FITTED_ON
    """Samples of each modality that it is fitted on, at most; without augmentation or labels. Of a
    modality that is not named: 4000."""

    def samples_of(self, key: Modality) -> int:
        """Samples of a modality."""
        return self.samples.get(key, _FITTED_ON) if isinstance(self.samples, dict) else self.samples


class KnnConfig(Config):
    """The running kNN score on labelled images that are not trained on."""

    data: Path
    """A labelled set, as `skysense evaluate` reads it: the neighbours."""
    test: Path | None = None
    """Another to score; `None` to split `data`."""
    sensor: str = "rgb8"
    """Sensor card of its images."""
    every: int = Field(default=200, ge=1)
    """Steps between scores; one is made before the first step and after the last."""
    images: int = Field(default=1000, ge=2)
    """Images at most on either side, drawn evenly from the classes."""
    neighbors: int = Field(default=20, ge=1)
    """k."""


class Recipe(Config):
    """A whole pre-training run."""

    output: Path
    """Folder of the run: checkpoints, metrics, the trained model, the report."""
    model: str
    """A name of `skysense.list_models()`."""
    model_changes: dict[str, Any] = Field(default_factory=dict)
    """Fields of its configuration to change."""
    start_from: Path | None = None
    """A saved model whose weights are the start; `None` for fresh ones."""
    schedule: dict[Modality, Schedule] = Field(default_factory=dict)
    """Merging schedules in place of the model's own, by modality."""
    data: DataConfig
    """Samples."""
    views: ViewConfig = Field(default_factory=ViewConfig)
    """Crops and their augmentation."""
    heads: HeadConfig = Field(default_factory=HeadConfig)
    """Projection heads."""
    losses: LossConfig = Field(default_factory=LossConfig)
    """Objective."""
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    """Optimizer."""
    teacher: TeacherConfig = Field(default_factory=TeacherConfig)
    """Teacher."""
    knn: KnnConfig | None = None
    """Running score; `None` for none."""
    readout: FittedReadout | None = None
    """The read-out of the exported model; `None` for none."""
    steps: int = Field(ge=1)
    """Optimizer steps."""
    seed: int = Field(default=0, ge=0)
    """Of weights, order, views and dates."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of matrix products; other than float32 on GPUs alone."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """How more than one rank share the work."""
    activation_checkpointing: bool = False
    """Compute blocks again in the backward pass instead of keeping what they made."""
    compile: bool = False
    """Compile the blocks of the model."""
    save_every: int = Field(default=500, ge=1)
    """Steps between checkpoints; one is made at the end."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """How many are kept."""
    log_every: int = Field(default=10, ge=1)
    """Steps between lines of metrics."""
    tensorboard: bool = False
    """Write TensorBoard events too; needs the `track` extra."""
    report: bool = True
    """Write `report.html` at the end; needs the `plots` extra."""

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        if self.data.batch_size % self.data.accumulate:
            raise ValueError(
                f"`data.accumulate` {self.data.accumulate} does not divide `data.batch_size` "
                f"{self.data.batch_size}"
            )
        if self.optimizer.warmup_steps >= self.steps:
            raise ValueError(
                f"`optimizer.warmup_steps` {self.optimizer.warmup_steps} leaves nothing of "
                f"{self.steps} `steps`"
            )
        views = self.views.global_count + self.views.local_count
        if self.losses.taught and self.views.global_count < 2:
            raise ValueError("`views.global_count` must be at least 2: a view is its own target")
        if self.losses.instance and views < 2:
            raise ValueError("`losses.instance` compares views: draw at least 2")
        losses = self.losses
        if losses.image + losses.pixel + losses.object and not losses.streams:
            raise ValueError("`losses.streams` is empty: name `modality`, `fused` or both")
        if not any(losses.weights().values()):
            raise ValueError("every weight of `losses` is 0: there is nothing to learn from")
        local = self.views.local_count
        if self.losses.qsacl and self.losses.query_locals > local:
            raise ValueError(
                f"`losses.query_locals` is {self.losses.query_locals}, but there are {local} "
                "local views; QSACL contrasts global with local views"
            )
        self._check_blocks()
        return self

    def _check_blocks(self) -> None:
        """Refuse blocks that leave nothing to see, or nothing to hide."""
        for key in self.data.modalities if self.losses.masked else ():
            size = self.views.modality(key).global_size
            if self.losses.masked_block >= size:
                raise ValueError(
                    f"`losses.masked_block` is {self.losses.masked_block} pixels, and so are the "
                    f"{size} of `views.{key}.global_size` one block: choose smaller blocks"
                )

    @property
    def drawn_views(self) -> ViewConfig:
        """The views that the losses look at: of all, or the first one for the masked loss alone."""
        if not self.losses.masked_alone:
            return self.views
        return self.views.model_copy(update={"global_count": 1, "local_count": 0})

    def model_facts(self) -> Mapping[str, object]:
        """What two runs must share for one to go on from the other's checkpoint."""
        return {
            "model": self.model,
            "model_changes": self.model_changes,
            "heads": self.heads.model_dump(mode="json"),
            "queries": self.losses.queries if self.losses.qsacl else 0,
            "losses": [name for name, weight in self.losses.weights().items() if weight],
            "streams": self.losses.streams,
            "targets": self.losses.targets,
        }
