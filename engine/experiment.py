"""What a YAML means: builds scene, rays, model and objective; opens a run folder. All scripts start here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator
from torch import Tensor

from dataio.cameras import Cameras
from dataio.georeference import Georeference
from dataio.scene import AutoData, DataConfig, Scene
from dataio.selection.base import SelectionConfig
from dataio.selection.uniform import UniformSelection
from dataio.shapes.hull import hull_of
from dataio.shapes.relief import ground_of, relief_of
from engine.plateau import PlateauConfig
from models.capabilities import KINDS, missing, offered, refuse
from models.kernels.runtime.launch import set_threads
from models.losses.losses import LossConfig, Objective
from models.model import Model, ModelConfig
from models.optimizers import Adam
from utils.checkpoint import load_checkpoint, newest_checkpoint
from utils.config.loading import json_schema, load_config
from utils.config.parts import Choice, StrictModel, discover
from utils.config.schedule import Schedule, constant
from utils.errors import InputError

KINDS_OF_PARTS = ("encodings", "fields", "losses", "opacities", "samplers")
for package in ("dataio.formats", "dataio.selection", *(f"models.{kind}" for kind in KINDS_OF_PARTS)):
    discover(package)  # a part is found by lying in its folder


class OptimizerConfig(StrictModel):
    """Adam, or AdamW, with a learning rate per part of the model."""

    type: Literal["adam", "adamw"] = Field("adam", description="adamw: weight decay apart from the gradient")
    lr: float = Field(5e-4, gt=0, description="learning rate of everything not named in `parts`")
    parts: dict[str, float] = Field({}, description="learning rate by the start of a parameter's name")
    schedule: Schedule = Field(constant(1.0), description="multiplies every learning rate")
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0, description="pulls every weight to zero; adamw's default would be 0.01")
    reduce_on_plateau: PlateauConfig | None = Field(None, description="reduce all rates when the loss stays put")
    gradient_clip: float | None = Field(None, gt=0, description="largest norm of the gradient")


class TrainConfig(StrictModel):
    """How long, on how many rays, and what is written on the way."""

    steps: int = Field(20_000, ge=1, description="length of the run, unless `minutes` is given")
    minutes: float | None = Field(None, gt=0, description="length of the run in wall time; schedules follow it")
    rays: int = Field(2048, ge=1, description="rays per step and rank")
    rays_at_once: int | None = Field(
        None, ge=1, description="rays whose graph is in memory at a time; the gradients of a step add up. Null: all"
    )
    pixels: Choice[SelectionConfig] = UniformSelection()
    precision: Literal["float32", "mixed"] = Field(
        "float32", description="mixed: products of colors, NeRF and all gradients in bfloat16; distances never"
    )
    cuda_graph: bool = Field(
        True, description="on one GPU, record steps that wait for nothing and replay them as one launch"
    )
    threads: int = Field(0, ge=0, description="of the CPU, which share a step's rays; 0: as torch finds")
    validations: int = Field(5, ge=0, description="pictures of a held-out view, evenly spread over the run")
    log_every: int = Field(50, ge=1, description="steps between two lines of metrics.jsonl")
    checkpoint_every: int = Field(0, ge=0, description="steps between checkpoints; 0: by time")
    checkpoint_minutes: float = Field(5.0, gt=0)
    keep_checkpoints: int = Field(2, ge=1)

    @property
    def patch_area(self) -> int:
        """Rays that stay together: the pixels of a patch, or 1."""
        return (self.pixels.patch or 1) ** 2

    @model_validator(mode="after")
    def _patches_are_whole(self) -> TrainConfig:
        area = self.patch_area
        counts = {"rays": self.rays, "rays_at_once": self.rays_at_once or area}
        refuse(
            f"train.{key} should be a multiple of {area}, the pixels of a patch (got {count})"
            for key, count in counts.items()
            if count % area
        )
        return self


class ExperimentConfig(StrictModel):
    """Everything a run is."""

    output: str | None = Field(None, description="run folder; default runs/CONFIG-DATA")
    seed: int = Field(0, ge=0)
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    data: Choice[DataConfig] = AutoData()
    model: ModelConfig
    losses: dict[str, Choice[LossConfig]] = Field(min_length=1)
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()

    @model_validator(mode="after")
    def _losses_fit(self) -> ExperimentConfig:
        field = self.model.foreground.field
        found = {name: missing(loss.needs, offered(field)) for name, loss in self.losses.items()}
        gives = f"model.foreground.field gives {KINDS[field.value_kind]}"
        refuse(f"losses.{name} needs {words}; {gives}" for name, words in found.items() if words)
        return self

    @model_validator(mode="after")
    def _patches_fit(self) -> ExperimentConfig:
        side = self.train.pixels.patch
        gives = f"patches of {side} x {side}" if side else "single pixels"
        refuse(
            f"losses.{name} needs patches of at least {loss.least_patch} x {loss.least_patch} pixels"
            f" (train.pixels: {{type: patches, side: {loss.least_patch}}}); train.pixels gives {gives}"
            for name, loss in self.losses.items()
            if loss.least_patch > (side or 1)
        )
        return self


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> ExperimentConfig:
    """The validated config of a YAML file with dotted overrides. Raises InputError with every mistake in it."""
    return load_config(path, overrides, ExperimentConfig)


def schema_text() -> str:
    """The JSON schema of a config, as configs/schema.json holds it for editors: `make schema` writes it there."""
    return json.dumps(json_schema(ExperimentConfig), indent=1) + "\n"


def output_folder(config: ExperimentConfig, config_path: str | Path) -> Path:
    """The run folder: `output`, or runs/CONFIG-DATA."""
    if config.output:
        return Path(config.output)
    data = Path(config.data.path).resolve().name if config.data.path else config.data.model_dump()["type"]
    return Path("runs") / f"{Path(config_path).stem}-{data}"


def choose_device(wanted: str) -> torch.device:
    """auto: the first CUDA device, else the CPU. Raises InputError for a device that is not there."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    if wanted.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device: {wanted} - no CUDA device is available - expected cpu or auto")
    return torch.device(wanted)


