"""How a run starts, or goes on from what its folder holds."""

from __future__ import annotations

import sys
from pathlib import Path

from dataio.scene import Scene
from dataio.shapes.relief import one_side
from engine.build import use_threads
from engine.experiment import ExperimentConfig, read_config
from engine.trainer import Trainer
from utils import distributed
from utils.checkpoint import newest_checkpoint
from utils.config.loading import differences, to_yaml
from utils.errors import InputError

# What may differ between a run and its resumption: none of it changes what has been computed so far.
FREE_KEYS = ("train.steps", "train.minutes", "train.validations", "train.log_every", "train.checkpoint",
             "train.keep_checkpoints", "train.threads", "train.cuda_graph", "train.rays_at_once", "output", "device",
             "data.path", "data.ram", "data.cache")  # fmt: skip


def open_trainer(
    config: ExperimentConfig, folder: Path, ranks: distributed.Ranks, *, allow_config_change: bool
) -> Trainer | None:
    """Load data and model, and resume what the folder holds; None when that run is complete already.

    Raises InputError for unusable data, a folder of another run, or a config that differs from the run's own.
    """
    _compare_with_saved(config, folder, allow_config_change)
    use_threads(config.train.threads)
    scene = config.data.load()
    _warn_about(config, scene, ranks)
    checkpoint = newest_checkpoint(folder / "checkpoints")
    trainer = Trainer(config, folder, ranks, scene, fresh=checkpoint is None)
    if checkpoint is not None:
        trainer.load(checkpoint)
    if ranks.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(to_yaml(config), "utf-8")
    trainer.start()
    if checkpoint is not None:
        trainer.line.message(f"{folder}: resumed at step {trainer.step}")
    if trainer.progress >= 1:
        print(f"{folder}: complete, {trainer.step} steps; raise train.steps or train.minutes to go on")
        trainer.close()
        return None
    return trainer


def _compare_with_saved(config: ExperimentConfig, folder: Path, allowed: bool) -> None:
    saved = folder / "config.yaml"
    if not saved.is_file():
        return
    changed = [line for line in differences(read_config(saved), config) if not line.startswith(FREE_KEYS)]
    if changed and not allowed:
        raise InputError(
            f"{saved}: the run was started with another config - {'; '.join(changed)}"
            " - name another output=FOLDER, or go on with --allow-config-change"
        )


def _warn_about(config: ExperimentConfig, scene: Scene, ranks: distributed.Ranks) -> None:
    inside = getattr(config.model.foreground.field, "inside_out", False)  # the surface is around everything
    if scene.masks is None and config.model.background is None and not inside and ranks.is_main:
        print(
            "warning: these photographs have no masks and the model has no background; what lies behind the object"
            " will spoil it - configs/neus_hash_open.yaml has one",
            file=sys.stderr,
        )
    field = config.model.foreground.field
    sphere = getattr(field, "start", None) == "sphere" and not inside
    if sphere and config.model.background is not None and one_side(scene) is not None and ranks.is_main:
        print(
            "warning: these photographs look from one side, where a background may explain the surface away - start"
            " as what the sparse points say: model.foreground.field.start=relief, or configs/neus_hash_relief.yaml",
            file=sys.stderr,
        )
