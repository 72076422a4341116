"""Renderings by whatever program against true pictures of the same names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataio.pictures.images import UInt8, composited, is_picture, read_image, read_mask, stored_depth
from engine.evaluation.pictures import summary
from utils.errors import InputError
from utils.evaluation.depth_metrics import depth_numbers
from utils.evaluation.lpips import Lpips
from utils.evaluation.view_scores import header, in_unit, line, score_view

MOST_NAMED = 3


@dataclass(frozen=True)
class Folders:
    """Where pictures of the same names lie; background: behind what has an alpha, in [0, 1]."""

    renderings: Path
    truth: Path
    masks: Path | None = None
    background: tuple[float, float, float] = (1.0, 1.0, 1.0)


def score_renderings(folders: Folders, lpips: Lpips | None = None) -> dict[str, Any]:
    """Numbers of each true picture's rendering: their means, and `per_view`. Raises InputError.

    Pictures belong together whose paths within the two folders differ in the suffix alone. Masks are those of the
    folder of masks, or else the alpha of the true pictures. An .npy file of the same name in both folders is a depth.
    """
    ours, truths = pictures_by_name(folders.renderings), pictures_by_name(folders.truth)
    pairs = _paired(folders, ours, truths)
    masks = None if folders.masks is None else pictures_by_name(folders.masks)
    rows = []
    print(header("true"))
    for name in pairs:
        mask = None if masks is None else masks.get(name)
        if masks is not None and mask is None:
            raise InputError(f"--masks: {folders.masks} - no mask {name} - expected one for each true picture")
        rows.append({"name": name, **_score(ours[name], truths[name], mask, folders, lpips), **_depth(folders, name)})
        print(line(name, rows[-1]), flush=True)
    return summary(rows, lpips) | {"renderings": len(ours), "per_view": rows}


def pictures_by_name(folder: Path) -> dict[str, Path]:
    """The pictures in a folder and those within it, by their path in it without suffix. Raises InputError.

    Those in folders whose names begin with a dot are left alone.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if not path.is_file() or not is_picture(path) or any(part.startswith(".") for part in inner.parts):
            continue
        name = inner.with_suffix("").as_posix()
        if name in found:
            raise InputError(f"{folder}: {found[name].name} and {path.name} - expected one picture of that name")
        found[name] = path
    if not found:
        raise InputError(f"{folder}: no pictures in it - expected those to be compared")
    return found


def _paired(folders: Folders, ours: Mapping[str, Path], truths: Mapping[str, Path]) -> list[str]:
    """The names of the true pictures; raises InputError where one has no rendering."""
    lacking = [name for name in truths if name not in ours]
    if lacking:
        named = ", ".join(lacking[:MOST_NAMED]) + (", ..." if len(lacking) > MOST_NAMED else "")
        there = ", ".join(list(ours)[:MOST_NAMED])
        raise InputError(
            f"{folders.renderings}: no rendering of {len(lacking)} of {len(truths)} true pictures: {named} - it has"
            f" {there} - expected the names of {folders.truth}"
        )
    return list(truths)


def _score(
    rendering: Path, truth: Path, mask: Path | None, folders: Folders, lpips: Lpips | None
) -> dict[str, float | None]:
    """The numbers of one rendering. Raises InputError for pictures of different sizes."""
    color, _ = _over(rendering, folders.background)
    true, alpha = _over(truth, folders.background)
    covered = read_mask(mask) if mask is not None else alpha
    for other, path in ((color, rendering), (covered, mask or truth)):
        if other is not None and other.shape[:2] != true.shape[:2]:
            sizes = [f"{shape[1]} x {shape[0]}" for shape in (other.shape, true.shape)]
            raise InputError(f"{path}: got {sizes[0]} pixels - expected {sizes[1]}, as {truth} has")
    inside = None if covered is None else torch.from_numpy(covered) > 127
    return score_view(in_unit(color), in_unit(true), inside, lpips=lpips)


def _over(path: Path, background: tuple[float, float, float]) -> tuple[UInt8, UInt8 | None]:
    """Color [H, W, 3] over the background, and the alpha [H, W], None where there is none."""
    color, alpha = read_image(path)
    return (color, None) if alpha is None else (composited(color, alpha, background), alpha)


def _depth(folders: Folders, name: str) -> dict[str, float | None]:
    """The numbers of a depth, in the unit of the files; none where one of the folders has no such file."""
    paths = [(folder / name).with_name(f"{Path(name).name}.npy") for folder in (folders.renderings, folders.truth)]
    if not all(path.is_file() for path in paths):
        return {}
    ours, truth = (np.asarray(stored_depth(path), np.float64) for path in paths)
    if ours.shape != truth.shape:
        raise InputError(f"{paths[0]}: got {ours.shape} - expected {truth.shape}, as {paths[1]} has")
    known = truth > 0
    return {f"depth_{key}": value for key, value in depth_numbers(ours[known], truth[known]).items()}
