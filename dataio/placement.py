"""Views brought to where their photographs were taken: positions in their EXIF give scale, turn and place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from dataio import normalize
from dataio.alignment import Fit, fit_robustly, fit_turned, mean_turn
from dataio.files import Float64, notice, shown
from dataio.georeference import Georeference, camera_turn, middle_of
from dataio.pictures.exif import Exif, read_exif
from dataio.pictures.images import Source
from dataio.views import Views
from utils.errors import InputError

LOOKED_AT = 5  # pictures, before a set counts as one without positions
MOST_ERROR = 0.4  # of the spread of the positions
MOST_TURN = 0.1  # radians
SAME_SCALE, SAME_TURN = 1e-3, 2e-3  # so near is a world of meters with its axes east, north and up


def placed(views: Views, *, move: bool) -> Views:
    """The views with a georeference, where the positions in the photographs' EXIF agree with the cameras.

    A world that already is in meters with its axes east, north and up stays as it is, and only its origin is
    found. Any other world is moved there when `move` is true, and is left alone otherwise. Says what was done.
    """
    exifs = _exifs(views)
    known, places = list(exifs), _places(exifs)
    if len(places) < 3:
        return views
    middle = middle_of(places)
    centers = views.camera_to_world[known, :3, 3]
    fit = fit_robustly(centers, middle.enu(places))
    where = shown(views.source)
    if fit is None or fit.turn > MOST_TURN:
        fit = _turned(views, exifs, middle.enu(places)) or fit
    doubt = _doubt(fit, middle.enu(places))
    if fit is None or doubt:
        if move:
            notice(f"{where}: the positions in the photographs are not used: {doubt}")
        return views
    if is_metric(fit.matrix):
        origin = _origin_of(middle, fit, centers, places)
        return replace(views, georeference=origin)
    if not move:
        return views
    notice(
        f"{where}: placed by the positions of {len(places)} photographs, {int((~fit.inliers).sum())} of them left out:"
        f" {fit.error:.2f} m rms; the world is east, north, up in meters"
    )
    return moved(views, fit.matrix, middle)


def moved(views: Views, matrix: Float64, georeference: Georeference) -> Views:
    """The views in the world of a georeference. matrix: similarity [4, 4], east-north-up meters from world."""
    points = views.points
    return replace(
        views,
        camera_to_world=normalize.moved(views.camera_to_world, matrix),
        points=None if points is None else points @ matrix[:3, :3].T + matrix[:3, 3],
        world_from_scene=None if views.world_from_scene is None else matrix @ views.world_from_scene,
        georeference=georeference,
    )


def is_metric(matrix: Float64) -> bool:
    """Whether a similarity [4, 4] into east-north-up meters only shifts."""
    scale = float(np.cbrt(np.linalg.det(matrix[:3, :3])))
    turn = np.linalg.norm(matrix[:3, :3] / scale - np.eye(3))
    return abs(scale - 1) < SAME_SCALE and bool(turn < SAME_TURN)


def _exifs(views: Views) -> dict[int, Exif]:
    """What the photographs say that know where they were taken, by the number of the view."""
    found: dict[int, Exif] = {}
    for view, path in enumerate(views.images):
        if view >= LOOKED_AT and not found:
            break
        exif = _exif(path)
        if exif is not None and exif.position is not None and np.isfinite(views.camera_to_world[view]).all():
            found[view] = exif
    return found


def _exif(path: Source) -> Exif | None:
    try:
        return read_exif(path)
    except InputError:  # is said later, in its place
        return None


def _places(exifs: dict[int, Exif]) -> Float64:
    """[K, 3] latitude, longitude (degrees), altitude (meters)."""
    places = [exif.position for exif in exifs.values() if exif.position is not None]
    heights = [place.altitude for place in places if place.altitude is not None]
    # All at one height where some have none: a plane still gives scale and turn.
    flat = float(np.median(heights)) if heights else 0.0
    whole = len(heights) == len(places)
    rows = [(p.latitude, p.longitude, p.altitude if whole and p.altitude is not None else flat) for p in places]
    return np.array(rows, dtype=np.float64).reshape(-1, 3)


def _turned(views: Views, exifs: dict[int, Exif], target: Float64) -> Fit | None:
    """A fit whose turn is that of the gimbals, where all photographs say it: one straight flight is enough."""
    gimbals = [exif.gimbal for exif in exifs.values() if exif.gimbal is not None]
    if len(gimbals) < len(exifs):
        return None
    poses = views.camera_to_world[list(exifs)]
    turn = mean_turn(poses[:, :3, :3], np.array([camera_turn(*gimbal) for gimbal in gimbals]))
    return fit_turned(poses[:, :3, 3], target, turn)


def _doubt(fit: Fit | None, target: Float64) -> str:
    """Why a fit should not be trusted, or ""."""
    if fit is None:
        return "too few of them agree"
    spread = float(np.sqrt(((target - target.mean(axis=0)) ** 2).sum(axis=1).mean()))
    if fit.error > MOST_ERROR * spread:
        return f"they are off by {fit.error:.1f} m in {spread:.1f} m, too coarse for so small a place"
    return "they lie on a line, which does not tell how the world is turned" if fit.turn > MOST_TURN else ""


def _origin_of(middle: Georeference, fit: Fit, centers: Float64, places: Float64) -> Georeference:
    """Where a world's origin is whose cameras are at known places; meters, east, north, up."""
    origin = middle
    for _ in range(3):  # the axes turn a little with the place
        shift = np.median(origin.enu(places[fit.inliers]) - centers[fit.inliers], axis=0)
        origin = Georeference(*origin.geodetic(shift[None])[0].tolist())
    return origin
