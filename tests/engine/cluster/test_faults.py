"""Faults on purpose happen once and where they are asked for; what they do to a run is noticed."""

from pathlib import Path

import pytest
import torch
from torch import nn

from engine.cluster.agreement import digest
from engine.cluster.faults import AFTER_STEP, Fault, Faults, read_faults
from engine.cluster.shares import RankShare, share_of
from engine.experiment import DebugConfig, read_config
from engine.signals import MARKER, mark_preempted
from engine.trainer import Trainer
from tests.engine.test_training import SPHERE, trained
from tests.support.sources import ROOT
from utils import fail_points
from utils.checkpoint import newest_checkpoint
from utils.distributed import Ranks
from utils.errors import InputError

CPU = torch.device("cpu")


def test_faults_are_read_as_they_are_written() -> None:
    text = "kill@120:rank=1, nan_gradient@50,, hang@7"
    assert read_faults(text) == [Fault("kill", 120, 1), Fault("nan_gradient", 50), Fault("hang", 7)]
    assert [str(fault) for fault in read_faults(text)] == ["kill@120:rank=1", "nan_gradient@50", "hang@7"]
    for wrong in ("kill", "kill@", "kil@3", "kill@3:rank=x", "kill@-1", "os.system@3", "kill@3;hang@4"):
        with pytest.raises(ValueError, match="should be KIND@STEP"):
            DebugConfig(faults=wrong)


def test_a_fault_happens_once_in_a_run_and_on_its_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    happened: list[int] = []
    monkeypatch.setitem(AFTER_STEP, "kill", lambda module: happened.append(1))
    for rank, expected in ((0, 1), (1, 3)):  # the second has a fault more
        for _ in range(2):  # started, and started again
            faults = Faults("kill@3, kill@5:rank=1", tmp_path, rank)
            for step in range(7):
                faults.after_step(nn.Linear(1, 1), step)
        assert len(happened) == expected
    assert (tmp_path / "faults.txt").read_text("utf-8") == "kill@3\n"


def test_one_flipped_bit_anywhere_is_another_digest() -> None:
    """All bits of 23 floats and of 3 integers of 64 bits."""
    tensors = [torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), torch.ones(3), torch.arange(3)]
    first = digest(tensors)
    for tensor in tensors:
        words = tensor.view(-1).view(torch.int32)
        for place in range(len(words)):
            for bit in range(32):
                mask = torch.tensor(1 << bit if bit < 31 else -(2**31), dtype=torch.int32)
                words[place] ^= mask
                assert not torch.equal(digest(tensors), first)
                words[place] ^= mask
    assert torch.equal(digest(tensors), first)
    assert not torch.equal(digest([tensors[1], tensors[0], tensors[2]]), first)


def test_a_gradient_that_is_not_finite_costs_one_step(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path, 4, SPHERE, "debug.faults=nan_gradient@2")
    assert capsys.readouterr().err.count("step 2: loss or gradient not finite; steps skipped: 1") == 1
    assert run.step == 4 and int(max(state["step"].max() for state in run.optimizer.state.values())) == 3


def test_a_full_disk_costs_one_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trained(tmp_path, 6, SPHERE, "debug.faults=disk_full@3", "train.checkpoint_every=2")
    said = capsys.readouterr().err
    assert said.count("warning: disk full") == 1
    newest = newest_checkpoint(tmp_path / "checkpoints")
    assert newest is not None and newest.name == "step_00000006"


def test_points_that_are_not_armed_do_nothing_and_others_act_once() -> None:
    for name in fail_points.NAMES:
        fail_points.reach(name)
    fail_points.arm("file.write", fail_points.raising(OSError("once")))
    with pytest.raises(OSError, match="once"):
        fail_points.reach("file.write")
    fail_points.reach("file.write")
    with pytest.raises(ValueError, match="no fail-point 'x'"):
        fail_points.arm("x", fail_points.killed)


@pytest.mark.parametrize(("rays", "world", "side"), [(2048, 2, 1), (100, 3, 1), (7, 7, 1), (64 * 5, 4, 8)])
def test_ranks_share_all_rays_of_a_step(rays: int, world: int, side: int) -> None:
    pixels = [f"train.pixels={{type: patches, side: {side}}}"] if side > 1 else []
    config = read_config(ROOT / "configs/neus_hash.yaml", [f"train.rays={rays}", *pixels])
    shares = [share_of(config, Ranks(rank, world, rank, CPU), rays=rays) for rank in range(world)]
    assert sum(share.own for share in shares) == rays and {share.total for share in shares} == {rays}
    assert [share.before for share in shares] == [sum(s.own for s in shares[:i]) for i in range(world)]
    assert {share.largest for share in shares} == {max(share.own for share in shares)}
    assert max(share.own for share in shares) - min(share.own for share in shares) <= side**2
    assert all(share.own % side**2 == 0 and share.own for share in shares)


def test_rays_per_rank_where_that_is_asked_and_too_few_are_refused() -> None:
    config = read_config(ROOT / "configs/neus_hash.yaml", ["train.rays=10", "distributed.rays=rank"])
    assert share_of(config, Ranks(2, 3, 2, CPU), rays=10) == RankShare(20, 10, 30, 10)
    config = read_config(ROOT / "configs/neus_hash.yaml", ["train.rays=2"])
    with pytest.raises(InputError, match="train.rays: 2 - got 2 rays for 4 ranks"):
        share_of(config, Ranks(0, 4, 0, CPU), rays=2)


def test_the_best_checkpoint_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Qualities as of a run that gets worse after its second validation; and one of every four steps stays."""
    qualities = iter([10.0, 12.0, 11.0, 9.0])
    monkeypatch.setattr(Trainer, "_validate", lambda self: next(qualities))
    keys = ("train.keep_best=true", "train.keep_every=4", "train.keep_checkpoints=1", "train.checkpoint_every=2")
    run = trained(tmp_path, 12, SPHERE, "train.validations=4", *keys)
    folder = tmp_path / "checkpoints"
    assert (folder / "best").read_text("utf-8") == "step_00000006\n" and run.best == 12.0
    assert sorted(path.name[-2:] for path in folder.glob("step_*")) == ["04", "06", "08", "12"]


def test_the_mark_of_a_preempted_run_comes_and_goes(tmp_path: Path) -> None:
    mark_preempted(tmp_path, preempted=False)
    mark_preempted(tmp_path, preempted=True)
    assert (tmp_path / MARKER).is_file()
    mark_preempted(tmp_path, preempted=False)
    assert not (tmp_path / MARKER).exists()
