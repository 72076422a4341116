"""The stream of pixels: a true permutation, disjoint ranks, exact resumption, right targets."""

import gc
import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dataio.batches import PixelSampler, PixelStore, RayBatch
from dataio.cameras import Cameras
from dataio.scene import Scene
from dataio.selection.permutation import Permutation
from tests.support.made_data import ring_poses
from utils.errors import InputError

SIZES = [(7, 5), (4, 9), (6, 6), (3, 3)]


def made_scene(masks=True, depths=True) -> Scene:
    random = np.random.default_rng(0)
    shapes = [(height, width) for width, height in SIZES]
    intrinsics = [[9.0, 8.0, width / 2, height / 2] for width, height in SIZES]
    return Scene(
        cameras=Cameras.make(ring_poses(4), intrinsics, SIZES),
        images=[random.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes],
        masks=[random.integers(0, 256, shape, dtype=np.uint8) for shape in shapes] if masks else None,
        depths=[random.random(shape, dtype=np.float32) for shape in shapes] if depths else None,
        points=None,
        splits={"train": np.array([0, 1, 3]), "test": np.array([2]), "val": np.array([], dtype=np.int64)},
        world_from_scene=np.eye(4),
        names=list("abcd"),
        up=np.array([0.0, 0.0, 1.0]),
        background=None,
    )


def identity(batch: RayBatch) -> list[tuple[int, int, int]]:
    """(camera, column, row) of each ray, found by projecting a point on it."""
    scene = made_scene()
    pixels, _ = scene.cameras.project(batch.rays.at(torch.ones(len(batch))), batch.rays.camera)
    return [(int(c), int(u), int(v)) for c, (u, v) in zip(batch.rays.camera, pixels, strict=True)]


@given(st.integers(1, 3000), st.integers(-(2**70), 2**70), st.integers(0, 2**40))
def test_every_epoch_is_a_permutation(count, seed, epoch):
    order = Permutation(count, seed).epoch(np.arange(count), epoch)
    assert np.array_equal(np.sort(order), np.arange(count))


def test_orders_differ_by_seed_and_epoch_and_look_random():
    count, places = 100_003, np.arange(100_003)
    first = Permutation(count, 1).epoch(places, 0)
    for other in (Permutation(count, 2).epoch(places, 0), Permutation(count, 1).epoch(places, 1)):
        assert np.mean(first == other) < 1e-3
        assert abs(np.corrcoef(first, other)[0, 1]) < 0.02
    assert abs(np.corrcoef(first, places)[0, 1]) < 0.02
    assert abs(np.corrcoef(first[1:], first[:-1])[0, 1]) < 0.02
    # Of 50 equal parts, every batch takes its share: chi-square of 49 degrees of freedom stays in its range.
    parts = np.bincount(first[:10_000] * 50 // count, minlength=50)
    assert 20 < ((parts - 200) ** 2 / 200).sum() < 95


def test_the_stream_goes_through_the_epochs():
    order = Permutation(10, 3)
    stream = order.stream(np.arange(35))
    for epoch in range(3):
        part = stream[10 * epoch : 10 * epoch + 10]
        assert np.array_equal(part, order.epoch(np.arange(10), epoch)) and len(set(part)) == 10
    with pytest.raises(ValueError):
        Permutation(0, 1)


@pytest.mark.parametrize(("world", "rays"), [(1, 8), (2, 4), (3, 10)])
def test_each_pixel_once_an_epoch_over_all_ranks(world, rays):
    total = 7 * 5 + 4 * 9 + 3 * 3  # 80
    all_rays = world * rays
    samplers = [PixelSampler(made_scene(), rays=rays, seed=5, before=r * rays, total=all_rays) for r in range(world)]
    assert samplers[0].pixels == total
    seen = []
    for _ in range(240 // (world * rays)):
        for sampler in samplers:
            seen += identity(next(sampler))
    for sampler in samplers:
        sampler.close()
    for epoch in range(3):
        part = seen[epoch * total : (epoch + 1) * total]
        assert len(set(part)) == total and {camera for camera, _, _ in part} == {0, 1, 3}
    assert samplers[0].position == 240 and samplers[0].epoch == 3.0


def test_targets_belong_to_the_rays():
    scene = made_scene()
    assert scene.masks is not None and scene.depths is not None
    with PixelSampler(scene, rays=50, seed=0) as sampler:
        batch = next(sampler)
    assert batch.mask is not None and batch.depth is not None and batch.weight is None
    _, z = scene.cameras.project(batch.rays.at(batch.depth), batch.rays.camera)
    for ray, (camera, column, row) in enumerate(identity(batch)):
        assert np.array_equal(
            batch.color[ray].numpy(), scene.images[camera][row, column].astype(np.float32) / 255
        )
        assert batch.mask[ray] == np.float32(scene.masks[camera][row, column]) / np.float32(255)
        assert z[ray] == pytest.approx(scene.depths[camera][row, column], abs=1e-5)
    part = batch[3:7].to("cpu")
    assert len(part) == 4 and part.mask is not None and len(part.mask) == 4


def test_without_masks_and_depths():
    with PixelSampler(made_scene(masks=False, depths=False), split="test", rays=40, seed=0) as sampler:
        batch = next(sampler)
    assert batch.mask is None and batch.depth is None and set(batch.rays.camera.tolist()) == {2}


def equal(a: RayBatch, b: RayBatch) -> bool:
    return torch.equal(a.color, b.color) and torch.equal(a.rays.directions, b.rays.directions)


def test_resuming_gives_the_uninterrupted_stream():
    with PixelSampler(made_scene(), rays=7, seed=9) as whole:
        batches = [next(whole) for _ in range(30)]
    with PixelSampler(made_scene(), rays=7, seed=9) as first:
        for _ in range(13):
            next(first)
        state = first.state_dict()
        assert state == {"position": 91}
        after = [next(first) for _ in range(3)]
        first.load_state_dict(state)  # back, although more was prefetched
        assert all(map(equal, after, [next(first) for _ in range(3)]))
    with PixelSampler(made_scene(), rays=7, seed=9) as second:
        second.load_state_dict(state)
        assert all(map(equal, batches[13:], [next(second) for _ in range(17)]))


def test_the_thread_ends():
    def count():
        return sum(thread.name == "pixel-prefetch" for thread in threading.enumerate())

    before = count()
    sampler = PixelSampler(made_scene(), rays=3, seed=0)
    next(sampler)
    assert count() == before + 1
    sampler.close()
    sampler.close()
    assert count() == before
    next(sampler)  # usable again
    thread = sampler._worker._thread  # type: ignore[union-attr]
    del sampler
    gc.collect()
    thread.join(timeout=5)
    assert not thread.is_alive()


def test_errors_of_the_thread_arrive(monkeypatch):
    def broken(self, pixels, end):
        raise MemoryError("no room")

    monkeypatch.setattr(PixelStore, "gather", broken)
    with PixelSampler(made_scene(), rays=3, seed=0) as sampler:
        for _ in range(2):
            with pytest.raises(MemoryError, match="no room"):
                next(sampler)


@pytest.mark.parametrize("split", ["val", "nothing"])
def test_an_empty_split_is_refused(split):
    with pytest.raises(InputError, match=split):
        PixelSampler(made_scene(), split=split, rays=3, seed=0)
