"""What a run is warned of: each wrong way once, with the key to change, and nothing where all is well."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from dataio.batches import RayBatch
from health import Health
from models.losses import ColorLoss, EikonalLoss, Objective, Report
from models.model import Model
from tests.analytic import Sphere, rays_at_sphere, sphere_model


def looked(model: Model, progress: float = 0.6, **changes: Any) -> list[str]:
    """The warnings of one look at a step on rays that cross the sphere; `changes` are put into the report."""
    rays = rays_at_sphere(200, spread=0.5)
    batch = RayBatch(rays, torch.full((200, 3), 0.5), mask=torch.ones(200))
    objective = Objective(model, {"color": ColorLoss(), "eikonal": EikonalLoss()})
    report: Report = replace(objective(batch), **changes)
    health = Health(distances=True)
    health._first_width = 0.02
    found = health.look(model, report, batch, progress)
    assert health.look(model, report, batch, progress) == []  # never twice
    return found


def test_nothing_to_say_of_a_sphere() -> None:
    assert looked(sphere_model()) == []
    assert Health(distances=True).due(200) and not Health(distances=True).due(150)


class Turned(Sphere):
    """Solid outside, hollow inside."""

    def value(self, x: torch.Tensor) -> torch.Tensor:
        return -super().value(x)


def test_inside_out() -> None:
    model = sphere_model()
    model.foreground.field = Turned()
    found = looked(model, 0.0)
    assert len(found) == 1 and "inside_out" in found[0] and "100% of the rays" in found[0]


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"terms": {"color": torch.tensor(float("nan"))}}, "losses.color: not finite"),
        ({"opacity": torch.full((200,), 0.01)}, "losses.mask.weight"),
        ({"opacity": torch.full((200,), 0.2)}, "data.radius"),
        ({"gradient": torch.full((50, 3), 2.0)}, "losses.eikonal.weight"),
    ],
)
def test_what_a_step_found(changes: dict[str, Any], key: str) -> None:
    found = looked(sphere_model(), **changes)
    assert len(found) == 1 and key in found[0]
    early = looked(sphere_model(), 0.01, **changes)
    assert len(early) == ("not finite" in key)  # shapes are given time to show


def test_a_background_that_shows_the_object() -> None:
    model = sphere_model()
    model.background = model.foreground
    found = looked(model, opacity=torch.zeros(200))
    assert len(found) == 1 and "the background shows the object" in found[0] and "within the masks" in found[0]


@pytest.mark.parametrize(("s", "word"), [(5e5, "too sharp"), (50.0, "does not sharpen"), (2.0, "a fog")])
def test_widths(s: float, word: str) -> None:
    found = [line for line in looked(sphere_model(s=s)) if "width" in line]
    assert len(found) == 1 and word in found[0] and "model.foreground.opacity" in found[0]
