"""The training loop's state: what one step does, what is written on the way, how a run resumes."""

from __future__ import annotations

import inspect
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.nn.parallel import DistributedDataParallel

from dataio.batches import PixelSampler
from dataio.scene import Scene
from dataio.shapes.relief import one_side
from engine.diagnostics import Health
from engine.experiment import (
    ExperimentConfig,
    build_objective,
    build_optimizer,
    load_model,
    read_config,
    scene_state,
    use_threads,
)
from engine.gradients import Gradients, threads_of_torch
from engine.plateau import Plateau
from engine.step_guard import Skipping
from models.losses.losses import Objective, Report
from models.rendering.frames import Frame, render_image
from utils import distributed
from utils.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from utils.config.loading import differences, to_yaml
from utils.errors import InputError
from utils.evaluation.image_metrics import psnr
from utils.evaluation.results import update_results
from utils.log import MetricsWriter, Progress
from utils.pictures.images import Picture, color_depth, color_normal, depth_range, side_by_side, to_uint8, write_png

MAX_BAD_STEPS = 10
LOOK_EVERY = 16  # steps after which a GPU is waited for, to hear what was skipped
VALIDATION_PIXELS = 200 * 200  # a picture on the way may not cost more than this
# What may differ between a run and its resumption: none of it changes what has been computed so far.
FREE_KEYS = ("train.steps", "train.minutes", "train.validations", "train.log_every", "train.checkpoint",
             "train.keep_checkpoints", "train.threads", "train.cuda_graph", "train.rays_at_once", "output", "device",
             "data.path", "data.ram", "data.cache")  # fmt: skip


class NumbersError(ArithmeticError):
    """The loss stayed non-finite."""