def use_threads(count: int) -> None:
    """Let torch and the kernels use `count` threads of the CPU (0: as torch finds), and treat denormals as zero.

    Gradients that fade out reach numbers below 1e-38, on which a CPU is a hundred times slower.
    """
    torch.set_flush_denormal(True)
    if count:
        torch.set_num_threads(count)
    set_threads(torch.get_num_threads())


def build_objective(
    config: ExperimentConfig, scene: Scene, device: torch.device, *, prepare: bool = True
) -> Objective:
    """Model and losses, initialized from the config's seed, on `device`; prepare: with starts that take training."""
    torch.manual_seed(config.seed)
    model = Model(config.model, data_color=scene.background)
    if prepare:
        shapes = {"hull": hull_of, "ground": ground_of, "relief": relief_of}
        model.prepare({name: partial(shape_of, scene) for name, shape_of in shapes.items()})
    model.set_precision(mixed=config.train.precision == "mixed")
    return Objective(model, config.losses).to(device)


def build_optimizer(config: OptimizerConfig, model: Model) -> torch.optim.Optimizer:
    """The optimizer with one group per learning rate.

    Raises InputError for a part that the model does not have; one of a medium that was left out says nothing.
    """
    names = [name for name, _ in model.named_parameters()]
    for part in config.parts:
        left_out = getattr(model, part.partition(".")[0], model) is None
        if not left_out and not any(name.startswith(part) for name in names):
            raise InputError(f"optimizer.parts: {part!r} - no such part - expected the start of one of: {names}")
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        found = [part for part in config.parts if name.startswith(part)]
        lr = config.parts[max(found, key=len)] if found else config.lr
        groups.setdefault(lr, []).append(parameter)
    listed = [{"params": parameters, "lr": lr, "base_lr": lr} for lr, parameters in groups.items()]
    return Adam(
        listed,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        decoupled=config.type == "adamw",
    )


def scene_state(scene: Scene) -> dict[str, Any]:
    """What a checkpoint keeps of the scene, so that a run can be rendered and meshed without its data."""
    return {
        "cameras": scene.cameras.state(),
        "splits": {name: torch.from_numpy(index) for name, index in scene.splits.items()},
        "names": list(scene.names),
        "world_from_scene": torch.from_numpy(scene.world_from_scene),
        "up": torch.from_numpy(scene.up),
        "background": list(scene.background) if scene.background is not None else None,
        "georeference": list(astuple(scene.georeference)) if scene.georeference is not None else None,
    }


