"""The numbers of one view, and their means over views."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.evaluation.flip import flip
from utils.evaluation.image_metrics import WINDOW, affine_fitted, psnr, ssim
from utils.evaluation.lpips import Lpips
from utils.files import write_bytes

Numbers = dict[str, float | None]
SHOWN = ("psnr", "ssim", "flip")


def score_view(
    color: Tensor, truth: Tensor, mask: Tensor | None = None, *, lpips: Lpips | None = None, affine: bool = False
) -> Numbers:
    """PSNR, SSIM, FLIP and LPIPS of a picture, and the same but LPIPS within the mask.

    color, truth: [H, W, 3] in [0, 1]. mask: [H, W] bool. affine: also `psnr_affine`, of the pixels in the mask (or all)
    after the affine change of color that fits best. None stands for what is not defined: SSIM of a picture smaller than
    its window, LPIPS without weights or of less than 64 pixels, anything within an empty mask.
    """
    wide = min(truth.shape[:2]) >= WINDOW
    visible = flip(color, truth)
    known = mask is not None and bool(mask.any())
    numbers: Numbers = {
        "psnr": psnr(color, truth).item(),
        "ssim": ssim(color, truth).item() if wide else None,
        "flip": visible.mean().item(),
        "lpips": lpips(color, truth) if lpips is not None else None,
        "psnr_masked": psnr(color, truth, mask).item() if known else None,
        "ssim_masked": _finite(ssim(color, truth, mask).item()) if known and wide else None,
        "flip_masked": visible[mask].mean().item() if known else None,
    }
    if affine:
        fits = mask is None or known
        numbers["psnr_affine"] = psnr(affine_fitted(color, truth, mask), truth, mask).item() if fits else None
    return numbers


def means(rows: Sequence[Numbers]) -> Numbers:
    """The mean of each number over the views that have it, None where none has."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: mean(row.get(name) for row in rows) for name in names}


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that were measured, None without any."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def write_views(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write one line per view as CSV, empty where a number was not measured; whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def shown(value: Any) -> str:
    """A number for the table."""
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def header(what: str) -> str:
    """The first line of a table of views."""
    return f"{what + ' view':32s}" + "".join(f"{name:>9s}" for name in SHOWN)


def line(name: str, numbers: Mapping[str, Any]) -> str:
    """A view in the table."""
    return f"{name[-32:]:32s}" + "".join(f"{shown(numbers.get(key)):>9s}" for key in SHOWN)


def _finite(value: float) -> float | None:
    return value if value == value else None


def in_unit(pixels: Any) -> Tensor:
    """Pixels [H, W, 3] uint8 as float64 in [0, 1]."""
    return torch.from_numpy(pixels).double() / 255.0
