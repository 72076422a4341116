"""A new quantity per pixel: defined here, no file of ours edited for it, from the data's folder to the micro-batch."""

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dataio.batches import PixelSampler, RayBatch
from dataio.cameras import Cameras, Rays
from dataio.formats.dtu import DtuData
from dataio.formats.transforms import TransformsData
from dataio.pictures.images import Source
from dataio.quantities import base
from dataio.quantities.base import Array, Quantity
from dataio.scene import Scene
from dataio.views import Views
from tests.support import made_data
from tests.support.made_data import HEIGHT, WIDTH
from utils.errors import InputError

VIEWS = 10


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "_registry", dict(base.quantities()))

    class Flow(Quantity):
        """Two lengths per pixel, in thousandths of a world unit, below zero where unknown; twice that in a batch."""

        name = "flow"
        frame_keys = ("flow_path",)
        folder = "flow"
        dtype = np.int16
        channels = 2
        is_length = True

        def size(self, path: Source) -> tuple[int, int]:
            height, width, _ = self.read(path).shape
            return width, height

        def read(self, path: Source) -> Array:
            assert isinstance(path, Path)
            return np.load(path)

        def factor(self, views: Views) -> float:
            return 1e-3

        def of_pixels(self, numbers: Tensor, rays: Rays, cameras: Cameras) -> Tensor:
            assert len(numbers) == len(rays) and len(cameras) == VIEWS
            return 2 * numbers

        def known(self, values: Tensor) -> Tensor:
            return (values >= 0).all(-1).float()


def numbers(view: int) -> np.ndarray:
    """[H, W, 2] int16, other ones in every pixel; a third is unknown."""
    count = 1 + np.arange(HEIGHT * WIDTH, dtype=np.int16).reshape(HEIGHT, WIDTH)
    return np.stack([np.where(count % 3, count, -count), count * 20 + view], axis=-1)


def write(folder: Path) -> None:
    content = made_data.transforms(folder)
    (folder / "flow").mkdir()
    for view, frame in enumerate(content["frames"]):
        made_data.mask(folder / f"masks/{view}.png")
        frame["mask_path"] = f"masks/{view}.png"
        np.save(folder / f"flow/{view:03d}.npy", numbers(view))
    made_data.write(folder / "transforms.json", content)


def load(folder: Path, **keys) -> Scene:
    keys = {"path": str(folder), "cache": str(folder / "cache"), "center": (0.0, 0.0, 0.0), "radius": 2.0, **keys}
    return TransformsData(**keys).load()


def expected(scene: Scene, batch: RayBatch, downscale: int) -> np.ndarray:
    """[R, 2] of the files, whose unit sphere has a radius of 2."""
    place = scene.cameras.project(batch.rays.at(torch.ones(len(batch))), batch.rays.camera)[0]
    column, row = downscale * place.numpy().astype(np.int64).T
    files = np.stack([numbers(view) for view in range(VIEWS)])
    return 2 * 1e-3 / 2 * files[batch.rays.camera.numpy(), row, column]


@pytest.mark.parametrize(("downscale", "ram"), [(1, "1G"), (2, "1G"), (1, "0K"), (2, "0K")])
@pytest.mark.parametrize("split", ["train", "test"])
def test_it_arrives(tmp_path, capsys, downscale, ram, split) -> None:
    write(tmp_path)
    scenes = [load(tmp_path, downscale=downscale, ram=ram) for _ in range(2)]
    assert capsys.readouterr().err.count("caching them") == (ram == "0K")  # the second time it is there
    for scene in scenes:
        assert scene.has("flow") and list(scene.quantities) == ["mask", "flow"]
        with PixelSampler(scene, split=split, rays=150, seed=2) as sampler:
            for batch in (next(sampler) for _ in range(5)):
                found = batch.pixel("flow")
                assert found is not None and set(batch.rays.camera.tolist()) <= set(scene.splits[split].tolist())
                np.testing.assert_allclose(found.numpy(), expected(scene, batch, downscale), rtol=1e-5)


def test_what_is_cached_follows_the_choice_of_quantities(tmp_path) -> None:
    """With and without it are two files beside each other; a change of its files makes one anew."""
    write(tmp_path)
    both = [load(tmp_path, ram="0K"), load(tmp_path, ram="0K", quantities=())]
    assert [scene.has("flow") for scene in both] == [True, False]
    first = set((tmp_path / "cache").glob("*.pixels"))
    np.save(tmp_path / "flow/004.npy", numbers(4)[::-1])
    scene = load(tmp_path, ram="0K")
    np.testing.assert_allclose(scene.quantities["flow"][4], numbers(4)[::-1] * 0.5e-3, rtol=1e-6)
    second = set((tmp_path / "cache").glob("*.pixels"))
    assert len(first) == len(second) == 2 and len(first & second) == 1
    for one, other in zip(both[0].images, both[1].images, strict=True):
        assert np.array_equal(one, other)


