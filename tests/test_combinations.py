"""Any field with any opacity, sampler and background: sense trains, nonsense is refused with the reason."""

import itertools
import random
from pathlib import Path
from typing import Any

import pytest
import torch

import experiment
from dataio.batches import PixelSampler
from dataio.scene import Scene
from tests.sources import ROOT
from utils.errors import InputError

DATA = "data={type: procedural, views: 6, test_views: 1, size: 32}"
GRID = {"type": "hash_grid", "levels": 4, "top": 64, "log2_rows": 11}
SMALL = {"layers": 2, "width": 32}
VIEW = {"view_encoding": {"type": "spherical_harmonics"}, "color": {"layers": 1, "width": 32}, "features": 8}
SURFACE = {**VIEW, "geometry": {**SMALL, "activation": "softplus"}}
WAVES = {"type": "frequency", "levels": 4}

FIELDS: dict[str, dict[str, Any]] = {
    "sdf, frequencies": {"type": "sdf", "encoding": WAVES, **SURFACE},
    "sdf, hash grid": {"type": "sdf", "encoding": GRID, **SURFACE},
    "sdf, sines": {"type": "sdf", "encoding": {"type": "frequency", "levels": 0}, **VIEW,
                   "geometry": {**SMALL, "activation": "sine"}},
    "sdf, taps": {"type": "sdf", "encoding": GRID, **SURFACE, "numerical": {"taps": 4}},
    "occupancy": {"type": "occupancy", "encoding": GRID, **SURFACE},
    "nerf, frequencies": {"type": "nerf", "encoding": WAVES, "density": SMALL, **VIEW},
    "nerf, dense grid": {"type": "nerf", "encoding": {"type": "dense_grid", "resolutions": [8, 16]},
                         "density": SMALL, **VIEW},
}  # fmt: skip
OPACITIES: dict[str, dict[str, Any]] = {
    "logistic": {"type": "logistic"},
    "laplace": {"type": "laplace"},
    "occupancy": {"type": "occupancy", "scale": 10},
    "occupancy of a distance": {"type": "occupancy", "scale": -10},
    "density": {"type": "density", "activation": "softplus"},
}
SAMPLERS: dict[str, dict[str, Any]] = {
    "neus": {"type": "neus", "uniform": 16, "rounds": 2, "per_round": 8},
    "occupancy_grid": {"type": "occupancy_grid", "resolution": 16, "step": [0.03, 0.03]},
    "stratified": {"type": "stratified", "samples": 32},
    "importance": {"type": "importance", "coarse": 16, "fine": 16},
    "error_bound": {"type": "error_bound", "uniform": 16, "rounds": 2, "per_round": 16, "samples": 16, "extra": 4},
    "root_finding": {"type": "root_finding", "march": 32, "samples": 16, "free": 8},
    "inverse_radius": {"type": "inverse_radius", "samples": 8},
}
OUTSIDE = {
    "bounds": "outside",
    "sampler": SAMPLERS["inverse_radius"],
    "opacity": OPACITIES["density"],
    "field": {"type": "outside", "density": SMALL, **VIEW},
}
BACKGROUNDS: dict[str, dict[str, Any] | None] = {
    "none": None,
    "waves": {**OUTSIDE, "field": {**OUTSIDE["field"], "encoding": WAVES}},  # type: ignore[dict-item]
    "grid": {**OUTSIDE, "field": {**OUTSIDE["field"], "encoding": GRID}},  # type: ignore[dict-item]
}
# What each opacity makes sense of, and what each sampler asks for: the truth that the declarations are held against.
SENSE = {
    "logistic": "sdf",
    "laplace": "sdf",
    "occupancy of a distance": "sdf",
    "occupancy": "occupancy nerf",
    "density": "occupancy nerf",
}


def makes_sense(field: str, opacity: str, sampler: str) -> bool:
    kind = FIELDS[field]["type"]
    asks = {
        "neus": kind == "sdf",
        "error_bound": kind == "sdf" and opacity == "laplace",
        "root_finding": kind != "nerf",
        "inverse_radius": False,
    }
    return kind in SENSE[opacity].split() and asks.get(sampler, True)


ALL = list(itertools.product(FIELDS, OPACITIES, SAMPLERS, BACKGROUNDS))
POSSIBLE = [names for names in ALL if makes_sense(*names[:3])]


def chosen(count: int) -> list[tuple[str, str, str, str]]:
    """A seeded choice in which every field, opacity, sampler and background comes up."""
    shuffled = random.Random(7).sample(POSSIBLE, len(POSSIBLE))
    wanted = {(i, name) for names in POSSIBLE for i, name in enumerate(names)}
    picked = []
    for names in shuffled:
        new = {pair for pair in enumerate(names) if pair in wanted}
        if len(new) > 1 or (new and len(wanted) < 4):
            picked.append(names)
            wanted -= new
    rest = [names for names in shuffled if names not in picked]
    return [*picked, *rest][:count]


