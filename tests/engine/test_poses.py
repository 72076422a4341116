"""Runs that learn their cameras' poses: what is optimized, what is kept, what later scripts see."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import evaluate
from dataio.alignment import fit_poses, pose_distances
from dataio.batches import RayBatch
from engine import build, experiment, resume
from engine.poses import place_cameras, scene_of_training
from engine.run import Run
from models.losses.base import Step
from models.model import Model
from tests.engine.test_training import SMALL, SPHERE, assert_equal, quick_hulls, state_of, trained
from tests.models.test_poses import KINDS, cameras, moved
from utils import distributed
from utils.errors import InputError

__all__ = ["quick_hulls"]

ROOT = Path(__file__).resolve().parents[2]
LEARNED = ("model.poses.type=so3xr3", "optimizer.parts.poses=0.007", SPHERE)


def similarity() -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = 1.1 * np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    matrix[:3, 3] = 0.1, -0.2, 0.3
    return matrix


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_similarity_of_poses_is_found(count: int) -> None:
    given = cameras()[: max(count, 1)]
    target = given.transformed(similarity())
    before, after = (x.camera_to_world.double().numpy() for x in (given, target))
    found = fit_poses(before, after)
    if count > 1:
        np.testing.assert_allclose(found, similarity(), atol=1e-5)
    aligned = given.transformed(found).camera_to_world.double().numpy()
    np.testing.assert_allclose(aligned, after, atol=1e-5)
    angle, distance = pose_distances(aligned, after)
    assert angle.max() < 1e-3 and distance.max() < 1e-5


def test_angles_between_poses() -> None:
    poses = moved("so3xr3", 0.0)
    with torch.no_grad():
        poses.correction[:, 0] = torch.tensor([0.0, 1e-3, 0.1, 1.0, 3.0])
        poses.correction[:, 4] = torch.arange(5.0)
    given, after = (x.camera_to_world.double().numpy() for x in (cameras(), poses.refined(cameras())))
    angle, distance = pose_distances(given, after)
    np.testing.assert_allclose(np.radians(angle), [0.0, 1e-3, 0.1, 1.0, 3.0], atol=1e-6)
    np.testing.assert_allclose(distance, np.arange(5.0), atol=1e-5)


def test_what_was_not_trained_on_comes_along() -> None:
    """The trained cameras have moved by a similarity alone: then all have, and none beyond it."""
    given, train = cameras(), np.array([0, 1, 3])
    target = given.transformed(similarity())
    poses = KINDS["so3xr3"].build(5)
    turn = torch.tensor([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
    assert torch.allclose(target.camera_to_world[:, :, :3], turn @ given.camera_to_world[:, :, :3], atol=1e-6)
    with torch.no_grad():
        poses.correction[train, 2] = float(np.arctan2(0.6, 0.8))
        poses.correction[train, 3:] = (target.centers - given.centers)[train]
    placed = place_cameras(poses, given, train)
    torch.testing.assert_close(placed.cameras.camera_to_world, target.camera_to_world, atol=2e-6, rtol=0)
    np.testing.assert_allclose(placed.similarity, similarity(), atol=1e-5)
    assert placed.turn < 1e-3 and placed.shift < 1e-5


def test_a_run_learns_its_training_cameras_and_goes_on_as_if_unbroken(tmp_path: Path) -> None:
    whole = trained(tmp_path / "whole", 4, *LEARNED)
    poses = whole.objective.model.poses
    assert poses is not None
    train, test = (whole.scene.splits[name] for name in ("train", "test"))
    assert bool((poses.correction[train].abs() > 1e-4).all()) and not poses.correction[test].any()
    group = [group for group in whole.optimizer.param_groups if group["base_lr"] == 0.007]
    assert len(group) == 1 and len(group[0]["params"]) == 1 and group[0]["params"][0] is poses.correction

    shown = poses.refined(scene_of_training(whole.scene, poses).cameras)  # moved once, by the model
    placed = place_cameras(poses, whole.scene.cameras, train).cameras
    torch.testing.assert_close(shown.camera_to_world, placed.camera_to_world, atol=1e-6, rtol=0)

    settings = [*SMALL, "train.steps=4", *LEARNED]
    read = experiment.read_config(ROOT / "configs/neus_hash.yaml", settings)
    first = resume.open_trainer(read, tmp_path / "parts", distributed.setup("cpu"), allow_config_change=False)
    assert first is not None
    for _ in range(2):
        first.step_once()
    first.save()
    first.close()
    first.writer.close()
    assert trained(tmp_path / "parts", 4, *LEARNED).begun_at == 2
    assert_equal(state_of(tmp_path / "whole"), state_of(tmp_path / "parts"))

    run = Run.open(tmp_path / "whole")
    assert run.model.poses is None and run.placed is not None
    refined = poses.refined(whole.scene.cameras)
    assert torch.equal(run.cameras[train].camera_to_world, refined[train].camera_to_world)
    assert not torch.equal(run.cameras[test].camera_to_world, whole.scene.cameras[test].camera_to_world)
    again = run.load_scene()
    torch.testing.assert_close(again.cameras.camera_to_world, run.cameras.camera_to_world)


def test_a_run_renders_what_it_was_trained_on(tmp_path: Path) -> None:
    """A training view by the refined camera, and in training by the given one and its correction."""
    run = trained(tmp_path, 3, *LEARNED)
    opened, model = Run.open(tmp_path), run.objective.model.eval()
    view = int(run.scene.splits["train"][0])
    camera, pixels = torch.full((50,), view), run.scene.cameras.pixel_grid(view)[200:250]
    with torch.no_grad():
        within = model(run.scene.cameras.rays(camera, pixels)).color
        later = opened.model(opened.cameras.rays(camera, pixels)).color
        without = opened.model(run.scene.cameras.rays(camera, pixels)).color
    off = float((within - later).abs().mean())  # a sample may fall on the other side of a cell's wall
    assert off < 2e-3 and float((within - without).abs().mean()) > 5 * off


def test_evaluation_says_how_far_cameras_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(tmp_path, 3, *LEARNED)
    monkeypatch.setattr("sys.argv", ["evaluate.py", str(tmp_path), "--device", "cpu"])
    assert evaluate.main() == 0
    block = json.loads((tmp_path / "metrics.json").read_text())["poses"]
    assert block["cameras"] == 4
    assert 0 < block["rotation_degrees"] < 5 and 0 < block["translation_scene_units"] < 0.1


def test_other_data_are_refused_or_moved_along(tmp_path: Path) -> None:
    trained(tmp_path, 2, *LEARNED)
    with pytest.raises(InputError, match="learned the poses of 5 views - the data have 6 - expected"):
        Run.open(tmp_path, overrides=["data.views=5"]).load_scene()


def test_poses_without_an_entry_and_an_entry_without_poses() -> None:
    read = experiment.read_config(ROOT / "configs/neus_hash_poses.yaml", ["model.poses=null"])
    build.check_optimizer(read)
    read = experiment.read_config(ROOT / "configs/neus_hash_poses.yaml")
    build.check_optimizer(read)
    model = Model(read.model, cameras=7)
    assert model.poses is not None and model.poses.correction.shape == (7, 6)
    with pytest.raises(InputError, match="choices: se3, so3xr3"):
        experiment.read_config(ROOT / "configs/neus_hash_poses.yaml", ["model.poses.type=so3"])


def test_losses_see_the_rays_that_were_rendered(tmp_path: Path) -> None:
    run = trained(tmp_path, 1, *LEARNED)
    seen: list[RayBatch] = []
    losses = run.objective.losses
    kept = losses["color"]

    class Spy:
        def __call__(self, step: Step) -> torch.Tensor:
            seen.append(step.batch)
            return kept(step)

    losses["color"] = Spy()  # type: ignore[assignment]
    batch = next(run.sampler)
    run.objective(batch)
    moved = run.objective.model.posed(batch.rays)
    assert torch.equal(seen[0].rays.origins, moved.origins) and moved.origins.requires_grad
