"""What the scripts do with what they cannot use: exit code 2, one line that says what, and nothing is touched."""

import os
import subprocess
import sys
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.engine.test_training import SMALL, trained
from tests.support import made_data
from tests.support.sources import ROOT

CONFIG = "configs/neus_hash.yaml"


def digests(folder: Path) -> dict[str, str]:
    """Every file and folder in `folder`, with what is in it."""
    paths = sorted(folder.rglob("*"))
    return {str(p.relative_to(folder)): blake2b(p.read_bytes()).hexdigest() if p.is_file() else "" for p in paths}


def on(data: Path) -> list[str]:
    """The overrides of a short run on a data folder."""
    return [*SMALL, f"data={{type: auto, path: {data}}}", "train.steps=2"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run, its data beside it."""
    folder = tmp_path_factory.mktemp("runs")
    made_data.transforms(folder / "data")
    trained(folder / "run", 2, *on(folder / "data"))
    return folder / "run"


def refused(run: Path, *arguments: str, words: tuple[str, ...]) -> None:
    """The script ends with code 2 and one line that holds all the words; the run's folder is as it was."""
    before = digests(run)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and len(errors[0]) < 700, done.stderr
    for word in words:
        assert word in errors[0], (word, errors[0])
    assert digests(run) == before


def missing_folder(data: Path, content: dict[str, Any]) -> None:
    data.rename(data.with_name("elsewhere"))


def missing_images(data: Path, content: dict[str, Any]) -> None:
    for path in sorted((data / "images").iterdir())[2:8]:
        path.unlink()


def truncated_image(data: Path, content: dict[str, Any]) -> None:
    path = data / "images/004.png"
    path.write_bytes(path.read_bytes()[:500])


def no_number(data: Path, content: dict[str, Any]) -> None:
    for frame in content["frames"][:3]:
        frame["transform_matrix"][1][3] = float("nan")


def not_orthonormal(data: Path, content: dict[str, Any]) -> None:
    for frame in content["frames"][:3]:
        frame["transform_matrix"][0][:3] = [1.2 * x for x in frame["transform_matrix"][0][:3]]


def no_images(data: Path, content: dict[str, Any]) -> None:
    content["frames"] = []


def other_size(data: Path, content: dict[str, Any]) -> None:
    for view, frame in enumerate(content["frames"]):
        frame["mask_path"] = f"masks/{view:03d}.png"
        made_data.mask(data / frame["mask_path"], (24, 17 if view == 5 else 16))


DATA: dict[Callable[[Path, dict[str, Any]], None], tuple[str, ...]] = {
    missing_folder: ("data.path", "no such"),
    missing_images: ("transforms.json", "6 of 10 images", "no such file"),
    truncated_image: ("004.png", "damaged image"),
    no_number: ("transforms.json", "3 of 10 views", "transform_matrix", "NaN"),
    not_orthonormal: ("transforms.json", "transform_matrix", "not orthonormal"),
    no_images: ("transforms.json", "frames", "no images"),
    other_size: ("masks/005.png", "24 x 17", "24 x 16"),
}


@pytest.mark.parametrize("fault", DATA, ids=lambda fault: fault.__name__)
def test_data_that_cannot_be_used(fault: Callable[..., None], run: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    content = made_data.transforms(data)
    fault(data, content)
    if data.exists():
        made_data.write(data / "transforms.json", content)
    refused(run, "train.py", CONFIG, *on(data), f"output={run}", words=DATA[fault])


def test_an_unknown_key_is_named_with_its_place(run: Path, tmp_path: Path) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text("base: neus_hash.yaml\ntrain:\n  stepps: 100\n")
    words = ("mine.yaml:3:3: train.stepps", "did you mean 'steps'?")
    refused(run, "train.py", str(config), *on(run.parent / "data"), f"output={run}", words=words)


def test_a_number_out_of_range_is_named(run: Path) -> None:
    words = ("command line: optimizer.lr", "greater than 0", "-1")
    refused(run, "train.py", CONFIG, *on(run.parent / "data"), f"output={run}", "optimizer.lr=-1", words=words)


@pytest.mark.parametrize("more", [["--check"], []], ids=["check", "run"])
@pytest.mark.parametrize(
    "wrong, words",
    [
        ("model.foreground.field.geometry={layers: 2, width: 20, skip: [1]}", ("model.foreground: a network", "skip")),
        ("optimizer.parts={foregruond: 1e-2}", ("optimizer.parts: 'foregruond'", "did you mean 'foreground'?")),
    ],
)
def test_what_only_building_the_model_shows(run: Path, wrong: str, words: tuple[str, ...], more: list[str]) -> None:
    refused(run, "train.py", CONFIG, *on(run.parent / "data"), f"output={run}-new", wrong, *more, words=words)
    assert not run.with_name("run-new").exists()


def test_a_run_is_not_resumed_with_another_config(run: Path) -> None:
    words = ("config.yaml", "seed: 0 -> 7", "--allow-config-change")
    refused(run, "train.py", CONFIG, *on(run.parent / "data"), f"output={run}", "seed=7", words=words)


def test_a_checkpoint_of_another_model_is_not_loaded(run: Path) -> None:
    change = [f"output={run}", "model.foreground.field.features=7", "--allow-config-change"]
    words = ("step_00000002", "another model", "(64, 37)", "(64, 29)")
    refused(run, "train.py", CONFIG, *on(run.parent / "data"), *change, words=words)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there(run: Path) -> None:
    words = ("device: cuda", "no CUDA device")
    refused(run, "train.py", CONFIG, *on(run.parent / "data"), f"output={run}", "device=cuda", words=words)


def test_a_folder_that_is_no_run(run: Path) -> None:
    data = run.parent / "data"
    refused(data, "extract_mesh.py", str(data), words=(str(data), "not a run folder", "config.yaml"))


def test_a_run_without_a_checkpoint(run: Path, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_bytes((run / "config.yaml").read_bytes())
    refused(tmp_path, "evaluate.py", str(tmp_path), words=(str(tmp_path), "no complete checkpoint", "train"))


def test_changes_of_the_config_may_stand_behind_options(run: Path) -> None:
    """A run that is not there is what is wrong, not the order of the arguments."""
    refused(run, "evaluate.py", "nowhere", "--split", "test", "data.masks=keep", words=("nowhere", "no such folder"))
    refused(run, "train.py", CONFIG, "--check", "train.raiz=3", words=("train.raiz",))
