"""Pixels that kernels choose and gather: the same ones, bit for bit, as the host's, whatever the selection.

The kernels run on the CPU here, by the text that a GPU gets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dataio import batches
from dataio.batches import PixelSampler, PlannedBatch, RayBatch
from dataio.pictures import device_pixels
from dataio.pictures.device_pixels import lies_on_device
from dataio.pictures.pictures import Pictures
from dataio.pictures.pixel_store import PixelStore
from dataio.scene import Scene
from dataio.selection.base import SelectionConfig
from dataio.selection.by_loss import ByLoss
from dataio.selection.permutation import Permutation, random_number
from dataio.selection.scored import CERTAIN, LARGEST_SCORE, inclusion, shares
from dataio.selection.scored import systematic as by_host
from engine.device_pixels import Kernels
from models.kernels.pixels.order import order
from models.kernels.pixels.systematic import systematic
from tests.dataio.test_batches import made_scene
from tests.dataio.test_selection import SELECTIONS, each_selection
from utils.errors import InputError

SEEDS = st.integers(-(2**70), 2**70)


@pytest.fixture(autouse=True)
def on_this_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the CPU's memory were a GPU's."""
    monkeypatch.setattr(batches, "lies_on_device", lambda store, device, place: place != "host")


def full_scene() -> Scene:
    """Pictures of three sizes with a mask, a depth with a factor, normals and confidence."""
    scene, random = made_scene(), np.random.default_rng(1)
    depths = Pictures.of([random.integers(0, 2**16, (*x.shape[:2],), dtype=np.uint16) for x in scene.images])
    normals = [random.integers(-(2**15), 2**15, x.shape, dtype=np.int16) for x in scene.images]
    confidence = [random.integers(0, 2**16, x.shape[:2], dtype=np.uint16) for x in scene.images]
    return scene.with_quantities(
        {**scene.quantities, "depth": depths.times(0.0013), "normal": normals, "confidence": confidence}
    )


def sampler(place: str, config: SelectionConfig, **keys: Any) -> PixelSampler:
    made = PixelSampler(full_scene(), pixels=config, **{"rays": 18, "seed": 9, **keys})
    made.keep_on_device(Kernels(), place)  # type: ignore[arg-type]
    return made


def taught(stream: PixelSampler, steps: int) -> Iterator[RayBatch]:
    """Batches, of which the stream learns an error that goes with the color."""
    for _ in range(steps):
        batch = next(stream)
        yield batch
        stream.learn((batch.color - 0.3).square().mean(-1))


def assert_same(one: RayBatch, other: RayBatch) -> None:
    assert one.patch == other.patch and one.quantities.keys() == other.quantities.keys()
    assert torch.equal(one.rays.camera, other.rays.camera) and torch.equal(one.rays.directions, other.rays.directions)
    assert torch.equal(one.color, other.color) and (one.weight is None) == (other.weight is None)
    for name, values in one.quantities.items():
        assert torch.equal(values, other.quantities[name]), name
    if one.weight is not None and other.weight is not None:
        assert torch.equal(one.weight, other.weight)


@given(count=st.integers(1, 2**40), seed=SEEDS, first=st.integers(0, 2**40))
def test_the_order_is_the_hosts(count: int, seed: int, first: int) -> None:
    found = order(torch.tensor([first]), 30, count=count, seed=seed)
    assert np.array_equal(found.numpy(), Permutation(count, seed).stream(np.arange(first, first + 30)))


@settings(max_examples=60)
@given(st.integers(1, 200), st.integers(1, 6), st.floats(0.001, 1), SEEDS, st.integers(0, 2**40))
def test_what_is_chosen_by_scores_is_what_the_host_chooses(
    count: int, ratio: int, uniform: float, seed: int, first: int
) -> None:
    random = np.random.default_rng(first)
    exact = random.exponential(size=count * ratio) ** 4 * (random.random(count * ratio) < 0.7)
    scores = (exact / max(exact.max(), 1e-300) * LARGEST_SCORE).astype(np.int64)
    chance = inclusion(shares(scores, uniform), count)
    places, importance = systematic(
        torch.from_numpy(scores), torch.tensor([first]), count, uniform=uniform, seed=seed
    )
    chosen = by_host(chance, random_number(seed, first), count)
    assert np.array_equal(places.numpy(), chosen) and len(set(chosen)) == count
    truth = count / (len(scores) * (chance[chosen] / CERTAIN))
    assert np.array_equal(importance.numpy(), truth.astype(np.float32))


@each_selection
def test_the_device_draws_what_the_host_draws(name: str) -> None:
    """Rays, colors, all quantities, weights; the map of errors, which is folded into twice, too."""
    with sampler("host", SELECTIONS[name]) as host, sampler("gpu", SELECTIONS[name]) as device:
        for here, there in zip(taught(host, 12), taught(device, 12), strict=True):
            assert_same(here, there)
            error = here.color.square().mean(-1)
            assert host.chooses == device.chooses and host.unbiased_mean(error) == device.unbiased_mean(error)
        assert device._worker is None and host.position == device.position
        ours, theirs = host.state_dict(), device.state_dict()
        for key, value in ours.get("selection", {}).items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(theirs["selection"][key]))


@each_selection
def test_a_stream_goes_on_from_the_hosts_state_and_back(name: str) -> None:
    with sampler("host", SELECTIONS[name]) as whole:
        truth = list(taught(whole, 21))
    with sampler("gpu", SELECTIONS[name]) as first:
        list(taught(first, 7))
        state = first.state_dict()
    for place in ("gpu", "host"):
        with sampler(place, SELECTIONS[name]) as second:
            second.load_state_dict(state)
            for one, other in zip(truth[7:], taught(second, 14), strict=True):
                assert_same(one, other)


