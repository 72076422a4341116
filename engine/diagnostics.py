"""Diagnostics of a run in training: one plain line, at most once per kind, when it goes a known wrong way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch

from dataio.batches import RayBatch
from models.model import Model
from models.objective import Report

EVERY = 100  # steps between two looks
SETTLED = 0.1  # share of the run from which on the shape should show
HALFWAY = 0.5
FEWEST_HITS = 0.005  # share of rays
FAINT = 0.05  # opacity
OFF_UNIT = 0.5  # mean distance of a gradient's length from one
FITTED = 0.3  # share of the run from which on held-out views should be seen nearly as well as others
APART = 3.0  # dB
CENTRAL = 0.3  # scene units: rays that pass the center as near as this
STUCK = 0.01  # relative change of the width
SHARPEST, BLURRED = 1e-5, 0.3  # widths of the opacity's rise, scene units


class Diagnostics:
    """Judges what a step found; says each thing once. Draws no random numbers and changes nothing."""

    def __init__(self, *, distances: bool, initial_width: float | None = None) -> None:
        """distances: whether the foreground's value is a distance, whose gradient has length one.

        initial_width: of the opacity's rise in a new run, scene units, with which later widths are compared.
        """
        self.distances = distances
        self._said: set[str] = set()
        self._first_width = initial_width

    def due(self, step: int) -> bool:
        """Whether it is time."""
        return step % EVERY == 0

    @torch.no_grad()
    def warnings(self, model: Model, report: Report, batch: RayBatch, progress: float) -> list[str]:
        """What is wrong and was not said before, each with the key to change. progress: in [0, 1]."""
        found = [*self._numbers(report), *self._inside_out(model, batch)]
        if progress >= SETTLED:
            found += [*self._hits(model, report, batch), *self._gradients(report)]
        found += self._width(model, progress)
        return self._new(found)

    def apart(self, trained: float, held_out: float, advice: Sequence[str], progress: float) -> list[str]:
        """As `warnings`, of the PSNR of training views and that of held-out ones, dB. advice: overrides that help."""
        if progress < FITTED or not trained - held_out > APART:
            return []
        tried = f"try {' '.join(advice)}, and" if advice else "more photographs from other sides help;"
        line = f"held-out views have {trained - held_out:.1f} dB less than training views - {tried} check the poses"
        return self._new([("apart", f"{line} (prepare.py --check)")])

    def _new(self, found: Iterable[tuple[str, str]]) -> list[str]:
        """The lines of a kind that was not said before."""
        new = [(kind, line) for kind, line in found if kind not in self._said]
        self._said |= {kind for kind, _ in new}
        return [line for _, line in new]

    def _numbers(self, report: Report) -> Iterator[tuple[str, str]]:
        broken = [name for name, term in report.terms.items() if not bool(torch.isfinite(term))]
        if broken:
            names = ", ".join(f"losses.{name}" for name in broken)
            yield "finite", f"{names}: not finite - try a smaller optimizer.lr, or optimizer.gradient_clip=1"

    def _inside_out(self, model: Model, batch: RayBatch) -> Iterator[tuple[str, str]]:
        rays = model.foreground.bounds.clip(batch.rays)
        entering = rays[(rays.near < rays.far).nonzero()[:, 0]]
        if not len(entering):
            return
        inside = float((model.surface_value(entering.at(entering.near)) < 0).float().mean())
        if inside > 0.5:
            yield (
                "inside out",
                f"{inside:.0%} of the rays begin inside the surface: it is inside out, or fills the whole sphere"
                " - set model.foreground.field.inside_out to the other value, or enlarge data.radius",
            )

    def _hits(self, model: Model, report: Report, batch: RayBatch) -> Iterator[tuple[str, str]]:
        rays, opacity = batch.rays, report.opacity
        middle = -(rays.origins * rays.directions).sum(-1, keepdim=True)
        central = (rays.origins + middle * rays.directions).norm(dim=-1) < CENTRAL
        aimed = central if batch.mask is None else batch.mask > 0.5
        if bool(aimed.any()) and float(opacity[aimed].mean()) < FAINT:
            where = "near the center" if batch.mask is None else "within the masks"
            if model.background is not None:
                yield (
                    "background",
                    f"the background shows the object: the foreground's opacity {where} is"
                    f" {float(opacity[aimed].mean()):.2f} - enlarge model.foreground.field.radius, lower the learning"
                    " rate of background (optimizer.parts), or give masks",
                )
            else:
                yield (
                    "vanished",
                    (
                        f"the object has vanished: opacity {where} is {float(opacity[aimed].mean()):.2f}"
                        " - raise losses.mask.weight or model.foreground.field.radius, or lower optimizer.lr"
                    ),
                )
        elif float((opacity > 0.5).float().mean()) < FEWEST_HITS:
            yield "hits", "almost no ray hits anything: is the object in the unit sphere? See data.center, data.radius"

    def _gradients(self, report: Report) -> Iterator[tuple[str, str]]:
        if not self.distances or not report.gradients:
            return
        off = float(report.off_unit())
        if off > OFF_UNIT:
            yield (
                "eikonal",
                (
                    f"the sdf is no distance: its gradient's length is off one by {off:.2f} in the mean"
                    " - raise losses.eikonal.weight, or lower optimizer.lr"
                ),
            )

    def _width(self, model: Model, progress: float) -> Iterator[tuple[str, str]]:
        width = model.foreground.width()
        if width is None:
            return
        first = self._first_width = self._first_width or width
        learned = " - see model.foreground.opacity and optimizer.parts for foreground.opacity"
        if width < SHARPEST:
            yield "sharp", f"the surface's width fell to {width:.1e} scene units, too sharp to learn from{learned}"
        elif width > BLURRED and width > first:
            yield "blurred", f"the surface's width grew from {first:.2g} to {width:.2g} scene units: a fog{learned}"
        elif progress >= HALFWAY and abs(width / first - 1) < STUCK:
            yield "stuck", f"the surface's width stays at {width:.2g} scene units: it does not sharpen{learned}"
