"""The doctor's report as one HTML page that needs nothing else: no scripts, no files, nothing from the network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch

from dataio.checks.doctor import Report
from dataio.checks.epipolar import Pair
from dataio.files import Float64, shown
from dataio.pictures.images import UInt8
from dataio.views import evenly_chosen
from utils.files import write_bytes
from utils.pages import html
from utils.pages.camera_map import camera_map, plane_across
from utils.pages.html import picture, table, text

THUMBNAIL_WIDTH, MOST_THUMBNAILS = 240, 36
PAIR_WIDTH, MOST_PAIRS = 480, 3
COLORS = ((230, 25, 75), (60, 180, 75), (255, 225, 25), (0, 130, 200), (245, 130, 48), (145, 30, 180), (70, 240, 240),
          (240, 50, 230))  # fmt: skip
AXES = ((220, 40, 40), (40, 170, 60), (50, 90, 230))
LEGEND = (
    "The circle is the unit sphere, where a surface is looked for. Lines are the world's axes: x red, y green, z blue."
)


def write_page(report: Report, path: Path) -> None:
    """Write the page, whole or not at all. Raises StorageError where the disk refuses."""
    write_bytes(path, page(report).encode("utf-8"))


def page(report: Report) -> str:
    """The whole page."""
    title = f"Data report: {shown(report.patient.views.source)}"
    parts = [
        f"<h1>{text(title)}</h1>",
        *_findings(report),
        "<h2>What it is</h2>",
        table(report.facts),
        "<h2>Cameras from above</h2>",
        _map(report),
        "<h2>Views</h2>",
        f"<p>{text(LEGEND)}</p>",
        f'<div class="grid">{"".join(_thumbnails(report))}</div>',
        "<h2>Matches and epipolar lines</h2>",
        "<p>A point on the left should lie on the line of its color on the right.</p>",
        *_pairs(report),
    ]
    return html.page(title, parts)


def _findings(report: Report) -> Iterator[str]:
    if not report.findings:
        yield "<p>Nothing was found that would spoil a run.</p>"
    for finding in report.findings:
        words = f"<b>{finding.severity}: {text(finding.check)}</b>: {text(finding.text)}"
        yield f'<div class="f {finding.severity}">{words}<div class="fix">{text(finding.fix)}</div></div>'


def _map(report: Report) -> str:
    """The cameras from above, those of findings and of the test in colors of their own."""
    patient, names = report.patient, report.patient.scene.names
    bad = {view for finding in report.findings if finding.severity != "note" for view in finding.views}
    test = set(patient.scene.splits["test"].tolist())
    colors = ["#c22" if view in bad else "#e90" if view in test else "#246" for view in range(len(names))]
    drawn = camera_map(patient.centers, patient.forward, patient.scene.up, colors=colors, names=names)
    caption = "<p>Blue: training views; orange: test views; red: views of a finding. The disk is the unit sphere.</p>"
    return f"{drawn}{caption}"


def _thumbnails(report: Report) -> Iterator[str]:
    """Views of findings first, then others spread over the set."""
    scene = report.patient.scene
    bad = list(dict.fromkeys(view for finding in report.findings for view in finding.views))
    spread = evenly_chosen(len(scene.names), MOST_THUMBNAILS).tolist()
    chosen = list(dict.fromkeys([*bad[: MOST_THUMBNAILS // 2], *spread]))[:MOST_THUMBNAILS]
    for view in chosen:
        numbers = f"sharpness {report.sharpness[view]:.1f}, brightness {report.brightness[view]:.0f}"
        caption = f"<figcaption>{text(scene.names[view])}<br>{numbers}</figcaption>"
        mark = ' class="bad"' if view in bad else ""
        yield f"<figure{mark}>{picture(_with_sphere(report, view))}{caption}</figure>"


def _with_sphere(report: Report, view: int) -> UInt8:
    """A small copy of the picture with the outline of the unit sphere and the world's axes."""
    scene = report.patient.scene
    small, scale = _small(scene.images[view], THUMBNAIL_WIDTH)
    circle = outline(report.patient.centers[view])
    for line, color, width in ((circle, (0, 0, 0), 3), (circle, (255, 255, 255), 1), *_axes()):
        pixels, depth = scene.cameras.project(torch.from_numpy(line).float(), view)
        points = (pixels.double().numpy() * scale).clip(-1e4, 1e4).round().astype(np.int32)
        visible = depth.numpy() > 0.01
        for i in np.flatnonzero(visible[1:] & visible[:-1]):
            cv2.line(small, points[i].tolist(), points[i + 1].tolist(), color, width, cv2.LINE_AA)
    return small


