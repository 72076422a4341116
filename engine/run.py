"""A run folder, opened: everything that a script after training needs, without the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dataio.cameras import Cameras
from dataio.georeference import Georeference
from dataio.scene import AutoData, Scene
from engine.build import renamed
from engine.experiment import ExperimentConfig, read_config
from engine.poses import Placed, place_cameras, placed_scene
from models.model import Model
from models.samples import Points
from utils.checkpoint import load_checkpoint, newest_checkpoint
from utils.distributed import choose_device
from utils.errors import InputError


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
        folder, checkpoint = _find(Path(path))
        config = read_config(folder / "config.yaml", overrides, saved=True)
        state, manifest = load_checkpoint(checkpoint)
        kept = state["scene"]
        background = kept["background"]
        cameras = Cameras.from_state(kept["cameras"])
        color = tuple(background) if background is not None else None
        model = Model(config.model, data_color=color, cameras=len(cameras))
        load_model(model, state["model"], f"{checkpoint}")
        model.update(float(state["progress"]))
        on = choose_device(device)
        splits = {name: index.numpy() for name, index in kept["splits"].items()}
        placed = place_cameras(model.poses, cameras, splits["train"]) if model.poses is not None else None
        model.poses = None
        return Run(
            folder=folder,
            config=config,
            device=on,
            model=model.to(on).eval(),
            cameras=(placed.cameras if placed is not None else cameras).to(on),
            splits=splits,
            names=list(kept["names"]),
            world_from_scene=kept["world_from_scene"].numpy(),
            up=kept["up"].numpy(),
            georeference=Georeference(*place) if (place := kept.get("georeference")) else None,
            step=int(manifest["step"]),
            placed=placed,
        )

    def load_scene(self, path: str | None = None) -> Scene:
        """The images again from disk, in this run's scene frame; with `path`, those of other data.

        Where poses were learned, the cameras are this run's, and those of other data are moved along with them. Raises
        InputError for data that cannot be used, or that have other views than this run.
        """
        data = self.config.data
        if path is not None:
            data = AutoData(**{**data.model_dump(exclude={"type"}, include=set(AutoData.model_fields)), "path": path})
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
    check_scene(scene, {"world_from_scene": torch.from_numpy(run.world_from_scene)}, f"teacher: {path}")
    return run.model.requires_grad_(False)


def load_model(model: Model, state: dict[str, Any], source: str) -> None:
    """Load weights; raises InputError, and changes nothing, when they belong to another model.

    Parameters of earlier versions are found by their names of today.
    """
    state = {renamed(name): value for name, value in state.items()}
    own = {name: tuple(value.shape) for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    given = {name: tuple(value.shape) for name, value in state.items() if isinstance(value, Tensor)}
    if own != given:
        name = sorted(set(own.items()) ^ set(given.items()))[0][0]
        raise InputError(
            f"{source}: a checkpoint of another model - {name} is {given.get(name, 'missing')}"
            f" - expected {own.get(name, 'no such parameter')}"
        )
    model.load_state_dict(state)


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any], source: str) -> None:
    """Load moments and counts of steps; rates, betas, eps and decay stay those that the optimizer was built with.

    Raises InputError when the state has other groups of parameters, or is that of another rule.
    """
    options = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
    given = [len(group["params"]) for group in state.get("param_groups", ())]
    own = [len(group["params"]) for group in optimizer.param_groups]
    if given != own:
        raise InputError(
            f"{source}: its optimizer has groups of {given} parameters - expected {own}: the number of different rates"
            " in optimizer.lr and optimizer.parts cannot change in a run"
        )
    rules, before = ([group.get("rule", "Adam") for group in of["param_groups"]] for of in (vars(optimizer), state))
    if rules != before:
        raise InputError(
            f"{source}: its optimizer has groups by {', '.join(before)} - expected {', '.join(rules)}: the moments of"
            " one type mean nothing to another, optimizer.type cannot change in a run"
        )
    optimizer.load_state_dict(state)
    for group, kept in zip(optimizer.param_groups, options, strict=True):
        group.update(kept)


def own_splits(scene: Scene, kept: dict[str, Any]) -> dict[str, npt.NDArray[np.int64]] | None:
    """The splits with which a run began, where it has the views of a scene and they are split otherwise; else None."""
    before = {name: index.numpy() for name, index in kept["splits"].items()}
    same = before.keys() == scene.splits.keys() and all(np.array_equal(before[x], scene.splits[x]) for x in before)
    return None if same or list(kept["names"]) != scene.names else before


def check_scene(scene: Scene, kept: dict[str, Any], source: str) -> None:
    """Raises InputError when the scene frame is not that of a run: its weights mean nothing in another one."""
    before, now = kept["world_from_scene"].numpy(), scene.world_from_scene
    if not np.allclose(before, now, rtol=1e-5, atol=1e-5 * float(np.abs(before).max())):
        spheres = [
            f"{np.round(frame[:3, 3], 3).tolist()}, radius {np.cbrt(np.linalg.det(frame[:3, :3])):.4g}"
            for frame in (before, now)
        ]
        raise InputError(
            f"{source}: the run's unit sphere is at {spheres[0]} - that of these data at {spheres[1]} - give the data"
            " of the run, or name another output=FOLDER"
        )


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
