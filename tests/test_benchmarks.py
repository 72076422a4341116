"""The benchmark in small: every number is there and possible."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from benchmarks import data_sets, loader, train_step
from tests.test_training import ROOT

TINY = ["data={type: procedural, views: 3, test_views: 0, size: 24}", "train.rays=32", "device=cpu"]


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return train_step.measure(
        str(ROOT / "configs/neus_hash.yaml"), TINY, warmup=2, steps=3, gemm=(256, 128, 128)
    )


def test_every_number_is_measured(found: dict[str, Any]) -> None:
    numbers = {key: value for key, value in found.items() if isinstance(value, float)}
    assert len(numbers) >= 9 and all(math.isfinite(value) for value in numbers.values())
    assert all(value > 0 for key, value in numbers.items() if key != "train_psnr")
    assert found["rays_per_step"] == 32 and found["steps"] == 3
    assert found["rays_per_s"] == pytest.approx(32 / found["wall_s_per_step"])
    assert found["ratio_to_reference"] == pytest.approx(0.053 * found["rays_per_cpu_s"])
    equal = found["ratio_at_equal_gemm"] * found["gemm_gflop_per_s"]
    assert equal == pytest.approx(100 * found["ratio_to_reference"])
    assert found["cpu"] and found["torch"] and found["warp"]


def test_the_table_and_the_file_hold_them(found: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    train_step.print_table(found)
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown] == list(found)
    path = train_step.write(found, tmp_path / train_step.dated_file(found).name)
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
    found = data_sets.measure(".", [*keys, "model.foreground.field.start=sphere"], 3, 16)
    assert found.views == 5 and found.size == "24 x 24" and found.format == "procedural"
    assert found.reprojection is None and math.isfinite(found.first + found.last)
    assert found.row().count("|") == data_sets.HEAD.splitlines()[0].count("|")
