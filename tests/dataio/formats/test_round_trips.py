"""The demo's scene written in every format and read back: the same rays to 1e-5 of its radius, the same pixels."""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from dataio import export
from dataio.cameras import Cameras
from dataio.formats.blendedmvs import BlendedMvsData
from dataio.formats.colmap import ColmapData
from dataio.formats.dtu import DtuData
from dataio.formats.llff import LlffData
from dataio.formats.nerfpp import NerfPlusPlusData
from dataio.formats.procedural import ProceduralData
from dataio.formats.transforms import TransformsData
from dataio.lens import Lens
from dataio.scene import DataConfig, Scene
from tests.support import made_models
from tests.support.made_models import Shot
from utils.errors import InputError

BENDS = {
    Lens.BROWN: [0.05, -0.08, -0.001, 0.0002, 0.01, 0.02, -0.01, 0.003],
    Lens.FISHEYE: [0.03, -0.01, 0.004, -0.001],
    Lens.THIN_PRISM_FISHEYE: [0.03, -0.01, 0.001, -0.002, 0.004, -0.001, 0.002, -0.003],
    Lens.RADIAL_TANGENTIAL_PRISM_FISHEYE: [
        0.03, -0.01, 0.004, -0.001, 5e-4, -2e-4, 1e-3, -2e-3, 2e-3, -3e-3, 1e-3, 4e-4
    ],
    Lens.FIELD_OF_VIEW: [0.9],
    Lens.DIVISION: [-0.2],
    Lens.UNIFIED: [0.6, 1.1],
}  # fmt: skip


@cache
def demo() -> Scene:
    """Eight small views; with points, so that those make the way too."""
    scene = ProceduralData(views=6, test_views=2, size=32, depths=True).load()
    points = np.random.default_rng(0).normal(scale=0.3, size=(50, 3)).astype(np.float32)
    return replace(scene, points=points)


def shot_of(scene: Scene) -> Shot:
    """The scene as its writers in the tests want it."""
    calibration = scene.cameras.intrinsics.double().numpy()
    points = export.world_points(scene)
    assert points is not None
    return Shot(export.world_poses(scene), calibration, list(scene.images), [f"{i:06d}.png" for i in range(8)], points)


def frame(scene: Scene) -> dict[str, object]:
    """Options that give the read scene the same unit sphere and leave the pictures as they are."""
    center, radius = scene.world_from_scene[:3, 3], float(np.cbrt(np.linalg.det(scene.world_from_scene[:3, :3])))
    return {"center": tuple(center.tolist()), "radius": radius, "masks": "keep"}


def same(read: Scene, scene: Scene, order: list[int]) -> None:
    """Rays and pixels of `read` are those of the views `order` of `scene`."""
    back = read.reframed(scene.world_from_scene)
    pixels = scene.cameras.pixel_grid(0)
    for ours, theirs in enumerate(order):
        assert np.array_equal(read.images[ours], scene.images[theirs])
        a = back.cameras.rays(torch.full((len(pixels),), ours), pixels)
        b = scene.cameras.rays(torch.full((len(pixels),), theirs), pixels)
        assert (a.origins - b.origins).abs().max() < 1e-5
        assert (a.directions - b.directions).abs().max() < 1e-5


MADE: dict[str, tuple[Callable[[Shot, Path], None], type[DataConfig]]] = {
    "COLMAP text": (made_models.colmap_text, ColmapData),
    "COLMAP binary": (made_models.colmap_binary, ColmapData),
    "LLFF": (made_models.llff, LlffData),
    "NeRF++": (made_models.nerfpp, NerfPlusPlusData),
    "BlendedMVS": (made_models.blendedmvs, BlendedMvsData),
    "DTU": (lambda shot, folder: made_models.dtu(shot, folder, demo().world_from_scene), DtuData),
}


@pytest.mark.parametrize("name", MADE)
def test_made_formats(tmp_path, name):
    scene, (write, reader) = demo(), MADE[name]
    write(shot_of(scene), tmp_path)
    options = frame(scene) | {"masks": "off"}
    read = reader(path=str(tmp_path), **options).load()
    same(read, scene, list(range(8)))
    if "COLMAP" in name:
        assert read.points is not None and scene.points is not None
        np.testing.assert_allclose(read.points, scene.points, atol=1e-5)


