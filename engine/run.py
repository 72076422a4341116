"""A run folder, opened: everything that a script after training needs, without the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dataio.cameras import Cameras
from dataio.georeference import Georeference
from dataio.recognition import AutoData
from dataio.scene import DataConfig, Scene
from engine.build import renamed
from engine.early import run_folder
from engine.experiment import ExperimentConfig, read_config
from engine.poses import Placed, place_cameras, placed_scene
from engine.saved import SavedScene, read_saved
from models.model import Model
from models.optimizers.together import Optimizers
from models.samples import Points
from utils import memory
from utils.checkpoint import best_checkpoint, newest_checkpoint
from utils.distributed import choose_device
from utils.entries import Entry, described, is_plain
from utils.errors import InputError, printable

NEVER_NEGATIVE = {"step", "exp_avg_sq", "square_avg"}  # of what optimizers keep, by torch's names


@dataclass(frozen=True)
class Run:
    """A trained model with the frame of its scene: everything that a script after training needs.

    cameras: all views, scene frame, on `device`, as the model sees them: what it learned of their poses is in them, and
    no longer in the model. placed: how they were moved, None where they were not. splits: "train", "test" -> indices of
    views. up: world frame.
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
    placed: Placed | None = None

    @staticmethod
    def open(path: str | Path, device: str = "auto", overrides: Sequence[str] = ()) -> Run:
        """A run folder (its newest sound checkpoint) or a checkpoint folder. Raises InputError."""
        folder, checkpoint = find_checkpoint(Path(path))
        on = choose_device(device)
        if on.type == "cpu":
            memory.limit()
        config = read_config(folder / "config.yaml", overrides, saved=True)
        saved = read_saved(checkpoint)
        kept = saved.scene
        model = Model(config.model, data_color=kept.background, cameras=len(kept.cameras))
        load_model(model, saved.model)
        model.update(saved.progress)
        poses = model.poses
        placed = place_cameras(poses, kept.cameras, kept.splits["train"]) if poses is not None else None
        model.poses = None
        return Run(
            folder=folder,
            config=config,
            device=on,
            model=model.to(on).eval(),
            cameras=(placed.cameras if placed is not None else kept.cameras).to(on),
            splits=kept.splits,
            names=kept.names,
            world_from_scene=kept.world_from_scene,
            up=kept.up,
            georeference=kept.georeference,
            step=saved.step,
            placed=placed,
        )

    def load_scene(self, path: str | None = None) -> Scene:
        """The images again from disk, in this run's scene frame; with `path`, those of other data.

        Where poses were learned, the cameras are this run's, and those of other data are moved along with them. Raises
        InputError for data that cannot be used, or that have other views than this run.
        """
        data = self.config.data
        if path is not None:
            data = AutoData(**{**data.model_dump(include=set(DataConfig.model_fields)), "path": path})
        elif data.path is not None:
            self._need_data(Path(data.path))
        scene = data.load().reframed(self.world_from_scene)
        if path is None and scene.names == self.names:
            scene = replace(scene, splits=self.splits)  # what the run has held out, however it is chosen by now
        if self.placed is None:
            return scene
        if path is not None:
            return placed_scene(scene, self.placed, scene.cameras.transformed(self.placed.similarity))
        if len(scene.cameras) != len(self.cameras):
            raise InputError(
                f"{self.folder}: it has learned the poses of {len(self.cameras)} views - the data have"
                f" {len(scene.cameras)} - expected the data of the run"
            )
        pose, near = (x.cpu() for x in (self.cameras.camera_to_world, self.cameras.near))
        return placed_scene(scene, self.placed, replace(scene.cameras, camera_to_world=pose, near=near))

    def _need_data(self, path: Path) -> None:
        """Raises InputError where the run's data are gone, or the script runs somewhere else than training did."""
        if not path.expanduser().exists():
            seen = "" if path.is_absolute() else ", as seen from where train.py ran"
            raise InputError(
                f"data.path: {printable(str(path))} - no such file or folder - {self.folder / 'config.yaml'} names"
                f" it{seen}; evaluate.py --data PATH names another"
            )

    @torch.no_grad()
    def surface_value(self, points: Tensor) -> Tensor:
        """[N, 3] scene frame -> [N] on the points' device: zero on the surface, positive outside."""
        return self.model.surface_value(points.to(self.device, torch.float32)).to(points.device)

    @torch.no_grad()
    def surface_color(self, points: Tensor, directions: Tensor) -> Tensor:
        """Color [N, 3] in [0, 1] of surface points [N, 3] seen along unit directions [N, 3]; scene frame."""
        x, ways = points.to(self.device, torch.float32), directions.to(self.device, torch.float32)
        return self.model.foreground.shaded(Points(x, ways))[1].to(points.device)

    def world_points(self, points: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
        """[N, 3] scene frame -> world frame."""
        return points @ self.world_from_scene[:3, :3].T + self.world_from_scene[:3, 3]


def open_teacher(path: str, scene: Scene, device: torch.device) -> Model:
    """The trained model of a run folder, for losses; raises InputError when its scene frame is another one."""
    run = Run.open(path, device=str(device))
    check_scene(scene, run.world_from_scene, f"teacher: {path}")
    return run.model.requires_grad_(False)


def load_model(model: Model, saved: Entry) -> None:
    """Load weights; raises InputError, and changes nothing, when they belong to another model or are not numbers.

    Parameters of earlier versions are found by their names of today.
    """
    state = {renamed(str(name)): value for name, value in saved.mapping().items()}
    full = model.state_dict()
    own = {name: tuple(x.shape) for name, x in full.items() if isinstance(x, Tensor)}
    given = {name: tuple(x.shape) for name, x in state.items() if is_plain(x)}
    if own != given:
        name = sorted(set(own.items()) ^ set(given.items()))[0][0]
        raise InputError(
            f"{saved.source}: a checkpoint of another model - {name} is {given.get(name, 'missing')}"
            f" - expected {own.get(name, 'no such parameter')}"
        )
    Entry(state, saved.name, saved.source).like(full)
    try:
        model.load_state_dict(state)
    except ValueError as error:  # a part that cannot be in this state
        raise InputError(f"{saved.source}: {error}") from error


def load_optimizer(optimizer: Optimizers, saved: Entry) -> None:
    """Load moments and counts of steps; rates, betas, eps and decay stay those that the optimizer was built with.

    Raises InputError when the state has other groups of parameters, or is that of another rule or of other parameters.
    """
    _check_groups(optimizer, list(saved["param_groups"]), saved.source)
    moments, fresh = saved["state"].mapping(), optimizer.fresh_state()
    for index, state in moments.items():
        if type(index) is not int or index not in fresh:
            raise saved["state"].refused(f"moments of parameters 0 to {len(fresh) - 1}, not of {described(index)}")
        _check_moments(Entry(state, f"{saved.name}.state.{index}", saved.source), fresh[index])
    optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})


