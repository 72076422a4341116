"""The data doctor: everything about a data set that would spoil a run, found before the run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dataio.checks.camera_checks import camera_findings, coverage, facts
from dataio.checks.epipolar import Agreement, agreement, epipolar_findings
from dataio.checks.findings import SEVERITIES, Finding, Patient
from dataio.checks.photo_checks import brightness, photo_findings, sharpness
from dataio.files import Float64, shown
from dataio.pictures.pixels import have_masks
from dataio.recognition import AutoData
from dataio.scene import DataConfig, assemble, decode_options
from dataio.views import checked

EXAMINED_SIZE = 1200  # pixels of the longer side of the pictures that are looked at


@dataclass(frozen=True)
class Report:
    """What the doctor found."""

    patient: Patient
    findings: tuple[Finding, ...]  # the worst first
    facts: tuple[tuple[str, str], ...]
    agreement: Agreement
    sharpness: Float64  # [C]
    brightness: Float64  # [C]
    coverage: Float64  # views that see each of the points of a sphere

    def lines(self) -> Iterator[str]:
        """The report as text: facts, then one line per finding."""
        yield f"{shown(self.patient.views.source)}:"
        yield from (shown(f"  {name}: {value}") for name, value in self.facts)
        yield from (finding.line() for finding in self.findings)
        counts = [f"{sum(f.severity == s for f in self.findings)} {s}s" for s in SEVERITIES]
        yield ", ".join(counts)


def examine(config: DataConfig) -> Report:
    """Look at a data set. Raises InputError when it cannot be read at all."""
    if isinstance(config, AutoData):
        config = config.resolve()
    patient = admit(config)
    agreed, sharp, bright = agreement(patient), sharpness(patient), brightness(patient)
    findings = [*epipolar_findings(patient, agreed), *camera_findings(patient), *photo_findings(patient, sharp, bright)]
    known = facts(patient)
    if len(agreed.pairs):
        known.append(
            ("epipolar distance of matches", f"{agreed.error:.2f} pixels in {len(agreed.pairs)} pairs of views")
        )
    return Report(
        patient=patient,
        findings=tuple(sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))),
        facts=tuple(known),
        agreement=agreed,
        sharpness=sharp,
        brightness=bright,
        coverage=coverage(patient),
    )


def admit(config: DataConfig) -> Patient:
    """The scene with small pictures, colors as they were photographed, masks beside them."""
    views = checked(config.parse())
    shrink = max(config.downscale, math.ceil(int(np.max(views.size)) / EXAMINED_SIZE))
    masks = "keep" if have_masks(decode_options(config), views) else "off"
    small = config.model_copy(update={"downscale": shrink, "masks": masks})
    return Patient(config, views, assemble(small, views), shrink)
