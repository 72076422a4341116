"""The whole product on a GPU that is not there: scripts, configs, and where a host would wait for it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.models.kernels.test_other_machines import in_form

ROOT = Path(__file__).resolve().parents[2]
NAME = "fakecuda"  # as in fake_cuda, which changes the process that imports it
FOLDERS = ("benchmarks", "configs", "dataio", "engine", "models", "utils")
# All methods, the published ones with networks that fit a CPU.
CONFIGS = [
    path.relative_to(ROOT / "configs").with_suffix("").as_posix()
    for folder, names in ((ROOT / "configs", "*_hash*.yaml"), (ROOT / "configs" / "reduced", "*.yaml"))
    for path in sorted(folder.glob(names))
]
MOST_NODES, MOST_STARTS = 332, 51  # of a recorded step of neus_hash


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a copy of the product says, in which the device has another name and kernels the form of a GPU."""
    copy = tmp_path_factory.mktemp("product")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__", "results"))
    for script in [*ROOT.glob("*.py"), *(ROOT / "tests" / "support").glob("fake_*.py")]:
        shutil.copy(script, copy)
    for path in copy.rglob("*.py"):
        text = path.read_text("utf-8")
        if "kernels" in path.parts:
            text = in_form(path.stem, text, one_point=True)
        if not path.name.startswith("fake_"):
            text = text.replace('"cuda"', f'"{NAME}"').replace("auto|cpu|cuda(", f"auto|cpu|{NAME}(")
        path.write_text(text, "utf-8")
    os.utime(copy / "configs" / "schema.json", (0, 0))  # the sources are newer, and know the device's name
    command = [sys.executable, "fake_cuda.py", *CONFIGS]
    done = subprocess.run(
        command, cwd=copy, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-4000:]
    answer: dict[str, Any] = json.loads(done.stdout)
    answer["said"] = done.stderr
    return answer


def check_what_meets_across_devices_is_refused(found: dict[str, Any]) -> None:
    operation, kernel = found["refusals"]
    assert operation.startswith("aten::add: tensors [(3,)] on the CPU") and "are not on fakecuda:0" in kernel


def check_every_script_runs_there(found: dict[str, Any]) -> None:
    assert len(found["codes"]) == 11 and not any(found["codes"].values()), found["said"][-4000:]
    assert "resumed at step 4" in found["said"]


def check_every_config_trains_there_as_on_a_cpu(found: dict[str, Any]) -> None:
    """The same random numbers are drawn, so that the errors of the first step's colors agree."""
    assert list(found["errors"]) == CONFIGS
    for name, (here, there) in found["errors"].items():
        assert there == pytest.approx(here, rel=1e-4), name


def check_what_the_host_waits_for(found: dict[str, Any]) -> None:
    """For the lengths of packed arrays, the march's one and the pruning's three, until there is room for them."""
    waits = {place.split(":")[0]: count for place, count in found["waits"]["neus_hash"].items()}
    assert waits == {"models/kernels/rays/march.py": 1, "models/kernels/rays/packed.py": 3}
    assert found["waits"]["reduced/nerf"] == {}  # dense samples need no lengths


def check_recorded_steps_are_the_same_steps(found: dict[str, Any]) -> None:
    """A graph is recorded anew when capacity or levels change; VolSDF's bound has to be asked whether it holds.

    Pixels are chosen and gathered on the device, in the graph, and are those that the host would have chosen. Of
    several ranks the evaluation and its backward pass are two graphs, since ranks exchange counts between them.
    """
    for name, run in found["recorded"].items():
        waits = name == "reduced/volsdf"
        assert run["difference"] == 0 and bool(run["waits"]) == waits and bool(run["graphs"]) != waits, (name, run)
        assert run["threads"] == 0, (name, run)  # that gather pixels
    assert len(found["recorded"]) == 5
    several, one = found["recorded"]["neus_hash among ranks"], found["recorded"]["neus_hash"]
    assert several["graphs"] == 2 * one["graphs"] and several["starts"] <= one["starts"] + 2
    by_samples = found["recorded"]["unisurf_hash"]
    sizes = len(set(by_samples["rays"]))
    assert by_samples["rays"][0] == 16 and 1 < sizes <= 3 and by_samples["graphs"] <= sizes


def check_how_much_a_recorded_step_starts(found: dict[str, Any]) -> None:
    """What may only become less: nodes of the graph, and what the host starts beside it."""
    run = found["recorded"]["neus_hash"]
    print(f"a recorded step of neus_hash: {run['nodes']} nodes, {run['starts']} more that the host starts one by one")
    assert run["nodes"] <= MOST_NODES and run["starts"] <= MOST_STARTS


def test_the_product_on_a_fake_cuda_device(found: dict[str, Any]) -> None:
    """All at once: the product runs for minutes, and two workers of the test run should not both wait for it."""
    check_what_meets_across_devices_is_refused(found)
    check_every_script_runs_there(found)
    check_every_config_trains_there_as_on_a_cpu(found)
    check_what_the_host_waits_for(found)
    check_recorded_steps_are_the_same_steps(found)
    check_how_much_a_recorded_step_starts(found)