class Training:
    """A run in progress: scene, objective, optimizer, logs, and the budget that is used."""

    def __init__(
        self, config: ExperimentConfig, folder: Path, ranks: distributed.Ranks, scene: Scene, *, fresh: bool
    ) -> None:
        self.config, self.folder, self.ranks, self.scene = config, folder, ranks, scene
        begun, cpu_begun = time.perf_counter(), time.process_time()
        self.objective = build_objective(config, scene, ranks.device, prepare=fresh)
        # A start that is computed is part of the training; a resumed run replaces these numbers by its own.
        self.seconds, self.cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu_begun
        self.optimizer = build_optimizer(config.optimizer, self.objective.model)
        self.sampler = PixelSampler(
            scene,
            rays=config.train.rays,
            seed=config.seed,
            pixels=config.train.pixels,
            rank=ranks.rank,
            world=ranks.world,
            device=ranks.device,
        )
        self.step, self.skipping = 0, Skipping(ranks.device)
        plateau = config.optimizer.reduce_on_plateau
        self.plateau = Plateau(plateau) if plateau else None
        self.health = Health(distances=config.model.foreground.field.value_kind == "sdf")

    def start(self) -> None:
        """Open the logs and the clocks; after a checkpoint was loaded, if there is one."""
        module = in_parallel(self.objective) if self.ranks.world > 1 else self.objective
        self.gradients = Gradients(
            self.objective, module, self.config.train, device=self.ranks.device, warn=self._warn
        )
        self.writer = MetricsWriter(self.folder, after=self.step or None, enabled=self.ranks.is_main)
        self.clock, self.cpu_clock = time.perf_counter(), time.process_time()
        self.progress = self._progress()
        self.line = Progress(start=self.progress, enabled=self.ranks.is_main)
        self.saved_at = self.clock
        self.begun_at = self.step

    def _warn(self, message: str) -> None:
        self.line.message(f"step {self.step}: {message}")

    def _progress(self) -> float:
        train = self.config.train
        if train.minutes is None:
            return min(self.step / train.steps, 1.0)
        return min(distributed.mean_of_ranks(self.elapsed() / (60 * train.minutes)), 1.0)

    def step_once(self) -> None:
        """One step of optimization, and whatever is due after it."""
        before = self.progress
        self._seed()
        self.objective.update(before, self.step)
        self._set_learning_rates(before)
        with threads_of_torch(self.gradients.torch_threads):
            batch = next(self.sampler)
            report = self.gradients(batch)
            self._descend(report)
            self.sampler.learn(report.error)
        self.step += 1
        if self.ranks.device.type == "cpu" or self.step % LOOK_EVERY == 0:
            self._look_at_skipped()
        self.progress = self._progress()
        self._log(report)
        if self.health.due(self.step) and self.ranks.is_main:
            for warning in self.health.look(self.objective.model, report, batch, self.progress):
                self.line.message(f"step {self.step}: warning: {warning}")
        self._save_if_due()
        count = self.config.train.validations
        if int(before * count) < int(self.progress * count):
            self._validate()

    def _seed(self) -> None:
        """The random stream is a function of seed, step and rank: a resumed run draws what the unbroken one drew."""
        seed = ((self.config.seed * 1_000_003 + self.step) * 4099 + self.ranks.rank) % 2**63
        if self.ranks.device.type == "cpu":
            torch.default_generator.manual_seed(seed)  # a hundredth of the time that all devices' generators take
        else:
            torch.manual_seed(seed)

    def _set_learning_rates(self, progress: float) -> None:
        factor = self.config.optimizer.schedule(progress) * (self.plateau.scale if self.plateau else 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor

    def _descend(self, report: Report) -> None:
        """Take the step, unless a number is not finite or samples had no room; that is decided on the device."""
        parameters = list(self.objective.model.parameters())
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.config.optimizer.gradient_clip is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.config.optimizer.gradient_clip, norm)
        seen = torch.stack([report.loss.detach().double(), report.cut.double()])
        loss, cut = distributed.mean_across_ranks(seen)  # so that all ranks decide alike
        self.skipping.tell(self.optimizer, broken=~torch.isfinite(norm + loss), cut=cut > 0)
        self.optimizer.step()
        if self.plateau and math.isfinite(value := float(loss)):
            self.plateau.observe(value)

    def _look_at_skipped(self) -> None:
        """Say which steps were skipped, and give up after a while."""
        skipped = self.skipping.look()
        if skipped.broken:
            self.line.message(f"step {self.step}: loss or gradient not finite; steps skipped: {skipped.broken}")
        if skipped.cut:
            self.line.message(f"step {self.step}: more samples than room; steps skipped: {skipped.cut}")
        if skipped.in_a_row > MAX_BAD_STEPS:
            raise NumbersError(f"loss not finite in {skipped.in_a_row} steps in a row, last at step {self.step}")

    def _log(self, report: Report) -> None:
        rays = self.config.train.rays * self.ranks.world
        due = self.step % self.config.train.log_every == 0
        show = self.line.due() or self.progress >= 1
        values = {}
        if due or show:
            error = float(report.squared_error)
            values = {"loss": float(report.loss.detach()), "psnr": -10 * float(np.log10(max(error, 1e-10)))}
        if due:
            seconds = max(time.perf_counter() - self.clock, 1e-9)
            rows = {f"train/{name}": value for name, value in values.items()}
            rows |= {f"train/loss/{name}": float(term) for name, term in report.terms.items()}
            rows |= {f"model/{name}": value for name, value in self.objective.model.statistics().items()}
            rows["perf/rays_per_s"] = (self.step - self.begun_at) * rays / seconds
            if self.gradients.recording is not None:
                rows["perf/recorded"] = float(self.gradients.recording.graph is not None)
            rows["perf/samples_per_ray"] = float(report.samples) / self.config.train.rays
            rows["opt/lr"] = self.optimizer.param_groups[0]["lr"]
            self.writer.scalars(self.step, rows)
        self.line.update(self.step, self.progress, values, rays=rays)

    def _save_if_due(self) -> None:
        train = self.config.train
        if train.checkpoint_every:
            due = self.step % train.checkpoint_every == 0
        else:
            late = time.perf_counter() - self.saved_at > 60 * train.checkpoint_minutes
            due = self.step % 16 == 0 and distributed.any_rank(late)
        if due:
            self.save()

    def save(self) -> None:
        """Write a checkpoint (main rank); every rank waits until it stands."""
        sampler = self.sampler.state_dict()  # of all ranks
        if self.ranks.is_main:
            state = {
                "model": self.objective.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "sampler": sampler,
                "scene": scene_state(self.scene),
                "plateau": self.plateau.state_dict() if self.plateau else None,
                "progress": self.progress,
                "clocks": [self.elapsed(), self.cpu()],
            }
            info = {"world": self.ranks.world}
            save_checkpoint(
                self.folder / "checkpoints", self.step, state, info=info, keep=self.config.train.keep_checkpoints
            )
        distributed.barrier()
        self.saved_at = time.perf_counter()

    def load(self, checkpoint: Path) -> None:
        """Go on from a checkpoint; raises InputError when it belongs to another model."""
        state, manifest = load_checkpoint(checkpoint)
        load_model(self.objective.model, state["model"], str(checkpoint))
        self.optimizer.load_state_dict(state["optimizer"])
        self.sampler.load_state_dict(state["sampler"])
        if self.plateau and state.get("plateau"):
            self.plateau.load_state_dict(state["plateau"])
        self.step = int(manifest["step"])
        self.seconds, self.cpu_seconds = state["clocks"]

    def elapsed(self) -> float:
        """Wall seconds of training so far, resumptions included."""
        return self.seconds + time.perf_counter() - self.clock

    def cpu(self) -> float:
        """CPU seconds of training so far, this rank's."""
        return self.cpu_seconds + time.process_time() - self.cpu_clock

    def _validate(self) -> None:
        """Render one held-out view: rgb | depth | normal beside the photograph, and its PSNR."""
        views = self.scene.splits["test"]
        if self.ranks.is_main and len(views):
            view = int(views[self.step % len(views)])
            photograph = self.scene.images[view]
            shrink = min(1.0, (VALIDATION_PIXELS / (photograph.shape[0] * photograph.shape[1])) ** 0.5)
            cameras = self.scene.cameras.scaled(shrink).to(self.ranks.device)
            frame = render_image(self.objective.model, cameras, view)
            photograph = resize(photograph, frame.depth.shape)
            truth = torch.from_numpy(photograph).float() / 255
            quality = float(psnr(frame.color, truth))
            picture = _panel(photograph, frame)
            write_png(self.folder / "images" / f"step_{self.step:08d}.png", picture)
            self.writer.image(self.step, "val/rgb_depth_normal", picture)
            self.writer.scalars(self.step, {"val/psnr": quality})
            self.line.message(f"step {self.step}: held-out view {self.scene.names[view]}: PSNR {quality:.2f} dB")
        distributed.barrier()

    def close(self) -> None:
        """End the threads: those that gather pixels, and those that share a step."""
        self.sampler.close()
        self.gradients.close()

    def finish(self) -> None:
        """The last checkpoint, and the run's own numbers in metrics.json."""
        self._look_at_skipped()
        self.save()
        if self.ranks.is_main:
            seconds = self.elapsed()
            rays = self.step * self.config.train.rays * self.ranks.world
            train = {
                "steps": self.step,
                "seconds": seconds,
                "cpu_seconds": self.cpu(),
                "rays_per_second": rays / max(seconds, 1e-9),
                "peak_memory_mb": peak_memory_mb(self.ranks.device),
            }
            update_results(self.folder / "metrics.json", train=train)
        self.line.close()
        self.writer.close()
        if self.ranks.is_main:
            print(f"{self.folder}: {self.step} steps, {100 * self.progress:.0f} % of the budget")