@dataclass(frozen=True)
class Run:
    """A trained model with the frame of its scene: everything that a script after training needs.

    cameras: all views, scene frame, on `device`. splits: "train", "test" -> indices of views. up: world frame.
    """

    folder: Path
    config: ExperimentConfig
    device: torch.device
    model: Model
    cameras: Cameras
    splits: dict[str, npt.NDArray[np.int64]]
    names: list[str]
    world_from_scene: npt.NDArray[np.float64]
    up: npt.NDArray[np.float64]
    georeference: Georeference | None  # of the world
    step: int

    @staticmethod
    def open(path: str | Path, device: str = "auto", overrides: Sequence[str] = ()) -> Run:
        """A run folder (its newest sound checkpoint) or a checkpoint folder. Raises InputError."""
        folder, checkpoint = _find(Path(path))
        config = read_config(folder / "config.yaml", overrides)
        state, manifest = load_checkpoint(checkpoint)
        kept = state["scene"]
        background = kept["background"]
        model = Model(config.model, data_color=tuple(background) if background is not None else None)
        load_model(model, state["model"], f"{checkpoint}")
        model.update(float(state["progress"]))
        on = choose_device(device)
        return Run(
            folder=folder,
            config=config,
            device=on,
            model=model.to(on).eval(),
            cameras=Cameras.from_state(kept["cameras"]).to(on),
            splits={name: index.numpy() for name, index in kept["splits"].items()},
            names=list(kept["names"]),
            world_from_scene=kept["world_from_scene"].numpy(),
            up=kept["up"].numpy(),
            georeference=Georeference(*place) if (place := kept.get("georeference")) else None,
            step=int(manifest["step"]),
        )

    def load_scene(self, path: str | None = None) -> Scene:
        """The images again from disk, in this run's scene frame; with `path`, those of other data."""
        data = self.config.data
        if path is not None:
            data = AutoData(**{**data.model_dump(exclude={"type"}, include=set(AutoData.model_fields)), "path": path})
        return data.load().reframed(self.world_from_scene)

    @torch.no_grad()
    def surface_value(self, points: Tensor) -> Tensor:
        """[N, 3] scene frame -> [N] on the points' device: zero on the surface, positive outside."""
        return self.model.surface_value(points.to(self.device, torch.float32)).to(points.device)

    @torch.no_grad()
    def surface_color(self, points: Tensor, normals: Tensor) -> Tensor:
        """Color [N, 3] in [0, 1] of surface points seen along their normals; both [N, 3] scene frame."""
        x, normals = points.to(self.device, torch.float32), normals.to(self.device, torch.float32)
        return self.model.foreground.field(x, -normals).color.to(points.device)

    def world_points(self, points: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """[N, 3] scene frame -> world frame."""
        return points @ self.world_from_scene[:3, :3].T + self.world_from_scene[:3, 3]


def load_model(model: Model, state: dict[str, Any], source: str) -> None:
    """Load weights; raises InputError, and changes nothing, when they belong to another model."""
    own = {name: tuple(value.shape) for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    given = {name: tuple(value.shape) for name, value in state.items() if isinstance(value, Tensor)}
    if own != given:
        name = sorted(set(own.items()) ^ set(given.items()))[0][0]
        raise InputError(
            f"{source}: a checkpoint of another model - {name} is {given.get(name, 'missing')}"
            f" - expected {own.get(name, 'no such parameter')}"
        )
    model.load_state_dict(state)


def _find(path: Path) -> tuple[Path, Path]:
    """The run folder and the checkpoint that `path` means."""
    if (path / "manifest.json").is_file():
        folder = path.resolve().parent.parent
        if (folder / "config.yaml").is_file():
            return folder, path
        raise InputError(f"{path}: no config.yaml in {folder} - expected a checkpoint inside a run folder")
    if not (path / "config.yaml").is_file():
        raise InputError(f"{path}: not a run folder - expected config.yaml and checkpoints/ in it")
    checkpoint = newest_checkpoint(path / "checkpoints")
    if checkpoint is None:
        raise InputError(f"{path}: no complete checkpoint in {path / 'checkpoints'} - train it first")
    return path, checkpoint
