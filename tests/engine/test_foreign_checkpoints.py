"""Checkpoints whose digests hold and whose content is not that of a run: every script says so in one line."""

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import bake
import evaluate
import extract_mesh
import render
import train
from tests.engine.test_training import SMALL, trained
from tests.support import made_data
from tests.support.sources import ROOT
from utils import checkpoint
from utils.errors import run_script

Change = Callable[[dict[str, Any], dict[str, Any]], Any]
CONFIG = str(ROOT / "configs/neus_hash.yaml")
GRID = "model.foreground.field.encoding.log2_rows=8"
LEARNING = "train.pixels={type: loss, cell: 8, every: 1}"


def replaced(*keys: Any, by: Any) -> Change:
    """The entry at the end of the keys becomes `by`, or, where that is a function, what it makes of the old one."""

    def change(state: dict[str, Any], manifest: dict[str, Any]) -> None:
        at: Any = state
        for key in keys[:-1]:
            at = at[key]
        at[keys[-1]] = by(at[keys[-1]]) if callable(by) else by

    return change


def without(*keys: Any) -> Change:
    def change(state: dict[str, Any], manifest: dict[str, Any]) -> None:
        at: Any = state
        for key in keys[:-1]:
            at = at[key]
        del at[keys[-1]]

    return change


def stated(**entries: Any) -> Change:
    """Entries of the manifest."""

    def change(state: dict[str, Any], manifest: dict[str, Any]) -> None:
        manifest.update(entries)

    return change


def emptied(state: dict[str, Any], manifest: dict[str, Any]) -> None:
    state.clear()


def nested(depth: int) -> Any:
    value: Any = torch.zeros(1)
    for _ in range(depth):
        value = [value]
    return value


def broken(numbers: torch.Tensor) -> torch.Tensor:
    numbers = numbers.clone()
    numbers.view(-1)[0] = torch.nan
    return numbers