def in_parallel(objective: Objective) -> DistributedDataParallel:
    """The objective under DDP. Grids are the same on every rank by construction: no broadcast at each step."""
    known = inspect.signature(DistributedDataParallel.__init__).parameters
    name = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # renamed in torch 2.13
    options: dict[str, Any] = {name: False}
    return DistributedDataParallel(objective, **options)


def open_training(
    config: ExperimentConfig, folder: Path, ranks: distributed.Ranks, *, allow_config_change: bool
) -> Training | None:
    """Load data and model, and resume what the folder holds; None when that run is complete already.

    Raises InputError for unusable data, a folder of another run, or a config that differs from the run's own.
    """
    _compare_with_saved(config, folder, allow_config_change)
    use_threads(config.train.threads)
    scene = config.data.load()
    _warn_about(config, scene, ranks)
    checkpoint = newest_checkpoint(folder / "checkpoints")
    training = Training(config, folder, ranks, scene, fresh=checkpoint is None)
    if checkpoint is not None:
        training.load(checkpoint)
    if ranks.is_main:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(to_yaml(config), "utf-8")
    training.start()
    if checkpoint is not None:
        training.line.message(f"{folder}: resumed at step {training.step}")
    if training.progress >= 1:
        print(f"{folder}: complete, {training.step} steps; raise train.steps or train.minutes to go on")
        training.close()
        return None
    return training


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


def resize(picture: Picture, shape: Sequence[int]) -> Picture:
    """[H, W, 3] to another (height, width) by area averages."""
    return np.asarray(cv2.resize(picture, (shape[1], shape[0]), interpolation=cv2.INTER_AREA), np.uint8)


def _panel(photograph: Picture, frame: Frame) -> Picture:
    depth, solid = frame.depth.numpy(), frame.opacity.numpy() > 0.5
    low, high = depth_range(depth, solid)
    colored = [color_depth(depth, solid, low, high), color_normal(frame.normal.numpy(), solid)]
    return side_by_side([photograph, to_uint8(frame.color.numpy()), *colored])


class StopSignals:
    """SIGTERM, SIGINT and SIGUSR1 set a flag; a second one ends the process at once."""

    def __init__(self) -> None:
        self.received, self.exit_code = False, 0
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: object) -> None:
        if self.received:
            os._exit(self.exit_code)
        self.received = True
        self.exit_code = 130 if number == signal.SIGINT else 75


def peak_memory_mb(device: torch.device) -> float:
    """Peak resident memory of this process, or of its GPU allocations on CUDA; MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