@pytest.mark.parametrize("name", ["transforms", "colmap"])
def test_our_own_writers(tmp_path, name):
    scene = demo()
    write, reader = {
        "transforms": (export.write_transforms, TransformsData), "colmap": (export.write_colmap, ColmapData)
    }[name]  # fmt: skip
    write(scene, tmp_path)
    read = reader(path=str(tmp_path), **frame(scene)).load()
    order = [scene.names.index(name.removeprefix("images/").removesuffix(".png")) for name in read.names]
    same(read, scene, order)
    assert read.masks is not None and scene.masks is not None and scene.points is not None and read.points is not None
    assert all(np.array_equal(read.masks[i], scene.masks[n]) for i, n in enumerate(order))
    np.testing.assert_allclose(read.points, scene.points, atol=1e-5)
    assert [scene.names[order[i]] for i in read.splits["test"]] == ["test/006", "test/007"]
    if name == "transforms":
        assert read.depths is not None and scene.depths is not None
        np.testing.assert_allclose(read.depths[3], scene.depths[3], rtol=1e-5)


def bent(lens: Lens) -> Scene:
    """The demo's scene seen through another lens; its pictures are not bent, for nobody looks."""
    scene = demo()
    cameras, bend = scene.cameras, np.zeros(12)
    bend[: len(BENDS.get(lens, []))] = BENDS.get(lens, [])
    calibration = cameras.intrinsics.numpy().copy()
    calibration[:, 1] *= 1.01
    if lens == Lens.EQUIRECTANGULAR:
        calibration[:] = [32 / (2 * np.pi), 32 / np.pi, 16, 16]
    return replace(
        scene,
        cameras=Cameras.make(cameras.camera_to_world, calibration, [32, 32], distortion=bend, lens=np.full(8, lens)),
    )


@pytest.mark.parametrize("lens", list(Lens))
def test_every_lens_through_colmap(tmp_path, lens):
    scene = bent(lens)
    export.write_colmap(scene, tmp_path)
    read = ColmapData(path=str(tmp_path), **frame(scene)).load()
    order = [scene.names.index(name.removesuffix(".png")) for name in read.names]
    same(read, scene, order)
    pixels, index = scene.cameras.pixel_grid(0), torch.zeros(1024, dtype=torch.int64)
    seen = read.cameras.rays(index, pixels)
    points = seen.at(torch.full((1024,), 2.0))
    back, _ = scene.cameras.project(points, order[0])
    assert (back - pixels).abs().max() < 1e-3


@pytest.mark.parametrize("lens", list(Lens))
def test_lenses_through_transforms(tmp_path, lens):
    scene = bent(lens)
    if lens != Lens.FISHEYE:  # ... among them Brown's with a denominator
        with pytest.raises(InputError, match="COLMAP"):
            export.write_transforms(scene, tmp_path)
        scene.cameras.distortion[:, 5:] = 0
    if lens in (Lens.FISHEYE, Lens.BROWN):
        export.write_transforms(scene, tmp_path)
        same(TransformsData(path=str(tmp_path), **frame(scene)).load(), scene, list(range(8)))


def test_names_stay_in_their_folder():
    assert export.picture_names(["images/a.jpg", "images/b/c.jpg"]) == ["a.png", "b/c.png"]
    assert export.picture_names(["../../x.jpg", "/y.jpg"]) == ["x.png", "y.png"]
    assert export.picture_names(["a.jpg", "a.png"]) == ["000000.png", "000001.png"]
    assert export.picture_names(["..", "b"]) == ["000000.png", "000001.png"]


def test_quaternions_of_all_turns():
    from scipy.spatial.transform import Rotation

    turns = [*Rotation.random(200, random_state=0), Rotation.from_euler("x", 180, degrees=True), Rotation.identity()]
    for turn in turns:
        x, y, z, w = turn.as_quat(canonical=True)
        ours = export.quaternion(turn.as_matrix())
        assert min(np.abs(ours - [w, x, y, z]).max(), np.abs(ours + [w, x, y, z]).max()) < 1e-12


def test_geo_referenced_scenes_keep_their_digits(tmp_path):
    scene = demo()
    far = np.diag([50.0, 50.0, 50.0, 1.0])
    far[:3, 3] = [4_400_000.0, 650_000.0, 4_500_000.0]
    scene = replace(scene, world_from_scene=far)
    export.write_transforms(scene, tmp_path / "transforms")
    export.write_colmap(scene, tmp_path / "colmap")
    for name, reader in {"transforms": TransformsData, "colmap": ColmapData}.items():
        read = reader(path=str(tmp_path / name), **frame(scene)).load()
        order = [scene.names.index(n.removeprefix("images/").removesuffix(".png")) for n in read.names]
        same(read, scene, order)
        assert read.points is not None and scene.points is not None
        np.testing.assert_allclose(read.points, scene.points, atol=1e-5)