def test_parts_have_the_sums_of_the_whole(tmp_path) -> None:
    write(tmp_path)
    with PixelSampler(load(tmp_path), rays=100, seed=3) as sampler:
        batch = next(sampler)
    value = batch.pixel("flow")
    assert value is not None
    known = (value[:, 0] >= 0).float()
    assert batch.total("flow") == known.sum() and 0 < known.sum() < 100
    parts = batch.split(30)
    means = [(part.known("flow") * part.quantities["flow"][:, 1]).sum() / part.total("flow") for part in parts]
    loss = torch.stack([mean * part.share for mean, part in zip(means, parts, strict=True)]).sum()
    torch.testing.assert_close(loss, (known * value[:, 1]).sum() / known.sum())
    for part in parts:
        torch.testing.assert_close(part.total("flow") / part.share, known.sum())
        torch.testing.assert_close(part.total("mask") / part.share, batch.total_mask())
    assert torch.equal(torch.cat([part.quantities["flow"] for part in parts]), value)
    assert torch.equal(batch[torch.tensor([7, 3])].quantities["flow"], value[[7, 3]])
    moved = parts[0].to("meta")
    assert {moved.quantities["flow"].device.type, moved.total("flow").device.type} == {"meta"}


def test_a_resumed_stream_is_the_unbroken_one(tmp_path) -> None:
    """Into the second epoch, on two ranks, in memory and from disk."""
    write(tmp_path)
    scene, disk = load(tmp_path), load(tmp_path, ram="0K")

    def sampler(scene: Scene, rank: int) -> PixelSampler:
        return PixelSampler(scene, rays=400, seed=5, before=400 * rank, total=800)

    for rank in range(2):
        with sampler(scene, rank) as whole:
            batches = [next(whole) for _ in range(8)]
            assert whole.epoch > 1
        with sampler(disk, rank) as first:
            for _ in range(5):
                next(first)
            state = first.state_dict()
        with sampler(disk, rank) as second:
            second.load_state_dict(state)
            for batch in batches[5:]:
                assert torch.equal(next(second).quantities["flow"], batch.quantities["flow"])


def test_it_is_pinned_with_the_rest(tmp_path, monkeypatch) -> None:
    write(tmp_path)
    with PixelSampler(load(tmp_path), rays=10, seed=0) as sampler:
        pixels = sampler._store.gather(np.arange(10), 10)
    pinned: list[Tensor] = []

    def pin(tensor: Tensor) -> Tensor:
        pinned.append(tensor)
        return tensor.clone()

    monkeypatch.setattr(Tensor, "pin_memory", pin)
    copy = pixels.pinned()
    given = [getattr(pixels, field.name) for field in fields(pixels)]
    tensors = [x for x in given if isinstance(x, Tensor)] + list(pixels.quantities.values())
    assert {id(x) for x in pinned} == {id(x) for x in tensors} and len(pixels.quantities) == 2
    assert all(copy.quantities[name] is not value for name, value in pixels.quantities.items())


def test_its_key_its_checks_and_other_formats(tmp_path) -> None:
    write(tmp_path)
    np.save(tmp_path / "flow/002.npy", numbers(2)[:, :-1])
    for look in (load, lambda folder: TransformsData(path=str(folder)).check()):
        with pytest.raises(InputError, match=r"flow/002\.npy - got 23 x 16 pixels - expected 24 x 16"):
            look(tmp_path)
    (tmp_path / "flow/002.npy").unlink()
    with pytest.raises(InputError, match="expected all or none"):
        load(tmp_path)
    made_data.dtu(tmp_path / "dtu")
    (tmp_path / "dtu/flow").mkdir()
    for view in range(VIEWS):
        np.save(tmp_path / f"dtu/flow/{view:06d}.npy", numbers(view))
    found = DtuData(path=str(tmp_path / "dtu")).load().quantities["flow"][3]
    np.testing.assert_allclose(found, numbers(3) * 1e-3 / 1.5, rtol=1e-6)


def test_lengths_follow_another_frame(tmp_path) -> None:
    write(tmp_path)
    scene = load(tmp_path)
    frame = np.diag([4.0, 4.0, 4.0, 1.0])
    np.testing.assert_allclose(scene.reframed(frame).quantities["flow"][1], scene.quantities["flow"][1] / 2, rtol=1e-6)


def test_two_of_one_name_are_a_mistake() -> None:
    with pytest.raises(TypeError, match="'depth'"):

        class Other(Quantity):
            name = "depth"
