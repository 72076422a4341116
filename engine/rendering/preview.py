"""A picture of a camera path: its cameras and those of the photographs about the surface, aslant and from above."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from dataio.cameras import Cameras
from engine.rendering.modes import SOLID
from engine.run import Run
from models.rendering.frames import directions_of, size_of
from models.rendering.renderers.base import Renderer, Source
from models.rendering.renderers.lattice import LatticeRendererConfig
from models.rendering.renderers.mesh import MeshRendererConfig
from utils.errors import InputError, first_line
from utils.paths.camera_paths import Around, look_at
from utils.pictures.images import Picture, shade_normal, turbo
from utils.pictures.sheets import Panel, sheet

Floats = NDArray[np.float64]
UInt8 = NDArray[np.uint8]
Ink = tuple[int, ...]
SIDE, FOCAL = 900, 1100.0  # pixels of a panel
ELEVATION, ABOVE = np.radians(25.0), np.radians(89.9)
SHOWN_AS_FRUSTA = 24  # cameras of a path; the others are points
PHOTOGRAPH, LINE = (150, 150, 150), 3
MOST_POINTS, UNCOLORED = 20_000, (70, 110, 80)  # of the sparse points that are drawn; those whose color is not known
BEHIND = 0.05  # scene units that a point may lie behind the surface and is drawn: points are no nearer to the truth
CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])


@dataclass(frozen=True)
class DrawnPoints:
    """Sparse points of the data: places [P, 3], scene frame, and colors [P, 3]."""

    places: Floats
    colors: UInt8


def sparse_points(run: Run) -> DrawnPoints | None:
    """Sparse points of a run's data, evenly chosen where there are many; None, where they have none.

    No picture is decoded. Where the data cannot be read, that is a line, and None.
    """
    try:
        outline = run.config.data.inspect().outline
        scene = outline().reframed(run.world_from_scene) if outline is not None else None
    except InputError as error:
        print(f"note: without sparse points: {first_line(error)}", file=sys.stderr)
        return None
    if scene is None or scene.points is None or not len(scene.points):
        return None
    chosen = np.random.default_rng(0).permutation(len(scene.points))[:MOST_POINTS]
    places = scene.points[chosen].astype(np.float64)
    colors = scene.point_colors
    return DrawnPoints(places, np.full((len(places), 3), UNCOLORED, np.uint8) if colors is None else colors[chosen])


def preview(source: Source, renderer: Renderer, along: Cameras, points: DrawnPoints | None = None) -> Picture:
    """[H, W, 3] a path's cameras, blue at the first to red at the last, and the photographs' in gray; scene frame.

    renderer: of the surface, see `surface_of`. points: drawn on it, and where it hides them not.
    """
    up = source.world_from_scene[:3, :3].T @ source.up
    along, given = along.to("cpu"), source.cameras.to("cpu")
    places = np.concatenate([_centers(along), _centers(given)])
    azimuth = float(Around(np.zeros(3), up / np.linalg.norm(up)).angles(_centers(given))[0].mean()) + 0.6
    panels = []
    for label, elevation in (("path, blue to red", ELEVATION), ("from above", ABOVE)):
        eye = overview(places, up, azimuth, elevation)
        picture = Image.fromarray(_surface(renderer, eye.to(source.device), points))
        _draw(ImageDraw.Draw(picture), eye, along, given)
        panels.append(Panel(np.asarray(picture), label))
    return sheet(panels, columns=2)


def surface_of(source: Source, shown: Renderer) -> Renderer:
    """What draws the surface quickly: the run's mesh, a coarse lattice of its values, or what an asset has."""
    if (source.meshes / "mesh.ply").is_file():
        return MeshRendererConfig(rays=1).build(source)
    return shown if source.model is None else LatticeRendererConfig(resolution=96).build(source)


