"""Parts of a step on several threads: the same numbers as one after another."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import train
from dataio.batches import RayBatch
from engine import experiment, resume, signals
from engine.cluster.shares import RankShare
from engine.experiment import TrainConfig
from engine.gradients import Gradients, micro_batch_size
from models.kernels.runtime import launch
from models.losses.base import Step
from models.losses.color import ColorLoss
from models.networks.mlp import Mlp, MlpConfig
from models.objective import Objective
from tests.engine.test_training import ROOT, SMALL, SPHERE, quick_hulls, trained
from utils import distributed
from utils.random_stream import normal, permutation, random_stream, uniform

__all__ = ["quick_hulls"]
CPU = torch.device("cpu")
METHODS = ["neus_hash", "neus_hash_open", "volsdf_hash", "unisurf_hash", "nerf_hash", "nerfpp", "reduced/volsdf"]


def weights(folder: Path, config: str, threads: int) -> dict[str, torch.nn.Parameter]:
    every = ["train.rays=32", "train.micro_batch=8", f"train.threads={threads}"]
    if config.startswith(("neus", "volsdf_hash", "unisurf")):
        every.append(SPHERE)  # the fit of a start is torch's own, with all its threads
    run = trained(folder, 3, *every, config=config)
    assert run.gradients.threads == threads and torch.get_num_threads() == threads
    return dict(run.objective.model.named_parameters())


@pytest.fixture(autouse=True)
def one_thread_afterwards():
    yield
    torch.set_num_threads(1)
    launch.set_threads(1)


@pytest.mark.parametrize("config", METHODS)
def test_threads_change_nothing(config: str, tmp_path: Path) -> None:
    alone, shared = (weights(tmp_path / str(threads), config, threads) for threads in (1, 2))
    assert all(torch.equal(alone[name], shared[name]) for name in alone)


def test_parts_have_numbers_of_their_own() -> None:
    with random_stream(torch.Generator().manual_seed(3)):
        own = [uniform((2, 3), CPU), normal((4,), CPU), permutation(5, CPU)]
        with random_stream(torch.Generator().manual_seed(4)):
            other = uniform((2, 3), CPU)
        then = uniform((2,), CPU)
    torch.manual_seed(3)
    assert torch.equal(own[0], torch.rand(2, 3)) and torch.equal(own[1], torch.randn(4))
    assert torch.equal(own[2], torch.randperm(5)) and torch.equal(then, torch.rand(2))
    assert not torch.equal(own[0], other) and sorted(own[2].tolist()) == [0, 1, 2, 3, 4]
    torch.manual_seed(3)
    assert torch.equal(uniform((2, 3), CPU), own[0])  # outside of any stream


def test_sizes_of_parts() -> None:
    assert micro_batch_size(TrainConfig(), 1, rays=2048) == 2048
    assert micro_batch_size(TrainConfig(), 2, rays=2047) == 1024
    assert micro_batch_size(TrainConfig(micro_batch=100), 2, rays=2048) == 100
    patches = TrainConfig.model_validate({"rays": 640, "pixels": {"type": "patches", "side": 8}})
    assert micro_batch_size(patches, 4, rays=640) == 192 and micro_batch_size(patches, 100, rays=640) == 64


@pytest.mark.parametrize(
    "train, network, threads, of_torch",
    [
        ({"rays": 4096}, "narrow", 1, 1),  # kernel by kernel
        ({"rays": 4096}, "wide", 1, 2),  # product by product
        ({"rays": 4096}, "sine", 1, 2),
        ({"rays": 64, "micro_batch": 8}, "wide", 2, 2),  # in a step; in each of its parts one
        ({"rays": 64, "micro_batch": 8}, "narrow", 2, 1),
        ({"rays": 64, "micro_batch": 8, "precision": "mixed"}, "wide", 1, 2),  # a switch of the whole process
    ],
)
def test_how_threads_are_used(train: dict[str, object], network: str, threads: int, of_torch: int) -> None:
    torch.set_num_threads(2)
    activation, width = "sine" if network == "sine" else "relu", 256 if network == "wide" else 64
    config = MlpConfig.model_validate({"layers": 1, "width": width, "activation": activation})
    objective = Objective(Mlp(3, 1, config), {})  # type: ignore[arg-type]
    read = TrainConfig.model_validate(train)
    gradients = Gradients(objective, read, RankShare(0, *3 * [read.first_rays]), device=CPU)
    assert (gradients.threads, gradients.torch_threads) == (threads, of_torch) and torch.get_num_threads() == 2
    gradients.close()


def test_ranks_exchange_counts_as_often_as_the_one_with_most_rays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another rank has 65 rays in three micro-batches of 32, this one 64 in two."""
    read = experiment.read_config(ROOT / "configs/neus_hash.yaml", [*SMALL, SPHERE, "train.micro_batch=32"])
    run = resume.open_trainer(read, tmp_path, distributed.setup("cpu"), allow_config_change=False)
    assert run is not None
    calls: list[dict[str, bool]] = []
    monkeypatch.setattr(run.objective, "share_counts", lambda **nothing: calls.append(nothing))
    met: Any = lambda: calls.append({"gradients": True})  # noqa: E731
    gradients = Gradients(run.objective, read.train, RankShare(0, 64, 129, 65), device=CPU, exchange=met)
    gradients(run.sampler.plan())
    assert calls == [{}, {}, {"of_nothing": True}, {"gradients": True}]
    run.close()
    run.writer.close()


