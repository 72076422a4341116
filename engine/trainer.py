"""The training loop's state: what one step does, and what is written on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataio.batches import PixelSampler
from dataio.scene import Scene
from engine.build import build_objective, build_optimizer
from engine.cluster.agreement import check_agreement
from engine.cluster.exchange import Exchange
from engine.cluster.faults import Faults
from engine.cluster.performance import Communication, gpu_load, summary, words
from engine.cluster.ray_count import RayCount
from engine.device_pixels import open_sampler, share_out
from engine.diagnostics import Diagnostics
from engine.experiment import ExperimentConfig
from engine.gradients import Gradients, threads_of_torch
from engine.poses import scene_of_training
from engine.run import check_scene, load_model, load_optimizer, open_teacher, own_splits
from engine.saved import read_saved, scene_state
from engine.saving.checkpoints import Saving
from engine.step_guard import NumbersError, StepGuard, check_finite, check_optimized
from engine.suits import against_parting
from engine.validation import handful, training_psnr, validate
from engine.viewer.remote import Remote
from models.capabilities import SDF
from models.kernels.runtime.launch import load_kernels
from models.objective import Report
from models.optimizers.plateau import Plateau
from models.rendering.structure import pictures_of
from models.structure import measures
from utils import distributed
from utils.checkpoint import newest_checkpoint
from utils.commands import note_command
from utils.errors import StorageError
from utils.evaluation.results import update_results
from utils.log import MetricsWriter, Progress, weakly
from utils.loggers.wandb import WandbRun
from utils.pictures.images import write_png
from utils.pictures.sheets import stacked
from utils.run_lock import RunLock

MAX_BAD_STEPS = 10
ROLLED_BACK = 0.5  # what multiplies the learning rates after a run went back to a checkpoint
REPORT_EVERY = 16  # steps between two synchronizations with a GPU, which read what was skipped


class Trainer:
    """A run in progress: scene, objective, optimizer, logs, and the budget that is used."""

    def __init__(
        self,
        config: ExperimentConfig,
        folder: Path,
        ranks: distributed.Ranks,
        scene: Scene,
        *,
        fresh: bool,
    ) -> None:
        """fresh: whether initializations that take training are computed; else a checkpoint is loaded next."""
        self.lock: RunLock | None = None  # of the folder, released with the trainer
        self.config, self.folder, self.ranks, self.scene = config, folder, ranks, scene
        self.ray_count = RayCount(config, ranks)
        load_kernels(ranks.device)  # before any clock runs
        begun, cpu_begun = time.perf_counter(), time.process_time()
        asked = any(loss.data_needs.teacher for loss in config.losses.values())
        teacher = open_teacher(config.teacher, scene, ranks.device) if config.teacher and asked else None
        self.objective = build_objective(config, scene, ranks.device, initialize=fresh, teacher=teacher)
        # An initialization that is computed is part of the training; a resumed run replaces these numbers by its own.
        self.seconds, self.cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu_begun
        self.optimizer = build_optimizer(config.optimizer, self.objective.model)
        self.sampler = self._open_sampler()
        self.step, self.step_guard = 0, StepGuard(ranks.device)
        self.rate_scale, self.best = 1.0, -math.inf
        self.asked = self.leaving = False  # by a signal: this rank; all of them
        plateau = config.optimizer.reduce_on_plateau
        self.plateau = Plateau(plateau) if plateau else None
        self.diagnostics = Diagnostics(
            distances=config.model.foreground.field.value_kind == SDF,
            initial_width=self.objective.model.foreground.width(),
        )

    def _open_sampler(self) -> PixelSampler:
        return open_sampler(self.config, self.scene, self.ray_count.share, self.ranks.device)

    def start(self) -> None:
        """Open the logs and the clocks; after a checkpoint was loaded, if there is one."""
        exchange = Exchange(self.objective) if self.ranks.world > 1 else None
        self.faults = Faults(self.config.debug.faults, self.folder, self.ranks.rank)
        self.writer = self._open_writer(self.step or None)
        self.clock, self.cpu_clock = time.perf_counter(), time.process_time()
        self.progress = self._progress()
        self.line = Progress(start=self.progress, enabled=self.ranks.is_main)
        train, share, say = self.config.train, self.ray_count.share, weakly(self._say)
        self.gradients = Gradients(self.objective, train, share, device=self.ranks.device, exchange=exchange, warn=say)
        self.saving = Saving(train, self.folder, self.ranks, say)
        self.begun_at, self.taken_before = self.step, self.ray_count.taken
        self.remote = Remote(self.folder)
        self.communication = Communication(exchange) if exchange else None
        self.notes: list[str] = []  # beside the speed on the screen

    def _open_writer(self, after: int | None) -> MetricsWriter:
        more = [WandbRun] if self.config.log.wandb else []
        return MetricsWriter(self.folder, after=after, enabled=self.ranks.is_main, more=more)

    def _say(self, message: str) -> None:
        """Say it with the step, on the screen and in messages.jsonl."""
        self.line.message(f"step {self.step}: {message}")
        self.writer.message(self.step, message)

    def _progress(self) -> float:
        train = self.config.train
        if train.minutes is None:
            return min(self.step / train.steps, 1.0)
        return min(distributed.mean_of_ranks(self.elapsed() / (60 * train.minutes)), 1.0)

    def leaves(self, asked: bool) -> bool:
        """Whether all ranks leave now. asked: whether this one is to; several know it after a step."""
        self.asked = asked
        return self.leaving or (asked and self.ranks.world == 1)

    def step_once(self) -> None:
        """One step of optimization, and whatever is due after it.

        Where numbers are no longer finite, the run goes back to its newest checkpoint and on with half the rates, once;
        then, or without a checkpoint, raises NumbersError.
        """
        try:
            self._step_once()
        except NumbersError as error:
            self._roll_back(error)

    def _step_once(self) -> None:
        before = self.progress
        if self.ray_count.chosen(self.step):
            self._resize()
        self._seed()
        for change in self.objective.update(before, self.step):
            self.optimizer.forget(change.parameters)
            self._say(f"{change.name} {change.what}")
        self._set_learning_rates(before)
        with threads_of_torch(self.gradients.torch_threads):
            report = self.gradients(self.sampler.plan())
            self.faults.after_backward(self.objective, self.step + 1)
            self._descend(report)
            self.sampler.learn(report.error)
            self.ray_count.count(report)
        self.step += 1
        if self.ranks.device.type == "cpu" or self.step % REPORT_EVERY == 0:
            self.leaving = self.ranks.world > 1 and float(self.some_asked) > 0
            self._report_skipped()
        self.progress = self._progress()
        self._log(report)
        batch = self.sampler.batch
        if batch is not None and self.diagnostics.due(self.step) and self.ranks.is_main:
            for warning in self.diagnostics.warnings(self.objective.model, report, batch, self.progress):
                self._say(f"warning: {warning}")
        every, count = self.config.distributed.check_every, self.config.train.validations
        if every and self.step % every == 0:
            check_agreement(self.objective, self.step)
        best = False
        if int(before * count) < int(self.progress * count):
            best = self._is_best(self._validate())
        if self.saving.due(self.step) or best:
            self._try_to_save(best=best)
        self.faults.after_step(self.objective, self.step)

    def _resize(self) -> None:
        """Take steps of as many rays as were chosen, before the one in which capacities are fitted to them."""
        share_out(self.sampler, self.ray_count.share)
        self.objective.model.scale_demand(self.gradients.resize(self.ray_count.share))

    def _seed(self) -> None:
        """The random stream is a function of seed, step and rank: a resumed run draws what the unbroken one drew."""
        seed = ((self.config.seed * 1_000_003 + self.step) * 4099 + self.ranks.rank) % 2**63
        if self.ranks.device.type == "cpu":
            torch.default_generator.manual_seed(seed)  # a hundredth of the time that all devices' generators take
        else:
            torch.manual_seed(seed)

    def _set_learning_rates(self, progress: float) -> None:
        plateau = self.plateau.scale if self.plateau else 1.0
        self.optimizer.set_rates(progress, plateau * self.rate_scale)

    def _descend(self, report: Report) -> None:
        """Take the step, unless a number is not finite or samples overflowed; that is decided on the device."""
        named = list(self.objective.named_parameters())
        check_optimized(named, self.optimizer)
        parameters = [parameter for _, parameter in named]
        norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.config.optimizer.gradient_clip is not None:
            torch.nn.utils.clip_grads_with_norm_(parameters, self.config.optimizer.gradient_clip, norm)
        asked = norm.new_full((), float(self.asked), dtype=torch.float64)
        own = torch.stack([report.loss.detach().double(), report.overflowed.double(), norm.double(), asked])
        loss, overflowed, norm, self.some_asked = distributed.mean_across_ranks(own)  # so that all ranks decide alike
        self.step_guard.guard(self.optimizer, not_finite=~torch.isfinite(norm + loss), overflowed=overflowed > 0)
        self.optimizer.step()
        if self.plateau and math.isfinite(value := float(loss)):
            self.plateau.observe(value)

    def _report_skipped(self) -> None:
        """Say which steps were skipped, and give up after a while."""
        skipped = self.step_guard.report()
        if skipped.not_finite:
            self._say(f"loss or gradient not finite; steps skipped: {skipped.not_finite}")
        if skipped.overflowed:
            self._say(f"more samples than capacity; steps skipped: {skipped.overflowed}")
        if skipped.in_a_row > MAX_BAD_STEPS:
            raise NumbersError(f"loss not finite in {skipped.in_a_row} steps in a row, last at step {self.step}")

    def _log(self, report: Report) -> None:
        due = self.step % self.config.train.log_every == 0
        values = self._quality(report) if due or self.line.due() or self.progress >= 1 else {}
        if self.communication is not None:
            self.communication.after_step()
        if due:
            rows = {f"train/{name}": value for name, value in values.items()}
            rows |= {f"train/loss/{name}": float(term) for name, term in report.terms.items()}
            rows |= {f"model/{name}": value for name, value in self.objective.model.statistics().items()}
            rows |= {f"structure/{name}": value for name, value in measures(self.objective.model).items()}
            performance = self._performance(report)
            rows |= performance | {"opt/lr": self.optimizer.param_groups[0]["lr"]}
            self.writer.scalars(self.step, rows)
            self.notes = words(performance)
        if self.sampler.chooses:  # the loss is of harder pixels than the PSNR
            values = {name.replace("loss", "loss of chosen pixels"): value for name, value in values.items()}
        self.line.update(self.step, self.progress, values, rays=self.ray_count.share.total, notes=self.notes)

    def _performance(self, report: Report) -> dict[str, float]:
        """How quick the run is, and what of the machine it uses; all ranks together."""
        seconds = max(time.perf_counter() - self.clock, 1e-9)
        rows = {"perf/rays_per_s": (self.ray_count.taken - self.taken_before) / seconds, **self.ray_count.measures()}
        if self.gradients.recording is not None:
            rows["perf/recorded"] = float(self.gradients.recording.graph is not None)
        rows["perf/samples_per_ray"] = float(report.samples) / self.ray_count.share.own
        return rows | (self.communication.read() if self.communication else {}) | gpu_load(self.ranks.device)

    def _quality(self, report: Report) -> dict[str, float]:
        """The loss of the step's rays, and their PSNR: of chosen pixels that which pixels drawn alike would have."""
        unbiased = self.sampler.unbiased_mean(report.error)
        error = float(report.squared_error) if unbiased is None else unbiased
        return {"loss": float(report.loss.detach()), "psnr": -10 * float(np.log10(max(error, 1e-10)))}

    def _try_to_save(self, *, best: bool = False) -> None:
        """Begin a checkpoint; a disk that refused the one before is a warning, and the end after some in a row.

        best: whether it is of the highest PSNR until now. Raises RanksError when the ranks' parameters differ.
        Raises NumbersError, and writes nothing, when a number of the model or the optimizer is not finite: such a
        checkpoint would push out the sound ones. Raises StorageError on every rank.
        """
        self.saving.settle(wait=True)
        check_agreement(self.objective, self.step)
        state = self._state()
        check_finite({"model": state["model"], "optimizer": state["optimizer"]}, self.step)
        self.faults.before_checkpoint(self.objective, self.step)
        self.saving.begin(self.step, state, best=best)

    def save(self) -> None:
        """As `_try_to_save`, and every rank waits until it stands. A refusal is a StorageError at once."""
        self._try_to_save()
        self.saving.settle(wait=True, tries=1)

    def _state(self) -> dict[str, Any]:
        """All that a run goes on from; tensors are those of the run. All ranks together."""
        sampler, rays = self.sampler.state_dict(), self.ray_count.state_dict()  # of all ranks
        for feedback in self.objective.feedback:
            feedback.fold()
        return {
            "model": self.objective.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "sampler": sampler,
            "scene": scene_state(self.scene),
            "plateau": self.plateau.state_dict() if self.plateau else None,
            "rays": rays,
            "progress": self.progress,
            "clocks": [self.elapsed(), self.cpu()],
            "rate_scale": self.rate_scale,
            "best": None if self.best == -math.inf else self.best,
        }

    def _roll_back(self, error: NumbersError) -> None:
        """Go on from the newest checkpoint at half the rates, once in a run; the second time the error stands."""
        self.saving.settle(wait=True)
        checkpoint = newest_checkpoint(self.folder / "checkpoints")
        if self.rate_scale < 1 or checkpoint is None:
            raise error
        self.writer.close()
        self.load(checkpoint)
        self.gradients.resize(self.ray_count.share)
        self.saving.newest = None  # its rates were others
        self.rate_scale, self.step_guard = ROLLED_BACK, StepGuard(self.ranks.device)
        self.writer = self._open_writer(self.step)
        self.clock, self.cpu_clock = time.perf_counter(), time.process_time()
        self.progress = self._progress()
        self._say(f"warning: {error} - back to the checkpoint of step {self.step}, on with half the learning rates")

    def load(self, checkpoint: Path) -> None:
        """Go on from a checkpoint. Raises InputError when it belongs to another model, scene or optimizer.

        Restored: parameters and grids, the optimizer's moments, the stream of pixels with its map of errors, the rays
        of a step, the plateau, step, clocks, and whether the rates were halved. Rates, betas and the like are those of
        the config. Schedules, the random stream and static capacities follow from step and config; cameras are read
        from the data again, and so are splits, unless the same views were split otherwise when the run began.
        """
        saved = read_saved(checkpoint)
        check_scene(self.scene, saved.scene.world_from_scene, saved.source)
        splits = own_splits(self.scene, saved.scene)
        if splits is not None:  # what was held out stays held out
            self.scene = replace(self.scene, splits=splits)
            self.sampler.free()
            self.sampler = self._open_sampler()
        load_model(self.objective.model, saved.model)
        load_optimizer(self.optimizer, saved.optimizer)
        self.ray_count.load_state_dict(saved.rays, saved.step)
        share_out(self.sampler, self.ray_count.share)
        self.sampler.load_state_dict(saved.sampler, source=saved.source)
        if self.plateau and saved.plateau is not None:
            self.plateau.load_state_dict(saved.plateau)
        self.step, self.rate_scale = saved.step, saved.rate_scale
        self.seconds, self.cpu_seconds = saved.clocks
        self.best = -math.inf if saved.best is None else saved.best

    def elapsed(self) -> float:
        """Wall seconds of training so far, resumptions included."""
        return self.seconds + time.perf_counter() - self.clock

    def cpu(self) -> float:
        """CPU seconds of training so far, this rank's."""
        return self.cpu_seconds + time.process_time() - self.cpu_clock

    def _validate(self) -> float:
        """Show a few held-out views, always the same; their mean PSNR, dB, which the main rank knows alone."""
        views, quality = self.scene.splits["test"], -math.inf
        if self.ranks.is_main and len(views):
            shown = handful(views)  # the same at each validation, so that its numbers compare
            model, device = self.objective.model, self.ranks.device
            scene = scene_of_training(self.scene, model.poses)
            found = [validate(model, scene, view, device, step=self.step) for view in shown]
            picture, quality = stacked([row for row, _ in found]), sum(psnr for _, psnr in found) / len(found)
            try:
                write_png(self.folder / "images" / f"step_{self.step:08d}.png", picture)
            except StorageError as error:  # no picture is worth a run
                self._say(f"warning: {error}")
            self.writer.image(self.step, "val/rgb_error_depth_normal", picture)
            for name, structure in pictures_of(model):
                self.writer.image(self.step, f"structure/{name}", structure)
            each = {f"val/psnr/{scene.names[view]}": psnr for view, (_, psnr) in zip(shown, found, strict=True)}
            trained = training_psnr(model, scene, device)
            self.writer.scalars(self.step, {"val/psnr": quality, "train/psnr_views": trained, **each})
            self._say(f"{len(shown)} held-out views: PSNR {quality:.2f} dB; as many training views: {trained:.2f} dB")
            for warning in self.diagnostics.apart(trained, quality, against_parting(self.config), self.progress):
                self._say(f"warning: {warning}")
        distributed.barrier()
        return quality

    def _is_best(self, quality: float) -> bool:
        """Whether it is to be kept as better than all before. quality: PSNR of held-out views, dB, the main rank's."""
        quality = distributed.broadcast_from_main(quality)
        better = self.config.train.keep_best and quality > self.best
        self.best = quality if better else self.best
        return better

    def attend(self, stopped: Callable[[], bool]) -> None:
        """Do what a viewer asks: a checkpoint, a pause, whose time does not count; `stopped` ends that too."""
        if self.ranks.world == 1 and self.remote.due():
            waited = self.remote.attend(self._try_to_save, self._say, stopped)
            self.clock, self.saving.begun_at = self.clock + waited, self.saving.begun_at + waited

    def close(self) -> None:
        """End the threads: one that writes a checkpoint, those that gather pixels, and those that share a step."""
        for part in (self.saving, self.sampler, self.gradients):
            part.close()
        if self.lock is not None:
            self.lock.release()

    def finish(self) -> None:
        """The last checkpoint, and the run's own numbers in metrics.json."""
        self._report_skipped()
        self.saving.settle(wait=True)
        if self.saving.newest != self.step:
            self.save()
        if self.ranks.is_main:
            rays, seconds = self.ray_count.taken, self.elapsed()
            train = summary(self.ranks, steps=self.step, rays=rays, seconds=seconds, cpu_seconds=self.cpu())
            made = ("config.yaml", "checkpoints", "metrics.jsonl", "messages.jsonl", "images")
            note_command(self.folder, [self.folder / name for name in made])
            update_results(self.folder / "metrics.json", train=train)
        self.line.close()
        self.writer.close()
        if self.ranks.is_main:
            print(f"{self.folder}: {self.step} steps, {100 * self.progress:.0f} % of the budget")
