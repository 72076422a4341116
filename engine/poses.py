"""Cameras after training: those that were trained on as the model has refined them, the others aligned to these."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from dataio.alignment import fit_poses, pose_distances
from dataio.cameras import Cameras
from dataio.pictures.pictures import Pictures
from dataio.scene import Scene
from models.poses.base import Poses


@dataclass(frozen=True)
class Placed:
    """Cameras where the model sees them.

    Training moves the whole scene a little, as photographs do not tell where it is: a camera that was not trained on is
    brought along by the similarity that leads the training cameras to where they have come. cameras: [C] scene frame.
    similarity: [4, 4], from the frame of the cameras as they were given. turn, shift: mean change of a training camera
    beyond the similarity, in degrees and scene units.
    """

    cameras: Cameras
    similarity: npt.NDArray[np.float64]
    turn: float
    shift: float


def place_cameras(poses: Poses, cameras: Cameras, trained: npt.NDArray[np.int64]) -> Placed:
    """All cameras [C] of a scene, of which `trained` [N] were trained on. Raises ValueError for another number."""
    refined = poses.refined(cameras)
    before, after = (_poses(x)[trained] for x in (cameras, refined))
    similarity = fit_poses(before, after)
    aligned = cameras.transformed(similarity)
    keep = torch.zeros(len(cameras), dtype=torch.bool)
    keep[torch.from_numpy(trained)] = True
    keep = keep.to(cameras.camera_to_world.device)
    pose = torch.where(keep[:, None, None], refined.camera_to_world, aligned.camera_to_world)
    placed = replace(aligned, camera_to_world=pose, near=torch.where(keep, cameras.near, aligned.near))
    turn, shift = pose_distances(_poses(aligned)[trained], after)
    return Placed(placed, similarity, float(turn.mean()), float(shift.mean()))


def scene_of_training(scene: Scene, poses: Poses | None) -> Scene:
    """The scene with held-out cameras brought to where training has moved the others; the model itself moves these."""
    if poses is None:
        return scene
    given, trained = scene.cameras, scene.splits["train"]
    placed = place_cameras(poses, given, trained).cameras
    pose = placed.camera_to_world.clone()
    pose[trained] = given.camera_to_world[trained]
    return replace(scene, cameras=replace(placed, camera_to_world=pose))


def placed_scene(scene: Scene, placed: Placed, cameras: Cameras) -> Scene:
    """The scene with these cameras, and with depths as long as the similarity makes them."""
    scale = float(np.cbrt(np.linalg.det(placed.similarity[:3, :3])))
    depths = None if scene.depths is None else Pictures.of(scene.depths).times(scale)
    return replace(scene, cameras=cameras, depths=depths)


def _poses(cameras: Cameras) -> npt.NDArray[np.float64]:
    return np.asarray(cameras.camera_to_world.double().cpu().numpy())
