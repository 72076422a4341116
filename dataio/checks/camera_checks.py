"""Checks of the cameras: their lenses, their places around the unit sphere, what of it they see."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.spatial import cKDTree

from dataio import normalize
from dataio.checks.findings import Bool, Finding, Patient
from dataio.checks.reprojection import reprojection
from dataio.files import Float64

FEW_VIEWS, TOO_FEW_VIEWS = 12, 3
OFF_CENTER = 0.12  # of the picture's size
WIDE_DEGREES, NARROW_DEGREES = 120.0, 3.0
STRETCHED = 1.05  # fx over fy
COVERED_RADIUS = 0.5  # of the sphere whose surface should be seen
COVERED_SHARE = 0.5
SAME_PLACE, SAME_COSINE = 1e-5, 1 - 1e-7  # scene units; cosine of the angle between two axes
FAR_WORLD, SMALL_WORLD = 1e5, 1e-4  # of positions in radii, and of the radius in world units
POINTS_NEEDED = 20
REPROJECTION_PIXELS, REPROJECTION_SHARE = 1.5, 1e-3  # at the most: the larger one; the share is of the diagonal


def camera_findings(patient: Patient) -> Iterator[Finding]:
    """Everything that the cameras, the sparse points and the unit sphere say."""
    yield from number_of_views(patient)
    yield from lenses(patient)
    yield from places(patient)
    yield from twins(patient)
    yield from coverage_findings(patient)
    yield from points_off(patient)
    yield from near_and_far(patient)
    yield from size_of_world(patient)


def number_of_views(patient: Patient) -> Iterator[Finding]:
    """Too few views to train on."""
    count = len(patient.scene.splits["train"])
    if count < FEW_VIEWS:
        severity = "error" if count < TOO_FEW_VIEWS else "warning"
        text = f"{count} views to train on, of {len(patient.scene.names)}"
        fix = f"take more, {FEW_VIEWS} at the least; data.holdout=0 trains on those for tests too"
        yield Finding(severity, "few views", text, fix)  # type: ignore[arg-type]


def lenses(patient: Patient) -> Iterator[Finding]:
    """Focal lengths and principal points that no camera has."""
    fx, fy, cx, cy = patient.views.intrinsics.T
    width, height = patient.views.size.T.astype(np.float64)
    off = np.maximum(np.abs(cx / width - 0.5), np.abs(cy / height - 0.5))
    swapped = np.maximum(np.abs(cy / width - 0.5), np.abs(cx / height - 0.5))
    bad = np.flatnonzero(off > OFF_CENTER)
    if len(bad):
        text = f"{len(bad)} of {len(off)} principal points are far from the middle, the first is at"
        text += f" ({cx[bad[0]]:.0f}, {cy[bad[0]]:.0f}) in {width[bad[0]]:.0f} x {height[bad[0]]:.0f} pixels"
        if (swapped[bad] < 0.03).all():
            fix = "cx and cy are swapped, or the pictures were turned after calibration: exchange them"
            yield Finding("error", "principal point", text, fix, tuple(bad.tolist()))
        else:
            fix = "right for cropped photographs; else correct cx and cy"
            yield Finding("warning", "principal point", text, fix, tuple(bad.tolist()))
    if (np.abs(cx - width / 2 + 0.5) < 1e-6).all() and (np.abs(cy - height / 2 + 0.5) < 1e-6).all():
        text = "all principal points are half a pixel before the middle, as if pixel centers were whole numbers"
        fix = "add 0.5 to cx and cy, unless the calibration says so (docs/conventions.md)"
        yield Finding("note", "half pixel", text, fix)
    angle = _field_of_view(patient)
    # A fisheye may see far more than a perspective lens of its focal length.
    perspective = np.abs(angle / (2 * np.degrees(np.arctan(width / 2 / fx))) - 1) < 0.05
    odd = np.flatnonzero(perspective & ((angle > WIDE_DEGREES) | (angle < NARROW_DEGREES)))
    if len(odd):
        text = f"{len(odd)} of {len(fx)} views have an implausible field of view, the first {angle[odd[0]]:.1f} degrees"
        fix = "focal lengths are in pixels of the pictures as they are; correct them"
        yield Finding("warning", "field of view", text, fix, tuple(odd.tolist()))
    ratio = np.maximum(fx / fy, fy / fx)
    if (ratio > STRETCHED).any():
        text = f"focal lengths differ between width and height by up to {ratio.max() - 1:.0%}"
        yield Finding("warning", "stretched pixels", text, "right for stretched photographs only; else correct them")


def _field_of_view(patient: Patient) -> Float64:
    """[C] degrees between the rays at the middles of the left and the right border."""
    cameras = patient.scene.cameras
    views = torch.arange(len(cameras))
    width, height = cameras.size.float().T
    left = cameras.rays(views, torch.stack([torch.zeros_like(width), height / 2], dim=1)).directions.double()
    right = cameras.rays(views, torch.stack([width, height / 2], dim=1)).directions.double()
    return np.asarray(torch.rad2deg(2 * torch.asin((left - right).norm(dim=1).clamp(max=2) / 2)).numpy())


def places(patient: Patient) -> Iterator[Finding]:
    """Where the cameras are and look, seen from the unit sphere."""
    if patient.scene.room:
        return  # seen from within, where no camera needs to show the middle
    inside = np.flatnonzero(np.linalg.norm(patient.centers, axis=1) < 1)
    count = len(patient.scene.names)
    if len(inside) and patient.scene.masks is not None:
        text = f"{len(inside)} of {count} cameras stand inside the unit sphere, although there are masks"
        radius = 0.8 * np.linalg.norm(patient.centers, axis=1).min() * _radius(patient)
        fix = f"a smaller sphere around the object: data.radius={radius:.3g}"
        yield Finding("warning", "cameras inside", text, fix, tuple(inside.tolist()))
    elif len(inside):
        text = f"{len(inside)} of {count} cameras stand inside the unit sphere"
        fix = "right for rooms; for an object, make it smaller by data.radius"
        yield Finding("note", "cameras inside", text, fix, tuple(inside.tolist()))
    away = np.flatnonzero(~_sees_center(patient))
    if len(away) > 0.5 * count:
        text = f"{len(away)} of {count} views do not show the center of the unit sphere"
        fix = "name the place that matters: data.center=[x, y, z] data.radius=r, in world units"
        yield Finding("warning", "look elsewhere", text, fix, tuple(away.tolist()))


def _sees_center(patient: Patient) -> Bool:
    origin = torch.zeros(1, 3)
    return np.array([_in_frame(patient, origin, view)[0] for view in range(len(patient.scene.names))])


def _in_frame(patient: Patient, points: torch.Tensor, view: int) -> Bool:
    """Whether points [N, 3] are within a picture: [N] bool."""
    pixels, depth = patient.scene.cameras.project(points, view)
    size = patient.scene.cameras.size[view]
    within = (pixels >= 0).all(-1) & (pixels < size).all(-1) & (depth > 0)
    return within.numpy()


def twins(patient: Patient) -> Iterator[Finding]:
    """Views with the same pose."""
    pairs = cKDTree(patient.centers).query_pairs(SAME_PLACE, output_type="ndarray")
    axes = patient.forward[pairs]
    pairs = pairs[(axes[:, 0] * axes[:, 1]).sum(axis=1) > SAME_COSINE]
    if len(pairs):
        first, second = (patient.scene.names[int(v)] for v in pairs[0])
        text = (
            f"{len(pairs)} pairs of {len(patient.centers)} views have the same pose, the first is {first} and {second}"
        )
        fix = "right for a fixed camera under changing light only; else leave one out or correct its pose"
        yield Finding("warning", "duplicate poses", text, fix, tuple(np.unique(pairs).tolist()))


def coverage(patient: Patient) -> Float64:
    """Number of views that see each of 500 even points of the sphere of half the radius, from in front: [500]."""
    index = np.arange(500) + 0.5
    z, turn = 1 - index / 250, index * np.pi * (1 + 5**0.5)
    ring = np.sqrt(1 - z * z)
    normals = np.stack([ring * np.cos(turn), ring * np.sin(turn), z], axis=1)
    points = COVERED_RADIUS * normals
    seen = np.zeros(len(points))
    for view in patient.scene.splits["train"]:
        towards = patient.centers[view] - points
        cosine = (towards * normals).sum(axis=1) / np.maximum(np.linalg.norm(towards, axis=1), 1e-9)
        # A view along the surface shows next to nothing of it.
        seen += _in_frame(patient, torch.from_numpy(points).float(), int(view)) & (cosine > 0.2)
    return seen


def coverage_findings(patient: Patient) -> Iterator[Finding]:
    """How much of the object's surroundings is seen often enough; a room has its sides within."""
    if patient.scene.room:
        return
    seen = coverage(patient)
    thrice = float((seen >= 3).mean())
    if thrice < COVERED_SHARE:
        text = (
            f"{thrice:.0%} of all sides of the object are seen by three views or more, {(seen >= 2).mean():.0%} by two"
        )
        fix = "sides that are not seen are guessed; photograph them, or cut the mesh there"
        yield Finding("note", "coverage", text, fix)


