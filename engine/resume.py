"""How a run starts, or goes on from what its folder holds."""

from __future__ import annotations

import sys
from pathlib import Path

from engine.build import renamed_part, use_threads
from engine.experiment import ExperimentConfig, read_config
from engine.memory_estimate import before_steps, check_memory, free_memory, refuse
from engine.saving import kept_points
from engine.suits import warnings
from engine.trainer import Trainer
from utils import distributed, memory
from utils.checkpoint import newest_checkpoint
from utils.config.loading import differences, leaves, to_yaml
from utils.errors import InputError
from utils.files import write_text_if_changed
from utils.loggers.wandb import check_installed
from utils.run_lock import RunLock

# What may differ between a run and its resumption: none of it changes what has been computed so far.
FREE_KEYS = ("train.steps", "train.minutes", "train.validations", "train.log_every", "train.checkpoint",
             "train.keep_", "distributed.timeout", "distributed.meet_within", "distributed.check_every", "debug",
             "log.", "train.threads", "train.cuda_graph", "train.micro_batch", "output", "device",
             "data.path", "data.ram", "data.cache", "teacher")  # fmt: skip


def open_trainer(
    config: ExperimentConfig, folder: Path, ranks: distributed.Ranks, *, allow_config_change: bool
) -> Trainer | None:
    """Load data and model, and resume what the folder holds; None when that run is complete already.

    Raises InputError for unusable data, a folder of another run, or a config that differs from the run's own.
    """
    # A folder that is not there belongs to nobody yet, and is not made for data or a config that cannot be used.
    lock = RunLock(folder) if ranks.is_main and folder.is_dir() else None
    try:
        return _open(config, folder, ranks, lock, allow_config_change)
    except BaseException:
        if lock is not None:
            lock.release()
        raise


def _open(
    config: ExperimentConfig, folder: Path, ranks: distributed.Ranks, lock: RunLock | None, allow_config_change: bool
) -> Trainer | None:
    _compare_with_saved(config, folder, allow_config_change)
    estimate, _ = check_memory(config, ranks.device)
    if config.log.wandb:
        check_installed()
    use_threads(config.train.threads)
    if ranks.device.type == "cpu":
        memory.limit()
    scene = config.data.load()
    warned = [f"warning: {warning}" for warning in warnings(config, scene)] if ranks.is_main else []
    for warning in warned:
        print(warning, file=sys.stderr)
    refuse(estimate, config, free_memory(ranks.device))
    checkpoint = newest_checkpoint(folder / "checkpoints")
    if checkpoint is not None:
        kept_points.restore(folder, scene)
    trainer = Trainer(config, folder, ranks, scene, fresh=checkpoint is None)
    if checkpoint is not None:
        trainer.load(checkpoint)
    if ranks.is_main:
        trainer.lock = lock or RunLock(folder)
        write_text_if_changed(folder / "config.yaml", to_yaml(config))
        if checkpoint is None:
            kept_points.keep(folder, scene)
    trainer.start()
    trainer.line.message(before_steps(estimate, trainer).line())
    for warning in warned if checkpoint is None else ():
        trainer.writer.message(trainer.step, warning)
    trainer.writer.config(to_yaml(config), leaves(config))
    if checkpoint is not None:
        trainer.line.message(f"{folder}: resumed at step {trainer.step}")
    if trainer.progress >= 1 and checkpoint is not None:
        print(f"{folder}: complete, {trainer.step} steps; raise train.steps or train.minutes to go on")
        trainer.close()
        return None
    return trainer


def _compare_with_saved(config: ExperimentConfig, folder: Path, allowed: bool) -> None:
    saved = folder / "config.yaml"
    if not saved.is_file():
        return
    before = read_config(saved, saved=True)
    parts = {renamed_part(part): entry for part, entry in before.optimizer.parts.items()}
    before = before.model_copy(update={"optimizer": before.optimizer.model_copy(update={"parts": parts})})
    changed = [line for line in differences(before, config) if not line.startswith(FREE_KEYS)]
    if changed and not allowed:
        raise InputError(
            f"{saved}: the run was started with another config - {'; '.join(changed)}"
            " - name another output=FOLDER, or go on with --allow-config-change"
        )