def _check_moments(saved: Entry, fresh: dict[str, Tensor] | None) -> None:
    if fresh is not None:
        saved.like(fresh)
    for name in NEVER_NEGATIVE & saved.mapping().keys():
        value = saved[name].value
        if not isinstance(value, Tensor) or bool((value < 0).any()):
            raise saved[name].refused("numbers from 0")


def _check_groups(optimizer: Optimizers, groups: Sequence[Entry], source: str) -> None:
    given = [len(list(group["params"])) for group in groups]
    own = [len(group["params"]) for group in optimizer.param_groups]
    if given != own:
        raise InputError(
            f"{source}: its optimizer has groups of {given} parameters - expected {own}: the number of different rates"
            " in optimizer.lr and optimizer.parts cannot change in a run"
        )
    rules = [group["rule"] for group in optimizer.param_groups]
    before = [printable(str(group.mapping().get("rule", "Adam"))[:60]) for group in groups]
    if rules != before:
        raise InputError(
            f"{source}: its optimizer has groups by {', '.join(before)} - expected {', '.join(rules)}: the moments of"
            " one type mean nothing to another, optimizer.type cannot change in a run"
        )


def own_splits(scene: Scene, kept: SavedScene) -> dict[str, npt.NDArray[np.int64]] | None:
    """The splits with which a run began, where it has the views of a scene and they are split otherwise; else None."""
    before = kept.splits
    same = before.keys() == scene.splits.keys() and all(np.array_equal(before[x], scene.splits[x]) for x in before)
    return None if same or kept.names != scene.names else before


def check_scene(scene: Scene, before: npt.NDArray[np.float64], source: str) -> None:
    """Raises InputError when the scene frame is not that of a run: its weights mean nothing in another one.

    before: [4, 4], the run's world_from_scene.
    """
    now = scene.world_from_scene
    if not np.allclose(before, now, rtol=1e-5, atol=1e-5 * float(np.abs(before).max())):
        spheres = [
            f"{np.round(frame[:3, 3], 3).tolist()}, radius {np.cbrt(np.linalg.det(frame[:3, :3])):.4g}"
            for frame in (before, now)
        ]
        raise InputError(
            f"{source}: the run's unit sphere is at {spheres[0]} - that of these data at {spheres[1]} - give the data"
            " of the run, or name another output=FOLDER"
        )


def find_checkpoint(path: Path, *, best: bool = False) -> tuple[Path, Path]:
    """The run folder and the checkpoint that `path` means: that one itself, or of a run the newest or the best.

    Raises InputError where there is none.
    """
    folder = run_folder(path)
    if (path / "manifest.json").is_file():
        return folder, path
    place = folder / "checkpoints"
    checkpoint = (best_checkpoint if best else newest_checkpoint)(place)
    if checkpoint is None:
        kind, how = ("best", "train with train.keep_best=true") if best else ("complete", "train it first")
        raise InputError(f"{folder}: no {kind} checkpoint{'' if best else f' in {place}'} - {how}")
    return folder, checkpoint