def config_text(field: str, opacity: str, sampler: str, background: str) -> dict[str, Any]:
    foreground = {
        "bounds": "sphere",
        "field": FIELDS[field],
        "opacity": OPACITIES[opacity],
        "sampler": SAMPLERS[sampler],
    }
    losses: dict[str, Any] = {"color": {"type": "color", "norm": "l2"}}
    if FIELDS[field]["type"] == "sdf":
        losses["eikonal"] = {"type": "eikonal", "weight": 0.01}
    model = {"foreground": foreground, "background": BACKGROUNDS[background]}
    return {"model": model, "losses": losses, "optimizer": {"lr": 3e-3}}


@pytest.fixture(scope="module")
def scene() -> Scene:
    read = experiment.read_config(ROOT / "configs/demo.yaml", [DATA])
    return read.data.load()


def test_the_choice_covers_every_part() -> None:
    picked = chosen(24)
    assert len(set(picked)) == 24
    assert {(i, name) for names in picked for i, name in enumerate(names)} == {
        (i, name) for names in POSSIBLE for i, name in enumerate(names)
    }


@pytest.mark.parametrize("names", chosen(24), ids=lambda names: " + ".join(names))
def test_it_trains(names: tuple[str, str, str, str], scene: Scene) -> None:
    """50 steps of 64 rays: the color error of the same 256 rays is less than before."""
    config = experiment.ExperimentConfig.model_validate(config_text(*names))
    experiment.use_threads(1)
    objective = experiment.build_objective(config, scene, torch.device("cpu"))
    optimizer = experiment.build_optimizer(config.optimizer, objective.model)
    measured = next(PixelSampler(scene, rays=256, seed=1, rank=0, world=1, device=torch.device("cpu")))
    sampler = PixelSampler(scene, rays=64, seed=0, rank=0, world=1, device=torch.device("cpu"))
    objective.update(0.0, 0)
    before = float(objective(measured).squared_error)
    for step in range(50):
        torch.manual_seed(step)
        objective.update(step / 50, step)
        report = objective(next(sampler))
        optimizer.zero_grad()
        report.loss.backward()
        optimizer.step()
        assert torch.isfinite(report.loss)
    sampler.close()
    after = float(objective(measured).squared_error)
    assert after < 0.8 * before


def test_what_makes_no_sense_is_refused_with_the_reason() -> None:
    """Each of the impossible combinations, and none of the others."""
    for names in ALL:
        if names[3] != "none":
            continue
        field, opacity, sampler, _ = names
        if makes_sense(*names[:3]):
            experiment.ExperimentConfig.model_validate(config_text(*names))
            continue
        with pytest.raises(ValueError) as error:
            experiment.ExperimentConfig.model_validate(config_text(*names))
        text = str(error.value)
        kind = FIELDS[field]["type"]
        if kind not in SENSE[opacity].split():
            assert f"opacity.type: {OPACITIES[opacity]['type']}" in text and f"field.type: {kind} gives" in text, names
        else:
            assert f"sampler.type: {SAMPLERS[sampler]['type']}" in text, names
            assert "needs" in text or "works beyond the unit sphere only" in text, names


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.foreground.opacity={type: density}"], ["model.foreground", "empty space opaque", "positive outside"]),
        (["model.foreground.field={type: nerf}"], ["model.foreground", "logistic", "distances", "density"]),
        (["model.foreground.bounds=outside"], ["model.foreground", "inside the unit sphere only", "bounds: outside"]),
        (["model.foreground.sampler={type: error_bound}"], ["error_bound", "opacity.type: laplace"]),
        (
            ["model.foreground.field={type: nerf}", "model.foreground.opacity={type: density}"],
            ["losses.eikonal needs", "signed distance"],
        ),
        (
            [
                "model.background={bounds: sphere, sampler: {type: stratified}, field: {type: nerf}}",
                "model.background.opacity.type=density",
            ],
            ["background.bounds", "same stretch"],
        ),
    ],
)  # fmt: skip
def test_refused_before_any_data_is_read(overrides: list[str], words: list[str]) -> None:
    with pytest.raises(InputError) as error:
        experiment.read_config(ROOT / "configs/neus_hash.yaml", ["data.path=/no/such/folder", *overrides])
    for word in words:
        assert word in str(error.value)
    assert Path("configs/neus_hash.yaml").name in str(error.value) or "command line" in str(error.value)
