"""Checks of the photographs, masks and normals themselves: sharpness, exposure, twins, polarity, axes."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
import torch

from dataio.checks.findings import Bool, Finding, Patient, of_neighbors, unusual
from dataio.files import Float64
from dataio.pictures.images import Float32, UInt8

FEW = 5  # views below which nothing can be called unusual
STRANGE = 4.0  # robust standard deviations
BLUR_FACTOR = 2.5  # ... and so many times less contrast of details than its neighbors
EXPOSURE_STOPS = 0.5
THUMBNAIL = 32
SAME_LEVELS = 0.7  # root mean square difference of thumbnails, of 255
PLAIN_LEVELS = 3.0  # thumbnails with less contrast say nothing
MOST_TWINS = 3000  # views up to which all pairs are compared
TOUCHED = 0.2  # share of the border that an object may cover
AWAY = 0.25  # share of the normals that may point away from the camera, as noise does at silhouettes
NORMAL_STRIDE = 7  # pixels from one that is looked at to the next


def photo_findings(patient: Patient, sharp: Float64, bright: Float64) -> Iterator[Finding]:
    """All findings of the pictures and masks alone; with their `sharpness` [C] and `brightness` [C]."""
    yield from blur(patient, sharp)
    yield from exposure(patient, bright)
    yield from twins(patient)
    yield from masks(patient)
    yield from normals(patient)


def sharpness(patient: Patient) -> Float64:
    """[C] standard deviation of the Laplacian, gray levels, within the mask."""
    return np.array([_detail(*_gray_within(patient, view)) for view in range(len(patient.scene.names))])


def brightness(patient: Patient) -> Float64:
    """[C] mean gray level within the mask."""
    found = []
    for view in range(len(patient.scene.names)):
        gray, within = _gray_within(patient, view)
        found.append(float(gray[within].mean()) if within.any() else 0.0)
    return np.array(found)


def _gray_within(patient: Patient, view: int) -> tuple[UInt8, Bool]:
    """Gray picture [H, W], and where it counts [H, W] bool: the mask without its rim."""
    gray = np.asarray(cv2.cvtColor(patient.scene.images[view], cv2.COLOR_RGB2GRAY), dtype=np.uint8)
    if patient.scene.masks is None:
        return gray, np.ones(gray.shape, dtype=bool)
    solid = (patient.scene.masks[view] > 127).astype(np.uint8)
    return gray, np.asarray(cv2.erode(solid, np.ones((5, 5), np.uint8)) > 0)


def _detail(gray: UInt8, within: Bool) -> float:
    return float(cv2.Laplacian(gray, cv2.CV_32F)[within].std()) if within.any() else 0.0


def blur(patient: Patient, sharp: Float64) -> Iterator[Finding]:
    """Views with much less fine contrast, `sharpness` [C], than the views around them."""
    if len(patient.scene.names) < FEW:
        return
    loss = -of_neighbors(patient, np.log(sharp + 0.1))
    blurred = np.flatnonzero((unusual(loss, floor=0.1) > STRANGE) & (loss > np.log(BLUR_FACTOR)))
    if len(blurred):
        text = f"{len(blurred)} of {len(loss)} photographs are much less sharp than their neighbors"
        fix = f"leave them out: {patient.names(blurred)}"
        yield Finding("warning", "blur", text, fix, tuple(blurred.tolist()))


def exposure(patient: Patient, bright: Float64) -> Iterator[Finding]:
    """Views that are much brighter or darker, by `brightness` [C], than the views around them."""
    if len(patient.scene.names) < FEW:
        return
    stops = of_neighbors(patient, np.log2(bright + 1))
    odd = np.flatnonzero((np.abs(unusual(stops, floor=0.05)) > STRANGE) & (np.abs(stops) > EXPOSURE_STOPS))
    if len(odd):
        worst = float(stops[odd][np.abs(stops[odd]).argmax()])
        text = (
            f"{len(odd)} of {len(stops)} photographs are exposed otherwise than their neighbors,"
            f" by up to {worst:+.1f} stops"
        )
        fix = f"take them with fixed exposure, or leave them out: {patient.names(odd)}"
        yield Finding("warning", "exposure", text, fix, tuple(odd.tolist()))


def twins(patient: Patient) -> Iterator[Finding]:
    """The same photograph twice, under one pose or two."""
    count = len(patient.scene.names)
    if not 2 <= count <= MOST_TWINS:
        return
    thumbnails = np.stack([_thumbnail(patient.scene.images[view]) for view in range(count)])
    square = (thumbnails**2).sum(axis=1)
    apart = (square[:, None] + square - 2 * thumbnails @ thumbnails.T).clip(0) / thumbnails.shape[1]
    same = np.triu(apart < SAME_LEVELS**2, 1) & (thumbnails.std(axis=1) > PLAIN_LEVELS)[:, None]
    pairs = np.argwhere(same)
    if len(pairs):
        first, second = (int(v) for v in pairs[0])
        moved = np.linalg.norm(patient.centers[first] - patient.centers[second]) > 0.01
        text = f"{len(pairs)} pairs of photographs are the same picture" + (
            ", although their poses differ" if moved else ""
        )
        fix = f"keep one of each: {patient.scene.names[first]} = {patient.scene.names[second]}" + (
            ", ..." if len(pairs) > 1 else ""
        )
        severity = "error" if moved else "warning"
        yield Finding(severity, "duplicate photographs", text, fix, tuple(np.unique(pairs).tolist()))  # type: ignore[arg-type]


def _thumbnail(picture: UInt8) -> Float64:
    gray = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    small = cv2.resize(gray, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.asarray(small, dtype=np.float64).reshape(-1)


def masks(patient: Patient) -> Iterator[Finding]:
    """Masks that are inverted, empty or full, and objects that leave the picture."""
    if patient.scene.masks is None:
        return
    solid = [mask > 127 for mask in patient.scene.masks]
    area = np.array([mask.mean() for mask in solid])
    border = np.array([_border(mask).mean() for mask in solid])
    inside = (area > 0) & (area < 1)
    if inside.any() and np.median(border[inside]) > 0.8 and np.median(area[inside]) > 0.4:
        text = f"masks cover {np.median(border[inside]):.0%} of the pictures' borders: they look inverted"
        yield Finding("error", "mask polarity", text, "white must be the object: invert the mask files")
        return
    blank = np.flatnonzero(~inside)
    if len(blank):
        text = f"{len(blank)} of {len(area)} masks are empty or full"
        fix = f"make them anew or leave the views out: {patient.names(blank)}"
        yield Finding("warning", "blank masks", text, fix, tuple(blank.tolist()))
    cut = np.flatnonzero(inside & (border > TOUCHED))
    if len(cut):
        text = f"in {len(cut)} of {len(area)} views the object leaves the picture"
        fix = f"what no view shows is guessed; look at the masks of {patient.names(cut)}"
        yield Finding("note", "cut objects", text, fix, tuple(cut.tolist()))


def normals(patient: Patient) -> Iterator[Finding]:
    """Normals that point away from their cameras, as those of other axes do."""
    pictures = patient.scene.quantities.get("normal", ())
    away = np.array([_pointing_away(patient, view, normal) for view, normal in enumerate(pictures)])
    wrong = np.flatnonzero(away > AWAY)
    if 2 * len(wrong) > len(away):
        text = f"{np.median(away):.0%} of the normals point away from their camera"
        fix = "expected x right, y down, z forward, towards the camera: files of OpenGL's axes want y and z negated"
        yield Finding("warning", "normals", text, fix, tuple(wrong.tolist()))


def _pointing_away(patient: Patient, view: int, normal: Float32) -> float:
    """The share of the known normals [H, W, 3] of a view, in its camera's frame, that point away from it."""
    cameras = patient.scene.cameras
    pixels = cameras.pixel_grid(view)[::NORMAL_STRIDE]
    rays = cameras.rays(torch.full((len(pixels),), view), pixels)
    directions = rays.directions @ cameras.camera_to_world[view, :, :3]
    some = normal.reshape(-1, 3)[::NORMAL_STRIDE]
    known = some.any(axis=-1)
    return float(((some * directions.numpy()).sum(-1) > 0)[known].mean()) if known.any() else 0.0


def _border(mask: Bool) -> Bool:
    return np.concatenate([mask[0], mask[-1], mask[1:-1, 0], mask[1:-1, -1]])
