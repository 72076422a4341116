"""Pictures of many runs: curves over one another, the same views side by side, all of it on one page."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dataio.pictures.images import pictures_in, read_image
from engine.comparison.runs import Group, RunRecord
from engine.comparison.tables import Table
from utils.evaluation.results import RENDERINGS, TRUTH, rendering_name
from utils.pages import html
from utils.pictures.charts import Curve, chart
from utils.pictures.images import Picture
from utils.pictures.sheets import Panel, sheet

CURVES = {"val/psnr": "PSNR of held-out views on the way, dB", "train/psnr": "PSNR of training pixels, dB",
          "train/loss": "loss"}  # fmt: skip
ROUGH = ("train/psnr", "train/loss")  # are of one step's rays: shown as means
POINTS = 100  # of a curve that is smoothed
MOST_ACROSS, MOST_HIGH = 2400, 400  # pixels, of a row of views and of a view

STYLE = "body{max-width:1600px}td:first-child,th:first-child{white-space:nowrap}"


def curves_of(groups: Sequence[Group]) -> dict[str, Picture]:
    """A chart for each logged number that a run has: all runs, called by their groups; by name of the number."""
    found = {}
    for name, title in CURVES.items():
        curves = [_curve(run, name, group) for group in groups for run in group.runs]
        curves = [curve for curve in curves if len(curve.x)]
        if curves:
            found[name] = chart(curves, title, width=960, height=420)
    return found


def _curve(run: RunRecord, name: str, group: Group) -> Curve:
    steps, values = run.curve(name)
    if name in ROUGH and len(steps) > POINTS:
        parts = np.array_split(np.arange(len(steps)), POINTS)
        steps, values = (np.array([each[part].mean() for part in parts]) for each in (steps, values))
    seed = f" seed {run.config.get('seed', 0)}" if len(group.runs) > 1 else ""
    return Curve(f"{run.name}{seed}", steps, values)


def views_of(groups: Sequence[Group], count: int, split: str = "test") -> Picture | None:
    """Held-out views, `count` of them evenly chosen: truth, then the first run of each group that kept its renderings.

    A row per view that all of these have, [H, W, 3]; captions have the PSNR. None where there is none in one size.
    """
    groups = [group for group in groups if _pictures(group.runs[0].folder / "evaluation" / split / RENDERINGS)]
    if not groups:
        return None
    folders = [group.runs[0].folder / "evaluation" / split for group in groups]
    kept = [{path.name: path for path in _pictures(folder / RENDERINGS)} for folder in folders]
    truth = {path.name: path for path in _pictures(folders[0] / TRUTH)}
    common = sorted(set(truth).intersection(*kept))
    chosen = [common[i] for i in sorted({round(i) for i in np.linspace(0, len(common) - 1, min(count, len(common)))})]
    scores = [_scores(folder.with_suffix(".csv")) for folder in folders]
    panels = []
    for name in chosen:
        panels.append(Panel(_small(truth[name], len(groups) + 1), Path(name).stem))
        for group, paths, score in zip(groups, kept, scores, strict=True):
            said = f"{group.runs[0].name}{score.get(Path(name).stem, '')}"
            panels.append(Panel(_small(paths[name], len(groups) + 1), said))
    if not panels or len({panel.picture.shape for panel in panels}) > 1:
        return None
    return sheet(panels, len(groups) + 1)


def page_of(tables: Mapping[str, Table], pictures: Mapping[str, Picture]) -> str:
    """One HTML file that needs no other: tables and pictures [H, W, 3] below their headings."""
    parts = ["<h1>Runs compared</h1>"]
    for name, table in tables.items():
        parts.append(f"<h2>{html.text(name)}</h2>{html.table(table.rows, table.header)}")
    for name, picture in pictures.items():
        parts.append(f"<h2>{html.text(name)}</h2>{html.picture(picture)}")
    return html.page("Runs compared", parts, style=STYLE)


def _pictures(folder: Path) -> list[Path]:
    return pictures_in(folder) if folder.is_dir() else []


def _small(path: Path, columns: int) -> Picture:
    """A picture [H, W, 3] made so small that a row of so many fits; small ones are enlarged by whole numbers."""
    image = Image.fromarray(read_image(path)[0])
    most = min(MOST_ACROSS / columns / image.width, MOST_HIGH / image.height)
    factor = max(1, int(most)) if most >= 1 else most
    size = (max(1, round(image.width * factor)), max(1, round(image.height * factor)))
    return np.array(image.resize(size, Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.BOX))


def _scores(path: Path) -> dict[str, str]:
    """What the caption says of each view, by its file's stem: its PSNR."""
    if not path.is_file():
        return {}
    rows = list(csv.DictReader(path.read_text("utf-8", errors="replace").splitlines()))
    known = [row for row in rows if row.get("name") and row.get("psnr")]
    return {Path(rendering_name(row["name"])).stem: f" {float(row['psnr']):.2f} dB" for row in known}
