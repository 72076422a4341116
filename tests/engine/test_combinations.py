"""Any field with any opacity, sampler and background: what fits learns, what does not is refused with its reason."""

from __future__ import annotations

import itertools
import random
from functools import cache
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from dataio.batches import PixelSampler
from dataio.formats.procedural import ProceduralData
from dataio.scene import Scene
from engine import experiment
from models.model import Model, ModelConfig
from models.objective import Objective
from tests.support.sources import ROOT
from utils.errors import InputError

HASH = {"type": "hash_grid", "levels": 4, "top": 64, "log2_rows": 10}
GRID = {"type": "dense_grid", "resolutions": [8, 16]}
WAVES = {"type": "frequency", "levels": 2}
BENT = {"layers": 2, "width": 32, "activation": "softplus"}
PLAIN = {"layers": 1, "width": 32}
SURFACE = {"features": 4, "radius": 0.6}
APPEARANCE = {"type": "mlp", "encoding": WAVES, "network": PLAIN}
FIELDS: dict[str, dict[str, Any]] = {
    "radiance": {"type": "radiance", "encoding": WAVES, "density": PLAIN, "features": 4},
    "radiance on a grid": {"type": "radiance", "encoding": GRID, "density": PLAIN, "features": 4},
    "sdf": {"type": "sdf", "encoding": WAVES, "geometry": BENT, **SURFACE},
    "sdf on a grid": {"type": "sdf", "encoding": HASH, "geometry": BENT, **SURFACE},
    "occupancy": {"type": "occupancy", "encoding": WAVES, "geometry": BENT, **SURFACE},
    "occupancy on a grid": {"type": "occupancy", "encoding": HASH, "geometry": BENT, **SURFACE},
}
OPACITIES: dict[str, dict[str, Any]] = {
    "density": {"type": "density"},
    "exponential": {"type": "density", "activation": "exp"},
    "logistic": {"type": "logistic"},
    "laplace": {"type": "laplace"},
    "occupancy": {"type": "occupancy", "scale": 10},
    "occupancy of a distance": {"type": "occupancy", "scale": -10},
}
SAMPLERS: dict[str, dict[str, Any]] = {
    "stratified": {"type": "stratified", "samples": 24},
    "importance": {"type": "importance", "coarse": 12, "fine": 12},
    "neus": {"type": "neus", "uniform": 12, "rounds": 2, "per_round": 6},
    "error_bound": {"type": "error_bound", "uniform": 16, "rounds": 2, "per_round": 8, "samples": 16, "extra": 8},
    "root_finding": {"type": "root_finding", "march": 24, "samples": 12, "free": 8, "interval": 0.5},
    "occupancy_grid": {"type": "occupancy_grid", "resolution": 16, "step": [0.05, 0.08]},
}
BACKGROUNDS: dict[str, dict[str, Any] | None] = {
    "color": None,
    "inverted sphere": {
        "bounds": "outside",
        "sampler": {"type": "inverse_radius", "samples": 8},
        "opacity": {"type": "density", "activation": "abs"},
        "field": {"type": "outside", "encoding": WAVES, "density": PLAIN, "features": 4},
        "appearance": APPEARANCE,
    },
}
# What a field's value means, and what can make sense of that: said here once more, apart from the parts themselves.
READS = {
    "radiance": {"density", "exponential", "occupancy"},
    "sdf": {"logistic", "laplace", "occupancy of a distance"},
    "occupancy": {"density", "exponential", "occupancy"},
}
ASKS = {"neus": {"sdf"}, "error_bound": {"sdf"}, "root_finding": {"sdf", "occupancy"}}
PARTS = (FIELDS, OPACITIES, SAMPLERS)
Names = tuple[str, str, str]
ALL: list[Names] = list(itertools.product(FIELDS, OPACITIES, SAMPLERS))


def fits(names: Names) -> bool:
    field, opacity, sampler = names
    kind = FIELDS[field]["type"]
    return opacity in READS[kind] and kind in ASKS.get(sampler, READS)


