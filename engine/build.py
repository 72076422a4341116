"""A config's parts put together: device, threads, objective, optimizer."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import torch

from dataio.scene import Scene
from dataio.seen_points import SeenPoints
from dataio.source_views import SourceViews
from engine.experiment import ExperimentConfig
from models.kernels.runtime.launch import set_threads
from models.model import Model
from models.objective import Context, Objective
from models.optimizers.base import OptimizerConfig
from models.optimizers.together import Optimizers
from utils.config.loading import place_of
from utils.config.mistakes import did_you_mean
from utils.errors import InputError

# Parameters of earlier versions, and their names of today.
RENAMED_PARAMETERS = (
    (r"\bfield\.color\.", "appearance.network."),
    (r"\bfield\.view_encoding\.", "appearance.encoding."),
)


def use_threads(count: int) -> None:
    """Let torch and the kernels use `count` threads of the CPU (0: as torch finds), and treat denormals as zero.

    Gradients that fade out reach numbers below 1e-38, on which a CPU is a hundred times slower.
    """
    torch.set_flush_denormal(True)
    if count:
        torch.set_num_threads(count)
    set_threads(torch.get_num_threads())


def build_objective(
    config: ExperimentConfig,
    scene: Scene,
    device: torch.device,
    *,
    initialize: bool = True,
    teacher: Model | None = None,
) -> Objective:
    """Model and losses, initialized from the config's seed, on `device`.

    initialize: also what takes training; a resumed run needs none. teacher: for losses that ask another model.
    """
    torch.manual_seed(config.seed)
    model = Model(config.model, data_color=scene.background, cameras=len(scene.cameras))
    if initialize:
        model.initialize(scene)
    model.set_precision(mixed=config.train.precision == "mixed")
    return Objective(model, config.losses, context_of(config, scene, device, teacher)).to(device)


def context_of(
    config: ExperimentConfig, scene: Scene, device: torch.device, teacher: Model | None = None
) -> Context:
    """What the losses ask for beside the step. Raises InputError for data with too few photographs."""
    views = max(loss.data_needs.views for loss in config.losses.values())
    points = any(loss.data_needs.points for loss in config.losses.values())
    return Context(
        SourceViews(scene, device, least=views) if views else None,
        teacher,
        SeenPoints.of(scene, device) if points else None,
    )


def check_optimizer(config: ExperimentConfig) -> Model:
    """The model, as it is without data; to be called before these are read.

    Raises InputError for entries of `optimizer.parts` that mean no parameter.
    """
    model = Model(config.model)
    groups_of(config.optimizer, model, place=partial(place_of, config, "optimizer", "parts"))
    return model


def build_optimizer(config: OptimizerConfig, model: Model) -> Optimizers:
    """The optimizer with one group per rule, rate and schedule. Raises InputError as `groups_of` does."""
    return Optimizers(groups_of(config, model))


def groups_of(
    config: OptimizerConfig, model: Model, *, place: Callable[[str], str] = lambda part: ""
) -> list[tuple[OptimizerConfig, list[torch.nn.Parameter]]]:
    """The parameters that share rule, rate and schedule. place: where an entry of `parts` was written.

    Of several entries that begin a parameter's name the longest counts. Raises InputError for a part that the model
    does not have; one that was left out, as a medium, is of no effect.
    """
    names = [name for name, _ in model.named_parameters()]
    present = [part for part in config.parts if part.partition(".")[0] not in model.absent]
    refused = [part for part in present if not any(name.startswith(part) for name in names)]
    if refused:
        raise InputError("\n".join(_no_such_part(part, place(part), names) for part in refused))
    groups: dict[str, tuple[OptimizerConfig, list[torch.nn.Parameter]]] = {}
    for name, parameter in model.named_parameters():
        own = rule_of(config, name)
        groups.setdefault(own.model_dump_json(), (own, []))[1].append(parameter)
    return list(groups.values())


def rule_of(config: OptimizerConfig, name: str) -> OptimizerConfig:
    """What holds for the parameter of a name."""
    found = [part for part in config.parts if name.startswith(part)]
    return config.of_part(config.parts[max(found, key=len)] if found else None)


def renamed(name: str) -> str:
    """The name of today of a parameter, or of the beginning of one, of an earlier version."""
    for pattern, now in RENAMED_PARAMETERS:
        name = re.sub(pattern, now, name)
    return name


def renamed_part(part: str) -> str:
    """The name of today of an entry of `optimizer.parts` of an earlier version, which has no dot at its end."""
    return renamed(f"{part}.").removesuffix(".")


def _no_such_part(part: str, place: str, names: list[str]) -> str:
    known = sorted({".".join(name.split(".")[:depth]) for name in names for depth in (1, 2, 3)})
    said, now = f"{place}: " if place else "", renamed_part(part)
    if now != part:
        return f"{said}optimizer.parts: {part!r}: is now called {now}: write that, and {part}: null if it is inherited"
    return (
        f"{said}optimizer.parts: {part!r}: this model has no parameter that begins so{did_you_mean(part, known)}"
        f" - expected one of {', '.join(known)}; to remove an inherited entry write optimizer.parts={{{part}: null}}"
    )