def near_and_far(patient: Patient) -> Iterator[Finding]:
    """Sparse points that are nearer than rays begin, or points that are behind the cameras."""
    points = patient.scene.points
    if points is None or len(points) < POINTS_NEEDED:
        return
    near, _ = point_depths(patient)
    if near < patient.config.near:
        text = f"sparse points lie {near:.3g} scene units from a camera, rays begin at {patient.config.near:g}"
        yield Finding("warning", "near", text, f"data.near={0.5 * near:.2g}")
    far = np.linalg.norm(points, axis=1)
    if (far < 1).mean() < 0.2:
        text = f"{(far < 1).mean():.0%} of {len(far)} sparse points lie in the unit sphere"
        fix = "a larger sphere, if they are of the object: data.radius; else a model with a background"
        yield Finding("note", "points outside", text, fix)


def point_depths(patient: Patient) -> tuple[float, float]:
    """Nearest and farthest distance of sparse points that are in a picture, one in a hundred left out at both ends."""
    points = torch.from_numpy(np.asarray(patient.scene.points)[:20000]).float()
    found = [np.zeros(0)]
    for view in range(len(patient.scene.names)):
        distance = (points - patient.scene.cameras.centers[view]).norm(dim=-1).numpy()
        found.append(distance[_in_frame(patient, points, view)])
    distances = np.concatenate(found)
    if len(distances) == 0:
        return float("inf"), float("inf")
    low, high = np.quantile(distances, [0.01, 0.99])
    return float(low), float(high)


