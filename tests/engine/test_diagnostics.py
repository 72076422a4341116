"""Runs that go wrong on purpose, each in one way: the warning for it comes, once, and no other."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dataio.batches import RayBatch
from engine.diagnostics import Diagnostics
from models.losses.color import ColorLoss
from models.model import Model
from models.objective import Objective, Report
from tests.support.analytic import Sphere, rays_at_sphere, sphere_model


def batch(*, mask: float | None = None) -> RayBatch:
    count = 300
    seen = None if mask is None else torch.full((count,), mask)
    return RayBatch(rays_at_sphere(count, spread=0.5), torch.full((count, 3), 0.5), seen)


def looked(
    model: Model, *, progress: float, diagnostics: Diagnostics | None = None, mask: float | None = None
) -> list[str]:
    rays = batch(mask=mask)
    report: Report = Objective(model, {"color": ColorLoss()})(rays)
    return (diagnostics or Diagnostics(distances=True)).warnings(model, report, rays, progress)


class Inverted(Sphere):
    """Seen from inside."""

    def value(self, x: Tensor) -> Tensor:
        return -super().value(x)


class Away(Sphere):
    """Nothing within the unit sphere."""

    def value(self, x: Tensor) -> Tensor:
        return super().value(x) * 0 + 1.0


class Steep(Sphere):
    """No distance: three times too steep."""

    def gradient(self, x: Tensor) -> Tensor:
        return 3 * super().gradient(x)


def test_a_sound_run_gives_no_warning() -> None:
    diagnostics = Diagnostics(distances=True)
    assert looked(sphere_model(), progress=0.0, diagnostics=diagnostics) == []
    model = sphere_model()
    with torch.no_grad():
        model.foreground.opacity.get_parameter("log_s").add_(0.05)
    assert looked(model, progress=0.8, diagnostics=diagnostics) == []


@pytest.mark.parametrize(
    ("field", "words", "key"),
    [
        (Inverted(), "inside the surface", "foreground.field.inside_out"),
        (Away(), "the object has vanished", "losses.mask.weight"),
        (Steep(), "no distance", "losses.eikonal.weight"),
    ],
    ids=["inside out", "vanished", "steep"],
)
def test_each_mistake_is_told_once_with_its_key(field: Sphere, words: str, key: str) -> None:
    model, diagnostics = sphere_model(sampler={"type": "stratified", "samples": 64}), Diagnostics(distances=True)
    model.foreground.field = field
    found = looked(model, progress=0.3, diagnostics=diagnostics)
    assert [line for line in found if words in line and key in line], found
    assert looked(model, progress=0.4, diagnostics=diagnostics) == []


def test_masks_say_where_the_object_should_be() -> None:
    model = sphere_model(sampler={"type": "stratified", "samples": 64})
    model.foreground.field = Away()
    assert any("within the masks" in line for line in looked(model, progress=0.3, mask=1.0))
    assert any("almost no ray hits" in line for line in looked(model, progress=0.3, mask=0.0))


def test_a_background_that_shows_the_object() -> None:
    model = sphere_model(sampler={"type": "stratified", "samples": 64})
    model.foreground.field, model.background = Away(), None
    report: Report = Objective(model, {"color": ColorLoss()})(batch())
    model.background = model.foreground  # that there is one is all that counts
    said = Diagnostics(distances=True).warnings(model, report, batch(), 0.3)
    assert any("background" in line and "foreground.field.radius" in line for line in said)


def test_a_width_that_does_not_change_or_goes_astray() -> None:
    for s, progress, words in ((500.0, 0.7, "does not sharpen"), (1e-1, 0.2, ""), (9e5, 0.2, "too sharp")):
        said = [line for line in looked(sphere_model(s=s), progress=progress) if "width" in line]
        assert bool(said) == bool(words) and all(words in line for line in said), (s, said)


def test_a_loss_that_is_not_finite_is_named() -> None:
    model, rays = sphere_model(), batch()
    report: Report = Objective(model, {"color": ColorLoss()})(rays)
    broken = replace(report, terms={"color": torch.tensor(torch.nan)})
    assert any("losses.color" in line for line in Diagnostics(distances=True).warnings(model, broken, rays, 0.0))


def test_a_width_is_compared_with_that_of_a_new_run() -> None:
    """Of a run that is resumed, or too short for two looks, the width at hand is not the first one."""
    model = sphere_model(sampler={"type": "stratified", "samples": 64})
    now = model.foreground.width()
    assert now is not None
    told = looked(model, progress=0.9, diagnostics=Diagnostics(distances=True, initial_width=2 * now))
    assert not any("does not sharpen" in line for line in told)
    told = looked(model, progress=0.9, diagnostics=Diagnostics(distances=True, initial_width=now))
    assert any("does not sharpen" in line for line in told)


def test_held_out_views_that_fall_behind_are_said_once_and_late() -> None:
    diagnostics = Diagnostics(distances=True)
    assert diagnostics.apart(29.0, 19.6, ["a.b=c"], 0.2) == []
    assert diagnostics.apart(29.0, 26.1, ["a.b=c"], 0.9) == []
    (line,) = diagnostics.apart(29.0, 19.6, ["a.b=c"], 0.4)
    assert "9.4 dB less" in line and "try a.b=c, and check the poses" in line
    assert diagnostics.apart(29.0, 19.0, [], 0.6) == []
    (line,) = Diagnostics(distances=True).apart(29.0, 19.0, [], 0.6)
    assert "more photographs" in line and "try" not in line