def overview(places: Floats, up: Floats, azimuth: float, elevation: float) -> Cameras:
    """The camera that sees places [P, 3] and the unit sphere, as near as it can, from this direction."""
    radius = np.percentile(np.linalg.norm(places, axis=1), 98)
    kept = places[np.linalg.norm(places, axis=1) <= 1.5 * radius]  # a stray camera does not make all small
    sphere = np.concatenate([np.eye(3), -np.eye(3)])
    inside = np.concatenate([kept, sphere])
    about = Around(inside.mean(axis=0), up / np.linalg.norm(up))
    pose = about.looking(np.array([azimuth]), elevation, 1.0)[0]
    local = (inside - about.center) @ pose[:, :3]
    far = float((np.abs(local[:, :2]).max(axis=1) * FOCAL / (0.45 * SIDE) - local[:, 2]).max())
    pose = look_at(about.center - far * pose[None, :, 2], about.center, _upright(pose))
    return Cameras.make(pose, [FOCAL, FOCAL, SIDE / 2, SIDE / 2], [SIDE, SIDE], near=0.0)


def _upright(pose: Floats) -> Floats:
    return -pose[:, 1]


def _surface(renderer: Renderer, eye: Cameras, points: DrawnPoints | None) -> Picture:
    frame = renderer(eye, 0)
    solid = frame.opacity.numpy() > SOLID
    picture = shade_normal(frame.normal.numpy(), directions_of(eye, 0).cpu().numpy(), solid)
    if points is not None:
        put_points(picture, eye.to("cpu"), points, np.where(solid, frame.depth.numpy(), np.inf))
    return picture


def put_points(picture: Picture, eye: Cameras, points: DrawnPoints, hidden: NDArray[np.floating]) -> None:
    """Draw points into a picture [H, W, 3], each as four pixels, nearer ones over those behind.

    hidden: [H, W] the distance beyond which nothing is seen, scene units.
    """
    pixels = np.nan_to_num(_project(eye, points.places), nan=-1.0)
    distance = np.linalg.norm(points.places - _centers(eye), axis=1)
    column, row = np.floor(pixels.clip(-1, 2 * SIDE)).astype(np.int64).T
    height, width = hidden.shape
    inside = np.flatnonzero((column >= 0) & (column < width - 1) & (row >= 0) & (row < height - 1))
    seen = inside[distance[inside] < hidden[row[inside], column[inside]] + BEHIND]
    for index in seen[np.argsort(-distance[seen])].tolist():
        picture[row[index] : row[index] + 2, column[index] : column[index] + 2] = points.colors[index]


def _draw(draw: ImageDraw.ImageDraw, eye: Cameras, along: Cameras, given: Cameras) -> None:
    """Photographs, then the line of the path, then some of its cameras."""
    size = 0.06 * float(np.median(np.linalg.norm(_centers(given), axis=1)))
    for index in range(len(given)):
        _frustum(draw, eye, given, index, 0.6 * size, PHOTOGRAPH, 1)
    count = len(along)
    colors = [tuple(turbo()[10 + round(235 * i / max(count - 1, 1))].tolist()) for i in range(count)]
    line = _project(eye, _centers(along))
    for index in range(count - 1):
        _line(draw, line[index], line[index + 1], colors[index], LINE)
    for index in np.unique(np.linspace(0, count - 1, min(count, SHOWN_AS_FRUSTA)).round().astype(int)):
        _frustum(draw, eye, along, int(index), size, colors[index], 2)


def _frustum(
    draw: ImageDraw.ImageDraw, eye: Cameras, cameras: Cameras, index: int, size: float, color: Ink, width: int
) -> None:
    """The pyramid before a camera, its rays to the corners `size` long, and a point at its center."""
    pixels = torch.from_numpy(CORNERS * np.array(size_of(cameras, index))).float()
    rays = cameras.rays(torch.full((4,), index), pixels)
    corners = (rays.origins + size * rays.directions).double().numpy()
    points = _project(eye, np.concatenate([rays.origins[:1].double().numpy(), corners]))
    for start, end in ((0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1)):
        _line(draw, points[start], points[end], color, width)


def _line(draw: ImageDraw.ImageDraw, start: Floats, end: Floats, color: Ink, width: int) -> None:
    if np.isfinite([start, end]).all() and np.abs([start, end]).max() < 10 * SIDE:
        draw.line([*start, *end], fill=color, width=width)


def _project(eye: Cameras, points: Floats) -> Floats:
    """[P, 2] pixels of points [P, 3], not finite behind the camera."""
    pixels, depth = eye.project(torch.from_numpy(points).float(), 0)
    return np.where((depth > 0).numpy()[:, None], pixels.double().numpy(), np.nan)


def _centers(cameras: Cameras) -> Floats:
    return cameras.centers.double().numpy()