def points_off(patient: Patient) -> Iterator[Finding]:
    """Sparse points that the cameras put elsewhere than they were seen."""
    found = reprojection(patient.views)
    if found is None:
        return
    diagonal = float(np.linalg.norm(patient.views.size, axis=1).max())
    limit = max(REPROJECTION_PIXELS, REPROJECTION_SHARE * diagonal)
    if found.median > limit:
        text = f"sparse points are {found.median:.1f} pixels off where they were seen (up to {limit:.1f} may be)"
        fix = "points, poses and pictures are not of one model: read the model that the poses are from"
        yield Finding("error", "reprojection", text, fix)
        return
    off = np.flatnonzero(np.nan_to_num(found.per_view) > 3 * limit)
    if len(off):
        text = f"{len(off)} of {len(found.per_view)} views do not fit the sparse points"
        fix = f"leave them out, or estimate their poses anew: {patient.names(off)}"
        yield Finding("warning", "reprojection", text, fix, tuple(off.tolist()))


def size_of_world(patient: Patient) -> Iterator[Finding]:
    """Worlds in which single precision is not enough, or units that cannot be meant."""
    radius, center = _radius(patient), patient.scene.world_from_scene[:3, 3]
    away = float(np.linalg.norm(center)) / radius
    if away > FAR_WORLD:
        text = f"the scene lies {away:.2g} of its radii from the world's origin"
        fix = "meshes lose detail to single precision there; subtract a common offset from the poses"
        yield Finding("warning", "far from the origin", text, fix)
    if not SMALL_WORLD < radius < 1 / SMALL_WORLD:
        text = f"the unit sphere has a radius of {radius:.2g} world units"
        yield Finding("note", "scale", text, "right if that is meant; else scale the poses, or set data.radius")


def _radius(patient: Patient) -> float:
    return float(np.cbrt(np.linalg.det(patient.scene.world_from_scene[:3, :3])))


def facts(patient: Patient) -> list[tuple[str, str]]:
    """What is known of the set, as name and value."""
    scene, seen = patient.scene, coverage(patient)
    distance = np.linalg.norm(patient.centers, axis=1)
    up = normalize.inverse(scene.world_from_scene)[:3, :3] @ scene.up
    height = np.degrees(np.arcsin((patient.centers @ up / np.linalg.norm(up) / np.maximum(distance, 1e-9)).clip(-1, 1)))
    sizes = sorted({f"{w} x {h}" for w, h in patient.views.size.tolist()})
    splits = ", ".join(f"{len(index)} {name}" for name, index in scene.splits.items())
    center = np.round(scene.world_from_scene[:3, 3], 4).tolist()
    heights = f"{height.min():.0f} to {height.max():.0f}"
    found = [
        ("views", f"{len(scene.names)} ({splits})"),
        ("photographs", ", ".join(sizes[:3]) + (", ..." if len(sizes) > 3 else "")),
        ("masks", "yes" if scene.masks is not None else "no"),
        ("also per pixel", ", ".join(name for name in scene.quantities if name != "mask") or "nothing"),
        ("unit sphere, world units", f"center {center}, radius {_radius(patient):.4g}"),
        ("cameras from its center", f"{distance.min():.2f} to {distance.max():.2f} radii, {heights} degrees up"),
        ("sides seen by 1, 2, 3 views or more", ", ".join(f"{(seen >= n).mean():.0%}" for n in (1, 2, 3))),
    ]  # fmt: skip
    if scene.points is not None and len(scene.points) >= POINTS_NEEDED:
        low, high = point_depths(patient)
        found.append(("sparse points", f"{len(scene.points)}, {low:.3g} to {high:.3g} radii from the cameras"))
    error = reprojection(patient.views)
    if error is not None:
        found.append(("reprojection error", f"median {error.median:.2f} pixels, 95 % below {error.quantile(0.95):.2f}"))
    return found