def outline(center: Float64) -> Float64:
    """Where rays from `center` [3] touch the unit sphere: [65, 3], empty from within."""
    distance = float(np.linalg.norm(center))
    if distance <= 1:
        return np.zeros((0, 3))
    towards = center / distance
    right, front = plane_across(towards)
    turn = np.linspace(0, 2 * np.pi, 65)[:, None]
    ring = np.cos(turn) * right + np.sin(turn) * front
    return np.asarray(towards / distance + np.sqrt(1 - 1 / distance**2) * ring)


def _axes() -> Iterator[tuple[Float64, tuple[int, int, int], int]]:
    along = np.linspace(0, 0.5, 9)[:, None]
    yield from ((along * np.eye(3)[axis], AXES[axis], 1) for axis in range(3))


def _small(image: UInt8, width: int) -> tuple[UInt8, float]:
    scale = min(1.0, width / image.shape[1])
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return np.array(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8), scale


def _pairs(report: Report) -> Iterator[str]:
    """The worst pair, one in the middle, the best."""
    order = np.argsort(-report.agreement.errors, kind="stable")
    if len(order) == 0:
        yield "<p>No pair of views could be matched.</p>"
    for index in order[evenly_chosen(len(order), MOST_PAIRS)].tolist():
        pair, error = report.agreement.pairs[index], report.agreement.errors[index]
        names = report.patient.scene.names
        words = f"{names[pair.first]} and {names[pair.second]}: {len(pair.pixels)} matches, median {error:.2f} pixels"
        caption = f"<figcaption>{text(words)}</figcaption>"
        yield f'<figure class="wide">{picture(_with_lines(report, pair))}{caption}</figure>'


def _with_lines(report: Report, pair: Pair) -> UInt8:
    scene = report.patient.scene
    left, scale_left = _small(scene.images[pair.first], PAIR_WIDTH)
    right, scale_right = _small(scene.images[pair.second], PAIR_WIDTH)
    distance = float(np.linalg.norm(report.patient.centers[pair.first])) + 1
    along = torch.from_numpy(np.geomspace(0.02, 4 * distance, 200)).float()[None]
    shown_matches = pair.pixels[np.linspace(0, len(pair.pixels) - 1, len(COLORS)).astype(int)]
    for (a, b), color in zip(shown_matches, COLORS, strict=True):
        ray = scene.cameras.rays(torch.tensor([pair.first]), torch.from_numpy(a[None]).float())
        pixels, depth = scene.cameras.project(ray.at(along)[0], pair.second)
        points = (pixels[depth > 0.01].double().numpy() * scale_right).clip(-1e4, 1e4).round().astype(np.int32)
        cv2.polylines(right, [points], False, color, 1, cv2.LINE_AA)
        cv2.circle(left, (a * scale_left).round().astype(int).tolist(), 4, color, 2, cv2.LINE_AA)
        cv2.circle(right, (b * scale_right).round().astype(int).tolist(), 4, color, 2, cv2.LINE_AA)
    height = max(len(left), len(right))
    padded = [np.pad(p, ((0, height - len(p)), (0, 0), (0, 0)), constant_values=255) for p in (left, right)]
    return np.asarray(np.concatenate(padded, axis=1), dtype=np.uint8)
