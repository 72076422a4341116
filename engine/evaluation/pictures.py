"""The views of a run against photographs: color, and depth where it was measured, view by view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataio.scene import Scene
from dataio.visibility import times_seen
from engine.run import Run
from models.rendering.frames import Frame, render_image
from utils.errors import InputError
from utils.evaluation.depth_metrics import depth_numbers
from utils.evaluation.flip import FLIP_DEFINITION
from utils.evaluation.image_metrics import SSIM_DEFINITION
from utils.evaluation.lpips import Lpips
from utils.evaluation.results import RENDERINGS, TRUTH, rendering_name
from utils.evaluation.view_scores import Numbers, header, in_unit, line, means, score_view
from utils.pictures.images import to_uint8, write_png

DEPTH_BOUND = 0.05  # world units: 5 cm where they are meters
SEEN_MARGIN = 0.1  # world units: what lies no farther behind a measured depth counts as seen


@dataclass(frozen=True)
class Measuring:
    """How views are measured. lpips: None without weights. keep: folder for renderings and truth, None: none are."""

    lpips: Lpips | None = None
    keep: Path | None = None


@dataclass
class _Depths:
    """Errors [N] of depth in world units, and whether a training view saw the place [N]; a part per view."""

    error: list[NDArray[np.floating]] = field(default_factory=list)
    seen: list[NDArray[np.bool_]] = field(default_factory=list)


def measure_images(
    run: Run, scene: Scene, split: str, how: Measuring | None = None, *, own: bool = True
) -> dict[str, Any] | None:
    """Numbers of the views of a split, rendered in full size: their means, and `per_view`; None without views.

    Numbers that end in _masked count the pixels inside the masks only, where the scene has masks; psnr_affine is there
    where something was learned of single photographs (see `score_view`); depths are those of `depth_numbers` and
    `score_depths`. own: whether the views are the run's, of which it may have learned something each. Raises InputError
    for the name of a split that the data lack.
    """
    how = how or Measuring()
    if split not in scene.splits and split != "test":
        raise InputError(f"--split: {split!r} - the data have {', '.join(scene.splits)}")
    views = scene.splits.get(split)
    if views is None or len(views) == 0:
        return None
    if scene.background is not None:  # what the photographs were composited over
        run.model.background_color.copy_(torch.tensor(scene.background))
    cameras = scene.cameras.to(run.device)
    rows: list[dict[str, Any]] = []
    depths = _Depths()
    tinted = any(medium.per_image is not None for medium in run.model.media)
    print(header(split))
    for view in (int(v) for v in views):
        frame = render_image(run.model, cameras, view, photograph=own)
        rows.append({"name": scene.names[view], **_view_numbers(scene, view, frame, depths, how, tinted=tinted)})
        print(line(scene.names[view], rows[-1]), flush=True)
        if how.keep is not None:
            name = rendering_name(scene.names[view])
            write_png(how.keep / RENDERINGS / name, to_uint8(frame.color.numpy()))
            write_png(how.keep / TRUTH / name, np.array(scene.images[view]))
    return summary(rows, how.lpips) | _pooled(depths) | {"split": split, "per_view": rows}


def summary(rows: Sequence[dict[str, Any]], lpips: Lpips | None) -> dict[str, Any]:
    """The means of the views' numbers, how many views, and what the numbers mean."""
    found: dict[str, Any] = means([{key: value for key, value in row.items() if key != "name"} for row in rows])
    found |= {"views": len(rows), "ssim_definition": SSIM_DEFINITION, "flip_definition": FLIP_DEFINITION}
    return found | ({"lpips_network": lpips.name} if lpips is not None else {})


def _view_numbers(
    scene: Scene, view: int, frame: Frame, depths: _Depths, how: Measuring, *, tinted: bool
) -> dict[str, float | None]:
    mask = torch.from_numpy(np.array(scene.masks[view])) > 127 if scene.masks is not None else None
    truth = in_unit(scene.images[view])
    numbers = score_view(frame.color.double(), truth, mask, lpips=how.lpips, affine=tinted)
    if scene.depths is not None:
        error, seen = depth_error(scene, view, frame.depth.numpy())
        depths.error.append(error)
        depths.seen.append(seen)
        numbers |= _depth_of_view(scene, view, frame.depth, mask)
    return numbers


def _depth_of_view(scene: Scene, view: int, along: Tensor, mask: Tensor | None) -> Numbers:
    """Of distances along the rays [H, W], scene units: `depth_numbers` in world units, and within the mask [H, W]."""
    assert scene.depths is not None
    scale = _unit(scene)
    truth = np.array(scene.depths[view], dtype=np.float32)
    found = (along.flatten() * _cosines(scene, view)).view(truth.shape).numpy()
    chosen = {"": truth > 0} | ({} if mask is None else {"_masked": (truth > 0) & mask.numpy()})
    numbers: Numbers = {}
    for ending, known in chosen.items():
        each = depth_numbers(found[known] * scale, truth[known] * scale)
        numbers |= {f"depth_{name}{ending}": value for name, value in each.items()}
    return numbers


def _cosines(scene: Scene, view: int) -> Tensor:
    """[H*W] between the rays of a view's pixels and its axis."""
    pixels = scene.cameras.pixel_grid(view)
    return scene.cameras.rays(torch.full((len(pixels),), view), pixels).directions @ scene.cameras.forward[view]


def _unit(scene: Scene) -> float:
    """World units per scene unit."""
    return float(np.cbrt(np.linalg.det(scene.world_from_scene[:3, :3])))


def _pooled(depths: _Depths) -> dict[str, Any]:
    return score_depths(np.concatenate(depths.error), np.concatenate(depths.seen)) if depths.error else {}


def depth_error(
    scene: Scene, view: int, along: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
    """Depth errors [N] of a view, and [N] bool whether a training view saw the place that was measured.

    along: rendered distance along the rays [H, W], scene units. N: the pixels that have a measured depth. Errors are
    |rendered - measured| z depth, world units.
    """
    assert scene.depths is not None
    rays = scene.cameras.rays(torch.full((along.size,), view), scene.cameras.pixel_grid(view))
    cosine = rays.directions @ scene.cameras.forward[view]
    measured = torch.from_numpy(np.array(scene.depths[view], dtype=np.float32).ravel())
    known, scale = measured > 0, _unit(scene)
    error = (torch.from_numpy(along.ravel()) * cosine - measured).abs()[known] * scale
    points = rays.at(measured / cosine)[known].double().numpy()
    return error.numpy(), times_seen(scene, scene.splits["train"], points, margin=SEEN_MARGIN / scale) > 0


def score_depths(error: NDArray[np.floating], seen: NDArray[np.bool_]) -> dict[str, Any]:
    """Share of the pixels whose depth is right to 0.05 world units, the median error, and that share where `seen`.

    error: [N] world units. seen: [N] bool, where a training view saw the place: no method can know the others.
    """

    def share(of: NDArray[np.floating]) -> float | None:
        return float((of < DEPTH_BOUND).mean()) if len(of) else None

    return {
        "depth_within_0.05": share(error),
        "depth_median_error": float(np.median(error)) if len(error) else None,
        "depth_pixels": len(error),
        "depth_within_0.05_seen": share(error[seen]),
        "depth_pixels_seen": int(seen.sum()),
    }
