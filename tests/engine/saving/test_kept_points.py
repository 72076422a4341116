"""The points of a run: found once, the same when it goes on, found anew where their file is of no use."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dataio import scene as scenes
from dataio.scene import Scene
from dataio.sfm.triangulation import SparsePoints
from engine.saving import kept_points
from tests.dataio.test_sparse_points import demo
from tests.engine.test_training import SMALL, SPHERE, trained

POINTS = SparsePoints(
    np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32) * np.float32(0.3),
    np.repeat(np.arange(400), 3),
    np.tile(np.arange(3), 400),
)


def copy(scene: Scene) -> Scene:
    return replace(scene)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return demo()


def test_what_was_found_comes_back(scene: Scene, tmp_path: Path) -> None:
    asked = copy(scene)
    kept_points.keep(tmp_path, asked)
    assert not list(tmp_path.iterdir())  # nobody has asked for points
    vars(asked)["dense_points"] = POINTS
    kept_points.keep(tmp_path, asked)
    other = copy(scene)
    kept_points.restore(tmp_path, other)
    for name in ("position", "point", "view"):
        before, after = getattr(POINTS, name), getattr(other.dense_points, name)
        assert before.dtype == after.dtype and np.array_equal(before, after)


@pytest.mark.parametrize("harm", ["cut", "no file of ours", "a point too many", "another scene's", "not finite"])
def test_a_file_of_no_use_is_said_and_left(
    scene: Scene, tmp_path: Path, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, file = copy(scene), tmp_path / "points.npz"
    position, point, view = POINTS.position.copy(), POINTS.point.copy(), POINTS.view.copy()
    if harm == "a point too many":
        point[7] = 400
    elif harm == "another scene's":
        view[7] = len(scene.cameras)
    elif harm == "not finite":
        position[3, 1] = np.nan
    vars(asked)["dense_points"] = SparsePoints(position, point, view)
    kept_points.keep(tmp_path, asked)
    if harm == "cut":
        file.write_bytes(file.read_bytes()[:500])
    elif harm == "no file of ours":
        np.savez(file, a=np.zeros(3))
    other = copy(scene)
    kept_points.restore(tmp_path, other)
    assert "dense_points" not in vars(other)
    assert "points are looked for anew" in capsys.readouterr().err


def test_a_run_that_goes_on_does_not_look_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And has the same points, though it would find others now."""
    calls: list[int] = []

    def found(*_: object) -> SparsePoints:
        calls.append(1)
        return replace(POINTS, position=POINTS.position + np.float32(0.1) * (len(calls) - 1))

    monkeypatch.setattr(scenes, "densified", found)
    with_points = [*SMALL, SPHERE, "losses={points: {type: points, weight: 0.1}}"]
    trained(tmp_path, 2, *with_points).close()
    again = trained(tmp_path, 4, *with_points)
    context = again.objective.context
    assert len(calls) == 1 and context.points is not None
    assert set(map(tuple, context.points.point.tolist())) <= set(map(tuple, POINTS.position.tolist()))
    again.close()