def config(names: Names, background: str, **losses: object) -> experiment.ExperimentConfig:
    chosen = [parts[name] for parts, name in zip(PARTS, names, strict=True)]
    parts = dict(zip(("field", "opacity", "sampler"), chosen, strict=True))
    foreground = {"bounds": "sphere", "appearance": APPEARANCE, **parts}
    model = {"foreground": foreground, "background": BACKGROUNDS[background]}
    learned = {"color": {"type": "color", "norm": "l2"}, "mask": {"type": "mask", "weight": 0.1}, **losses}
    return experiment.ExperimentConfig.model_validate({"model": model, "losses": learned})


def drawn(count: int) -> list[tuple[Names, str]]:
    """Combinations that fit: every field, opacity, sampler and background at least once, then at random."""
    dice = random.Random(0)
    possible = [names for names in ALL if fits(names)]
    dice.shuffle(possible)
    wanted = {name for names in possible for name in enumerate(names)}
    chosen: list[Names] = []
    for names in possible:
        if wanted & set(enumerate(names)):
            chosen.append(names)
            wanted -= set(enumerate(names))
    chosen += [names for names in possible if names not in chosen][: count - len(chosen)]
    return [(names, dice.choice(list(BACKGROUNDS))) for names in chosen]


@cache
def scene() -> Scene:
    return ProceduralData(views=6, test_views=1, size=24).load()


@pytest.mark.parametrize(("names", "background"), drawn(24), ids=lambda x: x if isinstance(x, str) else ", ".join(x))
def test_what_fits_learns(names: Names, background: str) -> None:
    torch.manual_seed(0)
    settings = config(names, background)
    model = Model(settings.model, data_color=scene().background)
    model.initialize()
    objective = Objective(model, settings.losses)
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    with PixelSampler(scene(), rays=64, seed=0, device=torch.device("cpu")) as batches:
        same = next(batches)
        before = float(objective(same).loss.detach())
        for step in range(50):
            objective.update(step / 50, step)
            optimizer.zero_grad()
            objective(next(batches)).loss.backward()
            optimizer.step()
    after = float(objective(same).loss.detach())
    assert after < 0.9 * before, (before, after)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_what_does_not_fit_is_refused_with_the_reason(background: str) -> None:
    refused = [names for names in ALL if not fits(names)]
    assert len(refused) > 100
    for names in refused:
        field, opacity, sampler = (parts[name]["type"] for parts, name in zip(PARTS, names, strict=True))
        with pytest.raises(ValidationError) as caught:
            config(names, background)
        said = str(caught.value)
        assert f"field.type: {field}" in said
        assert f"opacity.type: {opacity}" in said or f"sampler.type: {sampler}" in said
    for names in ALL:
        if fits(names):
            config(names, background)


@pytest.mark.parametrize("loss", ["eikonal", "smoothness", "curvature"])
def test_a_loss_on_the_gradient_needs_one(loss: str) -> None:
    with pytest.raises(ValidationError, match=r"losses\.extra needs .*gradient"):
        config(("radiance", "density", "stratified"), "color", extra={"type": loss})


def test_a_medium_stays_in_its_place() -> None:
    inside = {"bounds": "sphere", "opacity": OPACITIES["density"], "sampler": SAMPLERS["stratified"]}
    swapped = {**inside, "field": {"type": "outside"}}
    with pytest.raises(ValidationError, match="field.type: outside works beyond the unit sphere only"):
        ModelConfig.model_validate({"foreground": swapped})
    with pytest.raises(ValidationError, match="sampler.type: inverse_radius works beyond the unit sphere only"):
        sampled = {**inside, "field": FIELDS["radiance"], "sampler": {"type": "inverse_radius"}}
        ModelConfig.model_validate({"foreground": sampled})


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("model.foreground.opacity={type: density}", ["opacity.type: density would make empty space opaque"]),
        ("model.foreground.field={type: radiance}", ["opacity.type: logistic reads its values as distances"]),
        ("model.foreground.bounds=outside", ["inside the unit sphere only", "bounds: outside"]),
    ],
)
def test_the_reason_comes_before_any_data_is_read(override: str, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        experiment.read_config(ROOT / "configs/neus_hash.yaml", ["data.path=/no/such/folder", override])
    for word in ["command line: model.foreground", *words]:
        assert word in str(caught.value)