NAN, FIRST = float("nan"), "foreground.appearance.network.layers.0.bias"
OCCUPANCY = "foreground.sampler._extra_state"
CAMERAS = ("scene", "cameras")
# What is done to a checkpoint, and the words by which each script says it.
EVERYWHERE: dict[str, tuple[Change, tuple[str, ...]]] = {
    "nothing in it": (emptied, ("clocks", "got nothing")),
    "no model": (without("model"), ("model", "got nothing", "a mapping")),
    "a list for the model": (replaced("model", by=list), ("model", "a list of", "a mapping")),
    "one parameter less": (without("model", FIRST), ("another model", FIRST, "missing")),
    "one parameter more": (replaced("model", "more", by=torch.zeros(3)), ("another model", "more", "no such")),
    "a name that is none": (replaced("model", 7, by=torch.zeros(3)), ("another model", "7")),
    "another shape": (replaced("model", FIRST, by=torch.zeros(7)), ("another model", FIRST, "(7,)", "(64,)")),
    "whole numbers": (replaced("model", FIRST, by=lambda x: x.long()), (FIRST, "int64 (64)", "floats")),
    "complex numbers": (replaced("model", FIRST, by=lambda x: x.cfloat()), (FIRST, "missing")),
    "a sparse parameter": (replaced("model", FIRST, by=lambda x: x.to_sparse()), (FIRST, "missing")),
    "text for a parameter": (replaced("model", FIRST, by="zeros"), (FIRST, "missing")),
    "a parameter that is not finite": (replaced("model", FIRST, by=broken), (FIRST, "not finite")),
    "an occupancy without a step": (replaced("model", OCCUPANCY, by={}), (OCCUPANCY, "step", "got nothing")),
    "an occupancy that never moves": (replaced("model", OCCUPANCY, "step", by=0.0), ("occupancy grid", "step of 0")),
    "an occupancy of nothing": (replaced("model", OCCUPANCY, "step", by=NAN), (OCCUPANCY, "step", "nan")),
    "nested junk": (replaced("model", OCCUPANCY, by=nested(50)), (OCCUPANCY, "a list of 1", "a mapping")),
    "a manifest without a step": (stated(step=None), ("manifest.json", "step", "got nothing")),
    "no step": (stated(step=NAN), ("manifest.json", "step", "nan")),
    "a step before the first": (stated(step=-3), ("manifest.json", "step", "-3")),
    "a broken step": (stated(step=2.5), ("manifest.json", "step", "2.5")),
    "an endless step": (stated(step=10**300), ("manifest.json", "step", "1000000")),
    "another format": (stated(format="old"), ("manifest.json", "format", "'old'", "expected 1")),
    "text for the progress": (replaced("progress", by="1.0"), ("progress", "'1.0'", "0 to 1")),
    "progress beyond the end": (replaced("progress", by=1.5), ("progress", "1.5", "0 to 1")),
    "progress that is none": (replaced("progress", by=NAN), ("progress", "nan")),
    "no clocks": (replaced("clocks", by=[1.0]), ("clocks", "a list of 1", "2 numbers")),
    "rates of nothing": (replaced("rate_scale", by=0.0), ("rate_scale", "0.0")),
    "no scene": (without("scene"), ("scene", "got nothing")),
    "a tensor for the scene": (replaced("scene", by=torch.zeros(2)), ("scene", "float32 (2)")),
    "no cameras": (replaced(*CAMERAS, by={}), ("scene.cameras", "got nothing")),
    "cameras of another shape": (replaced(*CAMERAS, "camera_to_world", by=lambda x: x[:, :, :3]), ("(10, 3, 3)",)),
    "no camera at all": (replaced(*CAMERAS, "camera_to_world", by=lambda x: x[:0]), ("(0, 3, 4)", "1 to")),
    "a billion cameras": (
        replaced(*CAMERAS, "camera_to_world", by=torch.zeros(1, 1, 1).expand(10**9, 3, 4)), ("(1000000000, 3, 4)",)
    ),
    "one number for a parameter": (
        replaced("model", FIRST, by=lambda x: x[:1].clone().expand(len(x))), ("another model", FIRST, "missing")
    ),
    "cameras that are crushed": (replaced(*CAMERAS, "camera_to_world", by=lambda x: 0 * x), ("rotations",)),
    "cameras that are not finite": (replaced(*CAMERAS, "camera_to_world", by=broken), ("not finite",)),
    "focal lengths of zero": (replaced(*CAMERAS, "intrinsics", by=lambda x: 0 * x), ("scene.cameras.intrinsics",)),
    "pictures without an end": (replaced(*CAMERAS, "size", by=lambda x: x * 10**12), ("scene.cameras.size",)),
    "one size too few": (replaced(*CAMERAS, "size", by=lambda x: x[1:]), ("scene.cameras.size", "(9, 2)", "(10, 2)")),
    "lenses of the future": (replaced(*CAMERAS, "lens", by=lambda x: x + 99), ("scene.cameras.lens", "0 to 7")),
    "no training views": (without("scene", "splits", "train"), ("scene.splits.train", "got nothing")),
    "a view that is not there": (replaced("scene", "splits", "test", by=torch.tensor([10])), ("0 to 9",)),
    "a view before the first": (replaced("scene", "splits", "train", by=torch.tensor([-1])), ("0 to 9",)),
    "views by name": (replaced("scene", "splits", "train", by=["a"]), ("scene.splits.train", "a list of 1")),
    "a name too few": (replaced("scene", "names", by=lambda x: x[1:]), ("scene.names", "10 names")),
    "a frame that is flat": (replaced("scene", "world_from_scene", by=torch.zeros(4, 4)), ("world_from_scene",)),
    "no up": (replaced("scene", "up", by=torch.zeros(3)), ("scene.up", "length 1")),
    "a color too bright": (replaced("scene", "background", by=[1.0, 2.0, 0.0]), ("scene.background.1", "2.0")),
    "a place beyond the pole": (replaced("scene", "georeference", by=[91.0, 0.0, 0.0]), ("scene.georeference",)),
}  # fmt: skip
FIRST_STATE = ("optimizer", "state", 0)
RESUMING: dict[str, tuple[Change, tuple[str, ...]]] = {
    "no optimizer": (without("optimizer"), ("optimizer", "got nothing")),
    "optimizer of no groups": (replaced("optimizer", "param_groups", by=[]), ("its optimizer has groups of []",)),
    "groups that are none": (replaced("optimizer", "param_groups", by=7), ("optimizer.param_groups", "got 7", "list")),
    "a group that is none": (replaced("optimizer", "param_groups", by=[3]), ("param_groups.0", "got 3", "mapping")),
    "a group by another rule": (
        replaced("optimizer", "param_groups", 0, "rule", by={"a": 1}), ("groups by", "expected Adam")
    ),
    "a list of moments": (replaced("optimizer", "state", by=list), ("optimizer.state", "a list of", "a mapping")),
    "moments of nobody": (replaced("optimizer", "state", 999, by={}), ("optimizer.state", "999")),
    "moments by name": (replaced("optimizer", "state", "first", by={}), ("optimizer.state", "'first'")),
    "moments of another shape": (replaced(*FIRST_STATE, "exp_avg", by=torch.zeros(3)), ("state.0.exp_avg", "(3)")),
    "moments of whole numbers": (replaced(*FIRST_STATE, "exp_avg", by=lambda x: x.int()), ("exp_avg", "int32")),
    "moments that are missing": (without(*FIRST_STATE, "exp_avg_sq"), ("state.0.exp_avg_sq", "got nothing")),
    "more moments": (replaced(*FIRST_STATE, "more", by=1), ("state.0.more", "got 1", "no such entry")),
    "squares below zero": (replaced(*FIRST_STATE, "exp_avg_sq", by=lambda x: x - 1), ("exp_avg_sq", "from 0")),
    "a count below zero": (replaced(*FIRST_STATE, "step", by=torch.tensor(-1.0)), ("state.0.step", "from 0")),
    "a count of nothing": (replaced(*FIRST_STATE, "step", by=torch.tensor(torch.nan)), ("state.0.step", "not finite")),
    "no stream": (without("sampler"), ("sampler", "got nothing")),
    "a stream that ran backwards": (replaced("sampler", "position", by=-64), ("sampler.position", "-64")),
    "a stream that overflows": (replaced("sampler", "position", by=2**63), ("sampler.position",)),
    "half a pixel": (replaced("sampler", "position", by=0.5), ("sampler.position", "0.5", "whole")),
    "nothing learned": (replaced("sampler", "selection", by=[1]), ("sampler.selection", "a list of 1")),
    "errors that are not finite": (replaced("sampler", "selection", "errors", by=broken), ("errors", "not finite")),
    "sums of other cells": (replaced("sampler", "selection", "sums", by=torch.zeros(2, 1).long()), ("sums", "(2, 1)")),
    "a plateau of text": (replaced("plateau", by="flat"), ("plateau", "'flat'", "a mapping")),
    "a plateau that was never": (replaced("plateau", by={"scale": 1.0}), ("plateau.waited", "got nothing")),
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, its data beside it."""
    folder = tmp_path_factory.mktemp("runs")
    made_data.transforms(folder / "data")
    trained(folder / "run", 2, *settings(folder))
    return folder / "run"


def settings(folder: Path) -> list[str]:
    return [*SMALL, f"data={{type: auto, path: {folder / 'data'}}}", GRID, LEARNING, "train.steps=2"]


def rewritten(run: Path, folder: Path, change: Change) -> Path:
    """A copy of a run whose checkpoint is another one, with digests that hold."""
    shutil.copytree(run, folder)
    path = next((folder / "checkpoints").glob("step_*"))
    state = torch.load(path / "state.pt", weights_only=True)
    manifest = json.loads((path / "manifest.json").read_bytes())
    change(state, manifest)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    seal(path, manifest, buffer.getvalue())
    return folder


def seal(path: Path, manifest: dict[str, Any], data: bytes) -> None:
    manifest.pop("blake2b", None)
    manifest["files"] = {"state.pt": {"bytes": len(data), "blake2b": checkpoint._digest(data)}}
    (path / "state.pt").write_bytes(data)
    (path / "manifest.json").write_bytes(checkpoint._sealed(manifest))


def scripts(folder: Path, home: Path) -> dict[str, tuple[Callable[[], int | None], list[str]]]:
    """Every script that opens a run, with its arguments."""
    again = [*settings(home), "train.steps=9", f"output={folder}"]
    return {
        "train": (train.main, [CONFIG, *again]),
        "render": (render.main, [str(folder), "--frames", "1", "--device", "cpu"]),
        "extract_mesh": (extract_mesh.main, [str(folder), "--resolution", "16", "--device", "cpu"]),
        "evaluate": (evaluate.main, [str(folder), "--device", "cpu"]),
        "bake": (bake.main, [str(folder), "--resolution", "16", "--device", "cpu"]),
    }


def check(
    main: Callable[[], int | None],
    arguments: list[str],
    words: tuple[str, ...],
    tools: tuple[pytest.MonkeyPatch, pytest.CaptureFixture[str]],
) -> None:
    """The script ends with code 2 and one short line; it or the warnings before it hold all the words."""
    patch, capture = tools
    patch.setattr(sys, "argv", ["script.py", *arguments])
    capture.readouterr()
    with pytest.raises(SystemExit) as ended:
        run_script(main)
    said = capture.readouterr().err
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert ended.value.code == 2 and len(lines) == 1 and len(lines[0]) < 500, said
    assert "Traceback" not in said and all(word in said for word in words), said


@pytest.mark.parametrize("fault", EVERYWHERE)
def test_every_script_says_what_is_wrong(
    fault: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change, words = EVERYWHERE[fault]
    folder = rewritten(run, tmp_path / "run", change)
    for main, arguments in scripts(folder, run.parent).values():
        check(main, arguments, words, (monkeypatch, capsys))


@pytest.mark.parametrize("fault", RESUMING)
def test_a_resumption_says_what_is_wrong(
    fault: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    change, words = RESUMING[fault]
    folder = rewritten(run, tmp_path / "run", change)
    main, arguments = scripts(folder, run.parent)["train"]
    plateau = ["optimizer.reduce_on_plateau={}", "--allow-config-change"] if "plateau" in fault else []
    check(main, [*arguments, *plateau], words, (monkeypatch, capsys))


def test_a_step_beyond_the_end_and_other_ranks_are_no_fault(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = rewritten(run, tmp_path / "run", stated(step=10**6, info={"world": 7}))
    main, arguments = scripts(folder, run.parent)["train"]
    monkeypatch.setattr(sys, "argv", ["train.py", *arguments])
    assert main() == 0
    assert "complete, 1000000 steps" in capsys.readouterr().out


def test_a_path_needs_two_views(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = rewritten(run, tmp_path / "run", replaced("scene", "splits", "train", by=torch.tensor([0])))
    main, arguments = scripts(alone, run.parent)["render"]
    check(main, arguments, ("--path", "1 view", "at least 2"), (monkeypatch, capsys))
