"""What a YAML means: the config of a run, and the folders in which its parts are found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from dataio.recognition import AutoData
from dataio.scene import DataConfig
from dataio.selection.base import SelectionConfig
from dataio.selection.uniform import UniformSelection
from engine.cluster.faults import read_faults
from engine.renames import RENAMED
from models.capabilities import missing, offered, refuse
from models.losses.base import LossConfig
from models.model import ModelConfig
from models.optimizers.adam import AdamConfig
from models.optimizers.base import OptimizerConfig
from utils.config.loading import load_config
from utils.config.parts import Choice, StrictModel, discover
from utils.config.schema import COMPLETE, json_schema
from utils.config.text import DEVICE

KINDS_OF_PARTS = (
    "appearance", "backdrops", "bounds", "encodings", "fields", "inits", "losses", "opacities", "optimizers", "poses",
    "samplers", "shading",
)  # fmt: skip
for package in ("dataio.formats", "dataio.selection", *(f"models.{kind}" for kind in KINDS_OF_PARTS)):
    discover(package)  # a part is found by lying in its folder


MOST_RAYS = 1 << 24  # of a step
MOST_SAMPLES = 1 << 24  # of a step, which are counted in float32
SAMPLES_OF_A_RAY = 256  # until some were counted
USUAL_RAYS = 2048
INSTEAD = {"train": ("rays", "samples")}  # keys of a mapping of which the last one that is given counts


class TrainConfig(StrictModel):
    """How long, on how many rays, and what is written on the way."""

    steps: int = Field(20_000, ge=1, description="length of the run, unless `minutes` is given")
    minutes: float | None = Field(None, gt=0, description="length of the run in wall time; schedules follow it")
    samples: int | None = Field(
        None,
        ge=SAMPLES_OF_A_RAY,
        le=MOST_SAMPLES,
        description="samples that a step keeps, about, of all ranks together; instead of `rays`, which then follow",
    )
    rays: int | None = Field(
        None,
        ge=1,
        le=MOST_RAYS,
        validate_default=True,
        description=f"rays per step, of all ranks together; null: {USUAL_RAYS}, or what `samples` takes",
    )
    micro_batch: int | None = Field(
        None,
        ge=1,
        le=MOST_RAYS,
        description="rays whose graph is in memory at a time: gradients are accumulated. Null: all",
    )
    pixels: Choice[SelectionConfig] = UniformSelection()
    precision: Literal["float32", "mixed"] = Field(
        "float32", description="mixed: products of colors, NeRF and all gradients in bfloat16; distances never"
    )
    cuda_graph: bool = Field(
        True, description="on one GPU, record steps that wait for nothing and replay them as one launch"
    )
    threads: int = Field(0, ge=0, le=512, description="of the CPU, which share a step's rays; 0: as torch finds")
    validations: int = Field(5, ge=0, description="pictures of a held-out view, evenly spread over the run")
    log_every: int = Field(50, ge=1, description="steps between two lines of metrics.jsonl")
    checkpoint_every: int = Field(0, ge=0, description="steps between checkpoints; 0: by time")
    checkpoint_minutes: float = Field(5.0, gt=0)
    keep_checkpoints: int = Field(2, ge=1, description="the newest ones that stay")
    keep_every: int = Field(0, ge=0, description="checkpoints of multiples of so many steps stay too; 0: none")
    keep_best: bool = Field(False, description="save at each validation, and keep the one of the highest PSNR too")

    @property
    def patch_area(self) -> int:
        """Rays that stay together: the pixels of a patch, or 1."""
        return (self.pixels.patch or 1) ** 2

    @property
    def first_rays(self) -> int:
        """Rays of a run's first step."""
        area = self.patch_area
        return self.rays or (self.samples or 0) // (SAMPLES_OF_A_RAY * area) * area

    @field_validator("rays")
    @classmethod
    def _rays_or_samples(cls, rays: int | None, info: ValidationInfo) -> int | None:
        samples = info.data.get("samples")
        both = rays is not None and samples is not None
        refuse([f"is given beside train.samples (got {rays} and {samples}); expected one of them"] if both else [])
        return USUAL_RAYS if rays is None and samples is None else rays

    @model_validator(mode="after")
    def _patches_are_whole(self) -> TrainConfig:
        area = self.patch_area
        least = area * SAMPLES_OF_A_RAY
        few = self.samples is not None and self.samples < least
        refuse([f"train.samples should be at least {least}, those of a patch (got {self.samples})"] if few else [])
        counts = {"rays": self.rays or area, "micro_batch": self.micro_batch or area}
        refuse(
            f"train.{key} should be a multiple of {area}, the pixels of a patch (got {count})"
            for key, count in counts.items()
            if count % area
        )
        return self