@pytest.mark.parametrize("config", ["neus_hash", "reduced/volsdf"])
def test_a_lone_part_is_the_same_on_more_threads(config: str, tmp_path: Path) -> None:
    """Kernel by kernel: enough rays that all of them are shared."""
    found = []
    for threads in (1, 2):
        every = ["train.rays=512", f"train.threads={threads}", "model.foreground.field.init=sphere"]
        run = trained(tmp_path / str(threads), 2, *every, config=config)
        assert run.gradients.threads == 1 and torch.get_num_threads() == threads
        found.append(dict(run.objective.model.named_parameters()))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


def test_an_error_in_a_thread_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: ColorLoss, step: Step) -> torch.Tensor:
        raise ValueError("of a part")

    monkeypatch.setattr(ColorLoss, "__call__", fail)
    with pytest.raises(ValueError, match="of a part"):
        trained(tmp_path, 1, "train.micro_batch=16", "train.threads=2")


NO_ROOM = {
    "a GPU's": torch.OutOfMemoryError("no room\nfor it"),
    "the host's": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    "Python's": MemoryError(),
}


SLOW = pytest.mark.slow
MANY_ROOMS = [pytest.param(room, whose, marks=SLOW) for room in range(18, 63, 3) for whose in ("a GPU's", "the host's")]


@pytest.mark.parametrize(
    "room, whose", [*((room, "a GPU's") for room in (5, 17, 40, 64)), (17, "the host's"), (17, "Python's"), *MANY_ROOMS]
)
@pytest.mark.parametrize("threads", [1, 2])
def test_parts_that_do_not_fit_are_halved(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    room: int,
    whose: str,
    threads: int,
) -> None:
    """As if `micro_batch` had been what fits from the start; an error where nothing does."""
    forward = Objective.forward

    def crowded(self: Objective, batch: RayBatch) -> object:
        if len(batch.rays) > room:
            raise NO_ROOM[whose]
        return forward(self, batch)

    fits = next((64 >> k for k in range(3) if 64 >> k <= room), None)
    every = ["train.rays=64", f"train.threads={threads}", SPHERE]
    expected = trained(tmp_path / "a", 2, *every, f"train.micro_batch={fits or 16}")
    monkeypatch.setattr(Objective, "forward", crowded)
    if fits is None:
        with pytest.raises(torch.OutOfMemoryError):
            trained(tmp_path / "b", 2, *every, "train.micro_batch=64")
        return
    found = trained(tmp_path / "b", 2, *every, "train.micro_batch=64")
    assert fits == 64 or f"train.micro_batch={fits}" in "".join(capsys.readouterr())
    truth = dict(expected.objective.named_parameters())
    assert all(torch.equal(mine, truth[name]) for name, mine in found.objective.named_parameters())


@pytest.mark.parametrize("whose", NO_ROOM)
def test_a_run_that_fits_nowhere_ends_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], whose: str
) -> None:
    def full(self: Objective, batch: RayBatch) -> object:
        raise NO_ROOM[whose]

    monkeypatch.setattr(Objective, "forward", full)
    monkeypatch.setattr(signals, "StopSignals", lambda: SimpleNamespace(received=False, exit_code=0))
    config = experiment.read_config(ROOT / "configs/neus_hash.yaml", [*SMALL, "train.steps=2", SPHERE])
    assert train.train(config, tmp_path, False) == 5
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("error: ") and " - the checkpoints before are kept; a smaller train.micro_batch" in line
