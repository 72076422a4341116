"""What the viewer shows: a run by any renderer, an asset by its own, a mesh by the browser."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray

from dataio.cameras import Cameras
from engine.rendering.modes import MODES, SOLID, Look
from engine.run import Run
from engine.showing import open_shown
from models.rendering.frames import Frame
from models.rendering.renderers.base import Renderer, RendererConfig, Source
from models.rendering.renderers.slice import Axis, SliceRenderer
from models.rendering.renderers.volume import VolumeRendererConfig
from utils.meshing.glb import write_glb
from utils.meshing.mesh import FORMATS, read_mesh, transformed, vertex_colors
from utils.pictures.images import Picture, depth_range

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
PAINTED = {"color": "rgb", "shape": "shape", "normals": "normal", "depth": "depth"}  # views, and the modes they are in
SLICE, MESH = "sdf slice", "mesh"
NOTHING = 160.0  # scene units; the farthest that viser takes is 167


@dataclass(frozen=True)
class Shown:
    """Something to look at, in its scene frame.

    source: folder, training cameras (none for a mesh alone), frame, model. renderer: None for a mesh alone. makes: the
    renderer's modes. mesh: scene frame, with its colors. held_out: cameras of held-out views. step: of a run.
    """

    source: Source
    renderer: Renderer | None
    makes: tuple[str, ...]
    mesh: trimesh.Trimesh | None
    held_out: Cameras | None = None
    run: Run | None = None

    @property
    def views(self) -> list[str]:
        """What can be looked at, the best first."""
        views = [view for view, mode in PAINTED.items() if MODES[mode].needs in self.makes]
        views += [SLICE] if self.source.model is not None else []
        return views + ([MESH] if self.mesh is not None else [])

    @property
    def up(self) -> Floats:
        """The direction up in the scene frame, [3], of length one."""
        up = self.source.world_from_scene[:3, :3].T @ self.source.up
        return np.asarray(up / np.linalg.norm(up))

    def slicer(self, axis: Axis, offset: float) -> Renderer:
        """The values on a plane across an axis of the scene frame."""
        return SliceRenderer(self.source.trained(), axis, offset)


def open_to_view(path: Path, renderer: RendererConfig | None, device: str) -> Shown:
    """Open a run folder or checkpoint, an asset, or a mesh. Raises InputError."""
    if path.suffix.lower() in FORMATS:
        return open_mesh(path)
    source, made, run = open_shown(path, renderer, device)
    if run is None:
        return Shown(source, made, ("rgb", "normal", "depth"), None)
    held_out = np.setdiff1d(np.arange(len(run.names)), run.splits["train"])
    modes = (renderer or VolumeRendererConfig()).modes
    return Shown(source, made, modes, _mesh_of(source), run.cameras[held_out], run)


def open_mesh(path: Path) -> Shown:
    """A mesh alone, moved into a unit sphere of its own; +Z is up."""
    mesh = read_mesh(path)
    world = unit_sphere_of(mesh)
    nobody = Cameras.make(np.zeros((0, 3, 4)), np.zeros((0, 4)), np.zeros((0, 2)))
    source = Source(path.parent, torch.device("cpu"), nobody, world, np.array([0.0, 0.0, 1.0]))
    return Shown(source, None, (), transformed(mesh, np.linalg.inv(world)))


def unit_sphere_of(mesh: trimesh.Trimesh) -> Floats:
    """[4, 4] from the unit sphere to the one around a mesh's box."""
    low, high = np.asarray(mesh.vertices).min(0), np.asarray(mesh.vertices).max(0)
    radius = max(float(np.linalg.norm(high - low)) / 2, 1e-12)
    world = np.diag([radius, radius, radius, 1.0])
    world[:3, 3] = (low + high) / 2
    return world


def _mesh_of(source: Source) -> trimesh.Trimesh | None:
    path = source.meshes / "mesh.ply"
    if not path.is_file():
        return None
    return transformed(read_mesh(path, up=source.up), np.linalg.inv(source.world_from_scene))


def glb_of(mesh: trimesh.Trimesh) -> bytes:
    """A mesh as a .glb whose axes stay as they are."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mesh.glb"
        write_glb(path, mesh, vertex_colors(mesh), up=(0.0, 1.0, 0.0), meters_per_unit=None)
        return path.read_bytes()


def picture_of(view: str, frame: Frame, directions: Floats32) -> Picture:
    """A view of a frame as colors, [H, W, 3]. directions: [H, W, 3] of its rays, scene frame."""
    look = Look(frame, lambda: directions)
    if view == "depth":
        look = replace(look, span=depth_range(frame.depth.numpy(), look.solid))
    return MODES[PAINTED.get(view, "rgb")].paint(look)


def depth_along_axis(frame: Frame, directions: Floats32, forward: Floats32) -> Floats32:
    """How far before the camera things are, [H, W], scene units; what is nothing is far behind all.

    directions: [H, W, 3], forward: [3], unit, scene frame.
    """
    solid = frame.opacity.numpy() > SOLID
    return np.where(solid, frame.depth.numpy() * (directions @ forward), NOTHING).astype(np.float32)


def reopened(shown: Shown, path: Path, renderer: RendererConfig | None) -> Shown:
    """The same from a newer checkpoint; the mesh stays."""
    source, made, run = open_shown(path, renderer, str(shown.source.device))
    return replace(shown, source=source, renderer=made, run=run)
