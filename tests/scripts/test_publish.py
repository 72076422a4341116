"""A published run: the weights of the checkpoint, nothing of the machine, and the user's word on the data."""

from pathlib import Path

import pytest
import torch

from engine.published import open_published, publish
from engine.run import Run
from tests.engine.test_training import SPHERE, assert_equal, trained
from utils.errors import InputError
from utils.evaluation.results import update_results


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "shoe"
    trained(folder, 2, SPHERE, "train.rays=16")
    update_results(folder / "metrics.json", images={"psnr": 31.256, "ssim": 0.9, "views": 3})
    return folder


def test_what_is_published_is_the_run(run: Path, tmp_path: Path) -> None:
    publish(run, tmp_path, data_license="CC BY 4.0,\nJ. Doe")
    found, truth = open_published(tmp_path), Run.open(run, device="cpu")
    assert found.step == truth.step == 2
    assert_equal(dict(found.model.state_dict()), dict(truth.model.state_dict()))
    points = torch.rand(50, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    with torch.no_grad():
        assert torch.equal(found.model.surface_value(points), truth.model.surface_value(points))
    assert (found.world_from_scene == truth.world_from_scene).all()
    card = (tmp_path / "README.md").read_text("utf-8")
    assert card.startswith("# shoe\n") and "by the publisher's word: CC BY 4.0, J. Doe\n" in card
    assert "| PSNR of 3 held-out views | 31.26 dB |" in card and "| Steps, rays per step | 2, 16 |" in card
    assert all(str(run) not in file.read_text("utf-8", errors="replace") for file in tmp_path.iterdir())
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "README.md", "config.yaml", "metrics.json", "model.safetensors",
    ]  # fmt: skip


def test_what_is_damaged_or_missing_is_one_line(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no best checkpoint - train with train.keep_best=true"):
        publish(run, tmp_path, data_license="own", best=True)
    publish(run, tmp_path, data_license="own")
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (b"", whole[:50], whole[:-4], b"\xff" * 64):
        weights.write_bytes(damaged)
        with pytest.raises(InputError, match="model.safetensors: not the weights of a published run"):
            open_published(tmp_path)