@each_selection
def test_ranks_take_what_the_host_gives_them(name: str) -> None:
    """Disjoint where the host's are: of uniform pixels and squares no place comes twice in an epoch."""
    for rank in range(2):
        keys = {"before": 18 * rank, "total": 36}
        with sampler("host", SELECTIONS[name], **keys) as host, sampler("gpu", SELECTIONS[name], **keys) as device:
            for _ in range(3):
                assert_same(next(host), next(device))


def test_a_planned_batch_is_a_function_of_its_first_place() -> None:
    with sampler("gpu", SELECTIONS["loss"]) as stream:
        planned = stream.plan()
        assert isinstance(planned, PlannedBatch) and len(planned) == 18
        later = stream.plan()
        once, again = planned.gathered(), planned.gathered()
        assert isinstance(later, PlannedBatch)
        assert_same(once, again)
        assert not torch.equal(later.gathered().rays.directions, once.rays.directions)
        assert stream.batch is not None and stream.batch is not again


def test_errors_that_are_not_finite_are_left_out_there_too() -> None:
    error = torch.tensor([0.5, float("nan"), float("inf"), -float("inf"), 40.0, 3e-8, -1.0])
    bins = torch.tensor([0, 0, 1, 1, 2, 2, 3])
    found = []
    for place in ("host", "gpu"):
        with sampler(place, SELECTIONS["loss"]) as stream:
            selection = stream._selection
            assert isinstance(selection, ByLoss)
            selection.learn(bins, error)
            found.append(selection._sums[:, :4])
    assert torch.equal(*found) and found[0][1].tolist() == [1, 0, 2, 1]
    assert found[0][0].tolist() == [2**31, 0, 16 * 2**32 + int(3e-8 * 2**32), 0]


def memory_of(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2 * free))


def test_where_pixels_lie(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    store = PixelStore(full_scene(), np.array([0, 1, 3]))
    assert store.size == 80 * (3 + 1 + 2 + 6 + 2)
    gpu, cpu = torch.device("cuda:0"), torch.device("cpu")
    assert not lies_on_device(store, cpu, "auto") and not lies_on_device(store, gpu, "host")
    memory_of(monkeypatch, 2 * store.size)
    assert lies_on_device(store, gpu, "auto") and lies_on_device(store, gpu, "gpu")
    assert capsys.readouterr() == ("", "")
    memory_of(monkeypatch, 2 * store.size - 1)
    assert not lies_on_device(store, gpu, "auto") and lies_on_device(store, gpu, "gpu")
    said = capsys.readouterr()
    assert (said.out + said.err).count("\n") == 1 and "stay on the host" in said.out + said.err
    with pytest.raises(InputError, match="data.device: gpu - the run computes on a cpu - expected auto or host"):
        lies_on_device(store, cpu, "gpu")
    monkeypatch.setattr(device_pixels, "MOST_PIXELS", 79)
    assert not lies_on_device(store, gpu, "auto")
    with pytest.raises(InputError, match="got 80 pixels - expected 79 at most, or host"):
        lies_on_device(store, gpu, "gpu")


def test_a_choice_without_a_form_for_devices_stays_on_the_host(capsys: pytest.CaptureFixture[str]) -> None:
    with sampler("host", SELECTIONS["uniform"]) as stream:
        stream._selection = SimpleNamespace(on_device=lambda pixels: None)  # type: ignore[assignment]
        stream.keep_on_device(Kernels(), "auto")
        assert "chooses on the host" in "".join(capsys.readouterr())
        with pytest.raises(InputError, match="this train.pixels chooses on the host - expected auto or host"):
            stream.keep_on_device(Kernels(), "gpu")


def test_pictures_of_one_size() -> None:
    """Which the host locates by a division."""
    scene, random = made_scene(masks=False, depths=False), np.random.default_rng(2)
    alike = replace(scene, images=[random.integers(0, 256, (6, 6, 3), dtype=np.uint8) for _ in range(4)])
    with PixelSampler(alike, rays=30, seed=1) as host, PixelSampler(alike, rays=30, seed=1) as device:
        device.keep_on_device(Kernels(), "gpu")
        for _ in range(5):
            assert_same(next(host), next(device))


@pytest.mark.cuda
@each_selection
def test_a_gpu_draws_what_the_host_draws(name: str) -> None:
    """Cameras, colors, quantities and weights to the bit, with the map of errors in the GPU's memory."""
    with sampler("host", SELECTIONS[name]) as host, sampler("gpu", SELECTIONS[name], device="cuda") as device:
        for _ in range(12):
            here, there = next(host), next(device)
            host.learn((here.color - 0.3).square().mean(-1))
            device.learn((here.color - 0.3).square().mean(-1).cuda())
            assert there.color.is_cuda and torch.equal(here.rays.camera, there.rays.camera.cpu())
            assert torch.equal(here.color, there.color.cpu()) and torch.equal(here.mask, there.mask.cpu())  # type: ignore[arg-type, union-attr]
            torch.testing.assert_close(here.quantities, there.to("cpu").quantities)
            assert here.weight is None or torch.equal(here.weight, there.weight.cpu())  # type: ignore[union-attr]
        ours, theirs = host.state_dict(), device.state_dict()
        for key, value in ours.get("selection", {}).items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(theirs["selection"][key]))
