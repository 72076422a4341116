"""What a config inherits, and how it gets rid of it: null, renamed keys, learning rates of parts that are not there."""

from pathlib import Path

import pytest
import yaml

from engine import resume
from engine.build import check_optimizer
from engine.experiment import read_config
from engine.renames import RENAMED
from tests.support.sources import ROOT
from utils.config.loading import to_yaml
from utils.errors import InputError

NEUS, OPEN = "configs/neus_hash.yaml", "configs/neus_hash_open.yaml"


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def child(folder: Path, text: str) -> Path:
    path = folder / "child.yaml"
    path.write_text(f"base: neus_hash_open.yaml\n{text}\n", "utf-8")
    return path


def test_null_removes_a_loss_a_rate_and_a_medium(tmp_path: Path) -> None:
    text = "losses: {mask: null}\nmodel: {background: null}\noptimizer: {parts: {background.field.encoding: null}}"
    for config in (
        read_config(child(tmp_path, text)),
        read_config(
            OPEN, ["losses.mask=null", "model.background=null", "optimizer.parts={background.field.encoding: null}"]
        ),
    ):
        assert set(config.losses) == {"color", "eikonal", "points", "background_points"}
        assert config.model.background is None
        assert set(config.optimizer.parts) == {"foreground.field.encoding", "foreground.opacity"}
        check_optimizer(config)


def test_null_brings_a_default_back() -> None:
    config = read_config(NEUS, ["optimizer.betas=null", "train.rays=null", "model.foreground.field.features=null"])
    assert config.optimizer.model_dump()["betas"] == (0.9, 0.999) and config.train.rays == 2048
    assert config.model.foreground.field.model_dump()["features"] == 256


def test_what_was_removed_can_be_given_anew(tmp_path: Path) -> None:
    child(tmp_path, "losses: {mask: null}")
    grandchild = tmp_path / "grandchild.yaml"
    grandchild.write_text("base: child.yaml\nlosses: {mask: {type: mask, weight: 0.5}}\n", "utf-8")
    assert read_config(grandchild).losses["mask"].weight(0.0) == 0.5


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("losses.maks=null", "losses.maks: should be a mapping with a `type` (got None); null removes an inherited"),
        ("seed=null", "seed: should be a whole number (got None); null removes an inherited key"),
        ("model.foreground.field=null", "model.foreground.field: required but missing"),
        ("train.rays_at_once=8", "train.rays_at_once: is now called micro_batch: write train.micro_batch"),
        (
            "model.foreground.field.color={width: 32}",
            "field.color: is now called appearance.network: write model.foreground.appearance.network",
        ),
        ("model.foreground.field.start=hull", "field.start: is now called init: write model.foreground.field.init"),
    ],
)
def test_mistakes(override: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        read_config(NEUS, [override])
    assert words in str(error.value), str(error.value)


def test_a_file_with_an_old_key_says_where(tmp_path: Path) -> None:
    path = child(tmp_path, "train:\n  rays_at_once: 64")
    with pytest.raises(InputError, match=r"child.yaml:3:3: train.rays_at_once: is now called micro_batch"):
        read_config(path)


def test_a_saved_config_with_old_keys_is_read(tmp_path: Path) -> None:
    config = read_config(NEUS, ["train.micro_batch=64", "model.foreground.field.init=sphere"])
    tree = yaml.safe_load(to_yaml(config))
    tree["train"]["rays_at_once"] = tree["train"].pop("micro_batch")
    foreground = tree["model"]["foreground"]
    field, appearance = foreground["field"], foreground.pop("appearance")
    field["start"] = field.pop("init")["type"]
    field |= {"color": appearance["network"], "color_activation": appearance["activation"], "view": appearance["view"]}
    field |= {"view_encoding": appearance["encoding"], "view_weight": appearance["view_weight"]}
    assert {key.split(".")[-1] for key in RENAMED} <= {*field, *tree["train"]}
    saved = tmp_path / "config.yaml"
    saved.write_text(yaml.safe_dump(tree), "utf-8")
    assert read_config(saved, saved=True) == config


def test_a_rate_of_a_part_that_is_not_there_says_where_and_what_to_write() -> None:
    config = read_config(NEUS, ["model.foreground.opacity={type: occupancy}"])
    with pytest.raises(InputError) as error:
        check_optimizer(config)
    said = str(error.value)
    assert said.startswith("configs/neus_hash.yaml:") and "optimizer.parts: 'foreground.opacity'" in said
    assert "write optimizer.parts={foreground.opacity: null}" in said
    again = ["model.foreground.opacity={type: occupancy}", "optimizer.parts={foreground.opacity: null}"]
    check_optimizer(read_config(NEUS, again))


@pytest.mark.parametrize("part", ["foregruond.field", "backgruond.field.encoding", "x"])
def test_a_misspelled_part_is_refused(part: str) -> None:
    with pytest.raises(InputError, match=f"command line: optimizer.parts: '{part}': this model has no parameter"):
        check_optimizer(read_config(OPEN, [f"optimizer.parts={{{part}: 1e-3}}"]))


def test_a_run_that_named_a_part_as_it_was_goes_on_by_its_name_of_today(tmp_path: Path) -> None:
    now = read_config(NEUS, ["optimizer.parts={foreground.appearance.network: 3e-3}"])
    old = to_yaml(now).replace("foreground.appearance.network:", "foreground.field.color:")
    assert "foreground.field.color:" in old
    (tmp_path / "config.yaml").write_text(old, "utf-8")
    resume._compare_with_saved(now, tmp_path, False)
    other = read_config(NEUS, ["optimizer.parts={foreground.appearance.network: 4e-3}"])
    with pytest.raises(InputError, match=r"optimizer.parts.foreground.appearance.network: 0.003 -> 0.004"):
        resume._compare_with_saved(other, tmp_path, False)
    with pytest.raises(InputError, match="'foreground.field.color': is now called foreground.appearance.network"):
        check_optimizer(read_config(NEUS, ["optimizer.parts={foreground.field.color: 3e-3}"]))
