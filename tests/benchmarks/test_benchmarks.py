"""The benchmark in small: every number is there and possible."""

import argparse
import importlib
import json
import math
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import warp as wp

from benchmarks import (
    data_sets,
    kernels,
    launches,
    loader,
    machine,
    micro,
    photograph_gains,
    pose_refinement,
    ray_path,
    render_frame,
    time_to_quality,
    train_step,
)
from benchmarks.kernel_cases import baseline, cases
from dataio.cameras import Cameras
from dataio.formats import procedural
from engine import experiment
from models.encodings.hash_grid import HashGridConfig
from models.kernels.runtime.launch import as_warp, launch
from models.model import Model
from tests.engine.test_training import ROOT
from utils.errors import InputError
from utils.evaluation.mesh_metrics import compare_meshes

TINY_DATA = "data={type: procedural, views: 3, test_views: 1, size: 24}"
SMALL_GEMM = (256, 128, 128)
TINY = [TINY_DATA, "model.foreground.field.init=sphere", "train.rays=32", "device=cpu"]


@pytest.fixture(scope="module", autouse=True)
def small_rates() -> Iterator[None]:
    """The machine's rates need not be good here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "COPY_BYTES", 1 << 20)
        patch.setattr(machine, "LEAST_SECONDS", 1e-3)
        patch.setattr(micro, "COUNT", 1 << 12)
        patch.setattr(micro, "MEGABYTES", 0.25)
        yield


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    config = str(ROOT / "configs/neus_hash.yaml")
    return train_step.measure(config, TINY, warmup=2, steps=3, baseline=1, gemm=SMALL_GEMM)


def test_every_number_is_measured(found: dict[str, Any]) -> None:
    numbers = {key: value for key, value in found.items() if isinstance(value, float)}
    assert len(numbers) >= 9 and all(math.isfinite(value) for value in numbers.values())
    assert all(value > 0 for key, value in numbers.items() if key != "train_psnr")
    assert found["rays_per_step"] == 32 and found["steps"] == 3
    assert found["rays_per_s"] == pytest.approx(32 / found["wall_s_per_step"])
    assert found["ratio_to_baseline"] == pytest.approx(found["baseline_s_per_step"] / found["cpu_s_per_step"])
    assert found["ratio_to_reference"] == pytest.approx(0.053 * found["rays_per_cpu_s"])
    equal = found["ratio_at_equal_gemm"] * found["gemm_gflop_per_s"]
    assert equal == pytest.approx(100 * found["ratio_to_reference"])
    assert found["cpu"] and found["torch"] and found["warp"]


def test_the_table_and_the_file_hold_them(found: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    machine.print_table(found)
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == list(found)
    path = machine.write(found, tmp_path / machine.dated_file(found, found["config"]).name)
    assert path.name == f"{found['date']}-neus_hash-cpu.json"
    assert json.loads(path.read_text()) == found


def test_the_loader_is_measured_in_memory_and_from_disk(tmp_path: Path) -> None:
    loader.write_set(tmp_path, 3, (64, 48))
    found = loader.measure("small", str(tmp_path), "0K", str(tmp_path / "cache"), rays=32, batches=2)
    assert found.pixel_bytes == 3 * 3 * 64 * 48 and found.rays_per_s > 0 and found.load_s > 0
    assert found.peak_rss >= found.idle_rss > 0 and found.peak_ratio == found.peak_rss / found.pixel_bytes
    loader.forget(next((tmp_path / "cache").glob("*.pixels")))
    assert "M rays/s" in loader.line(found)


def test_a_set_is_loaded_and_trained_on() -> None:
    keys = ["data.type=procedural", "data.views=4", "data.test_views=1", "data.size=24"]
    found = data_sets.measure(".", [*keys, "model.foreground.field.init=sphere"], 3, 16)
    assert found.views == 5 and found.size == "24 x 24" and found.format == "procedural"
    assert found.reprojection is None and math.isfinite(found.first + found.last)
    assert found.row().count("|") == data_sets.HEAD.splitlines()[0].count("|")


def test_sets_behind_one_that_cannot_be_used_get_their_lines(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def measure(path: str, *_: Any) -> data_sets.Found:
        if path.startswith("bad"):
            raise InputError(f"{path}: no such file or folder")
        return data_sets.Found(path, "colmap", 3, "4 x 3", 0.1, 1.0, 0.5, 0.2, 0.1)

    monkeypatch.setattr(data_sets, "measure", measure)
    monkeypatch.setattr(data_sets, "ProcessPoolExecutor", lambda count, **_: ThreadPoolExecutor(count))
    monkeypatch.setattr(sys, "argv", ["data_sets", "bad1", "good", "bad2"])
    with pytest.raises(InputError, match="bad1: .*\nbad2: "):
        data_sets.main()
    assert "| good | `colmap` | 3 |" in capsys.readouterr().out


def test_kernels_agree_with_their_plain_forms_and_have_a_share(capsys: Any) -> None:
    sizes = cases.Sizes(rays=40, samples=400, pixels=200, lattice=24, grid=16)
    config = str(ROOT / "configs/neus_hash.yaml")
    found = kernels.measure(config, TINY, sizes, warmup=2, steps=2, gemm=SMALL_GEMM)
    machine.print_table(found)
    assert "hash encoding with gradient" in capsys.readouterr().out
    rows = found["kernels"]
    assert len(rows) == 51 and abs(found["samples"] - 400) < 60
    # Single precision; the march and the trace count samples and rays instead.
    assert all(row["difference"] < (0.02 if row["kernel"] in ("march", "trace") else 1e-5) for row in rows)
    assert all(row["ratio"] == pytest.approx(row["baseline_us"] / row["ours_us"]) for row in rows)
    assert all(row["of_roof"] is None or row["of_roof"] > 0 for row in rows)
    bounded = [row for row in rows if row["of_roof"]]
    assert all(row["at_roof"] * row["of_roof"] == pytest.approx(row["ratio"]) for row in bounded)
    named = {row["kernel"]: row for row in found["step"]}
    assert named["all of them"]["launches_per_step"] >= named["hash_encode._scatter"]["launches_per_step"] >= 1
    assert 0 < named["hash_encode._scatter"]["share_of_step"] < 1
    assert found["cuda_kernels_per_step"] is None  # that is for a GPU


def test_a_config_without_a_hash_grid_is_refused() -> None:
    with pytest.raises(InputError, match="no hash grid"):
        kernels.measure(str(ROOT / "configs/neus.yaml"), TINY, cases.Sizes(), warmup=1, steps=0)


def test_random_rows_are_read_and_added_to(device: torch.device) -> None:
    rates = micro.rates(device, rows=64)
    assert len(rates) == 4 and all(value > 0 for value in rates.values())
    which = (torch.arange(800, dtype=torch.int32) * 7 % 50).to(device)
    for dtype, pair, add, read in (
        (torch.float16, wp.vec2h, micro._add_half, micro._read_half),
        (torch.float32, wp.vec2, micro._add_float, micro._read_float),
    ):
        table, out = torch.zeros(50, 2, dtype=dtype, device=device), torch.empty(100, device=device)
        for kernel in (add, read):
            launch(kernel, len(out), [as_warp(table, pair), which, out], device=device)
        assert (table == 16).all() and (out == 2 * 16 * micro.PER_THREAD).all()


def test_the_product_runs_in_plain_pytorch_and_gets_its_kernels_back() -> None:
    inputs = cases.make_inputs(cases.Sizes(rays=30, samples=200, grid=16), HashGridConfig(), torch.device("cpu"))
    medium = Model(experiment.read_config(ROOT / "configs/neus_hash.yaml").model).eval().foreground
    with torch.no_grad():
        before = medium(inputs.rays)
        with baseline.instead_of_kernels(), launches.watched() as watched:
            instead = medium(inputs.rays)
        assert not watched and len(before.tau) > 20
        torch.testing.assert_close(instead.accumulate(), before.accumulate(), atol=1e-5, rtol=1e-4)
        with launches.watched() as watched:
            medium(inputs.rays)
    assert {"hash_encode._encode", "march._fill", "sums._below"} <= set(watched)


def test_frames_are_timed_and_compared(capsys: Any) -> None:
    subject = render_frame.made(str(ROOT / "configs/neus_hash.yaml"), TINY, steps=3)
    sizes = render_frame.Sizes(frame=(20, 20), depth=(32, 24), lattice=24, compare=12)
    (grid,) = render_frame.grids(subject.model)
    kept = grid.occupied.clone()
    found = render_frame.measure(subject, sizes, threads=1, gemm=SMALL_GEMM)
    machine.print_table(found)
    assert "through the grid" in capsys.readouterr().out
    assert [row["frame"] for row in found["frames"]] == ["volume", "surface", "baking", "depth 32 x 24"]
    assert all(row["px_per_s"] > 0 for row in found["frames"] if row["frame"] != "baking")
    assert all(row["peak_mb"] > 10 for row in found["frames"])
    assert 0 < found["covered"] < 1 and found["depth_error_cells"] < 0.5
    through, full, every, plainly = found["small"]
    assert through["db"] == 0 and abs(full["db"]) < 0.1 and abs(every["db"]) < 3 and plainly["likeness_db"] > 60
    assert torch.equal(grid.occupied, kept) and grid.config.prune


def test_a_view_in_another_size_sees_the_same(tmp_path: Path) -> None:
    poses, intrinsics = torch.eye(4)[None], [50.0, 60.0, 30.0, 22.0]
    cameras = Cameras.make(poses, intrinsics, [64, 40])
    wide = render_frame.framed(cameras, 0, (240, 80))
    assert wide.size.tolist() == [[240, 80]] and wide.intrinsics.tolist() == [[100.0, 120.0, 116.0, 44.0]]
    with pytest.raises(InputError, match="not a run folder"):
        render_frame.opened(str(tmp_path), "cpu", [])


def in_this_process(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str) -> int:
    """The exit code of a script that runs here."""
    monkeypatch.setattr("sys.argv", [name, *arguments])
    return importlib.import_module(name.removesuffix(".py")).main() or 0


def test_quality_is_measured_at_each_mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_to_quality, "script", partial(in_this_process, monkeypatch))
    monkeypatch.setattr(procedural, "REFERENCE_RESOLUTION", 40)
    monkeypatch.setattr(compare_meshes, "__kwdefaults__", {**(compare_meshes.__kwdefaults__ or {}), "samples": 1000})
    settings = [*TINY, "train.validations=0"]
    config, mesh = str(ROOT / "configs/neus_hash.yaml"), time_to_quality.Mesh(24, None)
    found = time_to_quality.measure(config, settings, (0.005, 0.01), tmp_path, mesh=mesh, gemm=SMALL_GEMM)
    assert [row["minutes"] for row in found["quality"]] == [0.005, 0.01]
    for row in found["quality"]:
        assert row["steps"] >= 1 and row["wall_s"] >= 60 * row["minutes"] and row["views"] == 1
        assert all(math.isfinite(row[key]) for key in ("cpu_s", "psnr", "chamfer", "accuracy", "f_0.01", "peak_mb"))
    run = render_frame.opened(str(tmp_path / "0.01_minutes"), "cpu", [])
    assert run.photograph is not None and run.photograph.shape == (24, 24, 3)


def test_poses_that_are_off_are_measured_before_and_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pose_refinement, "script", partial(in_this_process, monkeypatch))
    configs = {name: str(ROOT / "configs/neus_hash_poses.yaml") for name in ("true", "refined")}
    budget = ["device=cpu", "train.steps=2", "train.rays=64", "train.validations=0"]
    budget += ["model.foreground.field.init=sphere"]
    data, error = ["data={type: procedural, views: 6, test_views: 1, size: 24}"], pose_refinement.Error(0.5, 1.0)
    rows = pose_refinement.measure(configs, data, tmp_path, error, budget, ["optimizer.parts.poses=1e-12"])["poses"]
    assert [row["run"] for row in rows] == ["true", "refined"] and all(row["psnr"] > 3 for row in rows)
    assert rows[0]["degrees_before"] < 1e-3 and rows[0]["percent_before"] < 1e-3
    off = rows[1]  # an alignment takes some of it
    assert 0.2 < off["degrees_before"] < 0.6 and 0.4 < off["percent_before"] < 1.2
    assert off["degrees_after"] == pytest.approx(off["degrees_before"], abs=1e-4)
    assert pose_refinement.runs("wrong,true") == ("wrong", "true")
    with pytest.raises(argparse.ArgumentTypeError, match="unknown run 'none'"):
        pose_refinement.runs("true,none")


def test_a_script_that_fails_ends_the_benchmark(tmp_path: Path) -> None:
    assert time_to_quality.marks("1,2.5") == (1.0, 2.5)
    with pytest.raises(argparse.ArgumentTypeError):
        time_to_quality.marks("1,-2")
    with pytest.raises(InputError, match="ended with code 2"):
        time_to_quality.ended("train.py", 2)


def test_gains_of_photographs_are_learned_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photograph_gains, "script", partial(in_this_process, monkeypatch))
    budget = ["device=cpu", "train.minutes=null", "train.steps=3", "train.rays=32", "train.validations=0"]
    data = ["data={type: procedural, views: 6, test_views: 1, size: 24}", "model.foreground.field.init=sphere"]
    found = photograph_gains.measure(str(ROOT / "configs/neus_hash.yaml"), data, tmp_path, 0.5, budget)
    assert [row["run"] for row in found["gains"]] == ["clean", "plain", "tint"]
    assert all(row["steps"] == 3 and row["psnr_affine"] > row["psnr"] for row in found["gains"])


def test_a_gain_is_of_the_object_alone() -> None:
    scene = procedural.ProceduralData(views=3, test_views=1, size=24).load()
    bright = photograph_gains.with_gains(scene, 0.5)
    gains = 2.0 ** np.random.default_rng(0).uniform(-0.5, 0.5, 4)
    for view, gain in enumerate(gains):
        before, after = (np.asarray(of.images[view], float) / 255 for of in (scene, bright))
        mask = np.asarray(scene.masks[view])  # type: ignore[index]
        inside = (mask == 255)[..., None] & (before * gain < 0.99)
        np.testing.assert_allclose(after[inside], (gain * before)[inside], atol=3e-3)
        assert (after[mask == 0] == 1).all()


def test_a_ray_passes_few_files_and_the_design_lists_them_in_order() -> None:
    tiny = ["data={type: procedural, views: 4, test_views: 1, size: 24}", "model.foreground.field.init=sphere"]
    passed = list(ray_path.files_passed(str(ROOT / "configs/neus_hash.yaml"), tiny))
    assert len(passed) <= 26 and sum(name.startswith("models/kernels/") for name in passed) <= 8
    page = (ROOT / "docs/design.md").read_text("utf-8")
    listed = page[page.index("| | File | What happens there |") : page.index("No dict with string keys")]
    places = [listed.find(name.removesuffix(".py").removeprefix("models/losses/")) for name in passed]
    assert -1 not in places, [name for name, place in zip(passed, places, strict=True) if place < 0]
    first = [name for name in passed if not name.startswith(("models/losses/", "utils/"))]
    order = [listed.index(f"{name.removesuffix('.py')}") for name in first]
    assert order == sorted(order), first