class LogConfig(StrictModel):
    """Where a run is logged beside its own folder."""

    wandb: bool = Field(False, description="to Weights & Biases too; offline where there is no login")


class DistributedConfig(StrictModel):
    """Several processes, one run."""

    rays: Literal["run", "rank"] = Field(
        "run", description="whose rays and samples train counts: those of all ranks together, or of each"
    )
    timeout: float = Field(300.0, ge=1, le=86_400, description="seconds until a rank that hangs is taken for lost")
    meet_within: float = Field(40.0, ge=1, le=86_400, description="seconds for all ranks to come at the start")
    check_every: int = Field(100, ge=0, description="steps between comparisons of the ranks' parameters; 0: never")


class DebugConfig(StrictModel):
    """What is made to go wrong, to see that a run survives it."""

    faults: str = Field("", max_length=2000, description="KIND@STEP[:rank=R], as in kill@120:rank=1, nan_gradient@50")

    @field_validator("faults")
    @classmethod
    def _known(cls, text: str) -> str:
        read_faults(text)
        return text


class ExperimentConfig(StrictModel):
    """Everything a run is."""

    output: str | None = Field(None, description="run folder; default runs/CONFIG-DATA")
    seed: int = Field(0, ge=0)
    device: Annotated[str, DEVICE] = "auto"
    data: Choice[DataConfig] = AutoData()
    model: ModelConfig = Field(json_schema_extra={COMPLETE: ["neus_hash.yaml"]})
    losses: dict[str, Choice[LossConfig]] = Field(min_length=1, json_schema_extra={COMPLETE: ["neus_hash.yaml"]})
    teacher: str | None = Field(None, description="run folder of a trained model that losses may ask")
    optimizer: Choice[OptimizerConfig] = AdamConfig()
    train: TrainConfig = TrainConfig()
    log: LogConfig = LogConfig()
    distributed: DistributedConfig = DistributedConfig()
    debug: DebugConfig = DebugConfig()

    @model_validator(mode="after")
    def _losses_fit(self) -> ExperimentConfig:
        field = self.model.foreground.field
        found = {name: missing(loss.needs, offered(field)) for name, loss in self.losses.items()}
        gives = f"model.foreground.field gives {field.value_kind.gives}"
        refuse(f"losses.{name} needs {words}; {gives}" for name, words in found.items() if words)
        return self

    @model_validator(mode="after")
    def _patches_fit(self) -> ExperimentConfig:
        side = self.train.pixels.patch
        gives = f"patches of {side} x {side}" if side else "single pixels"
        refuse(
            f"losses.{name} needs patches of at least {least} x {least} pixels"
            f" (train.pixels: {{type: patches, side: {least}}}); train.pixels gives {gives}"
            for name, least in ((name, loss.data_needs.patch) for name, loss in self.losses.items())
            if least > (side or 1)
        )
        return self

    @model_validator(mode="after")
    def _views_are_where_they_were(self) -> ExperimentConfig:
        refuse(
            f"losses.{name} looks into other photographs where their cameras were given; expected model.poses: null"
            for name, loss in self.losses.items()
            if loss.data_needs.views and self.model.poses is not None
        )
        return self

    @model_validator(mode="after")
    def _teacher_is_there(self) -> ExperimentConfig:
        refuse(
            f"losses.{name} needs a teacher; expected teacher: RUN, the folder of a trained run on the same data"
            for name, loss in self.losses.items()
            if loss.data_needs.teacher and self.teacher is None
        )
        return self


def read_config(path: str | Path, overrides: Sequence[str] = (), *, saved: bool = False) -> ExperimentConfig:
    """The validated config of a YAML file with dotted overrides. Raises InputError with every mistake in it.

    saved: the config is one that a run has saved, maybe of an earlier version, whose keys had other names.
    """
    return load_config(path, overrides, ExperimentConfig, renamed=RENAMED, instead=INSTEAD, saved=saved)


def schema_text() -> str:
    """The JSON schema of a config, of renderers, camera paths and protocols: what `make schema` writes to configs."""
    for package in ("models.rendering.renderers", "utils.paths.kinds", "engine.protocols"):
        discover(package)
    kinds = ["RendererConfig", "PathConfig", "ProtocolConfig"]
    return json.dumps(json_schema(ExperimentConfig, kinds), indent=1) + "\n"
