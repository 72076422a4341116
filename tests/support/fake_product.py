"""A copy of the product in which the GPU is one that is not there, and what it says when `fake_cuda` runs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.models.kernels.test_other_machines import in_form

ROOT = Path(__file__).resolve().parents[2]
NAME = "fakecuda"  # as in fake_cuda, which changes the process that imports it
FOLDERS = ("benchmarks", "configs", "dataio", "engine", "models", "utils")


def copy_product(folder: Path) -> None:
    """Copy the product to `folder`: there the device has another name, and kernels the form of a GPU."""
    for name in FOLDERS:
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
    for script in [*ROOT.glob("*.py"), *(ROOT / "tests" / "support").glob("fake_*.py")]:
        shutil.copy(script, folder)
    for path in folder.rglob("*.py"):
        text = path.read_text("utf-8")
        if "kernels" in path.parts:
            text = in_form(path.stem, text, one_point=True)
        if not path.name.startswith("fake_"):
            text = text.replace('"cuda"', f'"{NAME}"').replace("auto|cpu|cuda(", f"auto|cpu|{NAME}(")
        path.write_text(text, "utf-8")
    os.utime(folder / "configs" / "schema.json", (0, 0))  # the sources are newer, and know the device's name


def told_by(folder: Path, *arguments: str) -> dict[str, Any]:
    """What `fake_cuda` prints in a copy of the product, and under "said" its messages; arguments as it takes them."""
    command = [sys.executable, "fake_cuda.py", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-4000:]
    answer: dict[str, Any] = json.loads(done.stdout)
    return {**answer, "said": done.stderr}
