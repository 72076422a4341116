"""The demo scene: pictures of a made-up object with a known surface, rendered when it is loaded. No files."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from dataio import normalize
from dataio.cameras import Cameras
from dataio.pictures import images
from dataio.pictures.pictures import Pictures
from dataio.scene import DataConfig, Inspection, Scene, background_color
from dataio.shapes import demo_object
from dataio.views import Views
from utils.errors import InputError

if TYPE_CHECKING:
    import trimesh

Float64 = npt.NDArray[np.float64]

# The world is neither the object's frame nor the scene frame, as with real data: millimeters on a workbench.
WORLD_SCALE = 42.0
WORLD_OFFSET = (120.0, -75.0, 60.0)
WORLD_TURN = 0.4
# The unit sphere of the scene, in the object's frame.
SPHERE = 1.0

CAMERA_DISTANCE = 3.2
VIEW_WIDTH = 1.9  # what fits into the picture at the object's center
REFERENCE_RESOLUTION = 320


def world_from_object() -> Float64:
    """[4, 4] similarity from the object's frame to the world: a turn about z, a scale and a shift."""
    matrix = np.eye(4)
    cosine, sine = np.cos(WORLD_TURN), np.sin(WORLD_TURN)
    matrix[:2, :2] = [[cosine, -sine], [sine, cosine]]
    matrix[:3, :3] *= WORLD_SCALE
    matrix[:3, 3] = WORLD_OFFSET
    return matrix


class ProceduralData(DataConfig):
    """A textured object with handles and holes, sphere traced: data without files, its surface known."""

    type: Literal["procedural"] = "procedural"
    priority: ClassVar[int] = -1

    views: int = Field(default=40, ge=2, le=1000, description="training views, all around")
    test_views: int = Field(default=8, ge=0, le=1000, description="test views, between them")
    size: int = Field(default=200, ge=8, le=2000, description="width and height of the pictures")
    depths: bool = Field(default=False, description="give the true depths too")

    @classmethod
    def recognizes(cls, path: Path) -> bool:
        """Never: it needs no files."""
        return False

    def parse(self) -> Views:
        """There is nothing to parse."""
        raise InputError("data.type: procedural - has no files to read - load it instead")

    def inspect(self) -> Inspection:
        """One line about the data, and what they will have."""
        line = f"procedural: {self.views} + {self.test_views} views of {self.size} x {self.size}"
        there = {"mask": self.masks != "off", "depth": self.depths}
        return Inspection(line, frozenset(name for name, given in there.items() if given))

    def load(self) -> Scene:
        """Render the views."""
        world = world_from_object()
        poses = normalize.moved(camera_poses(self.views, self.test_views), world)
        focal = self.size * CAMERA_DISTANCE / VIEW_WIDTH
        middle = self.size / 2
        world_from_scene = self._frame(world)
        cameras = Cameras.make(
            normalize.moved(poses, normalize.inverse(world_from_scene)),
            [focal, focal, middle, middle],
            [self.size, self.size],
            near=self.near,
        ).scaled(1 / self.downscale)
        object_from_scene = normalize.inverse(world) @ world_from_scene
        pictures = [_render(cameras, view, object_from_scene) for view in range(len(poses))]
        masks = [mask for _, mask, _ in pictures]
        color = background_color(self)
        count = np.arange(len(poses))
        names = [f"{'train' if i < self.views else 'test'}/{i:03d}" for i in count]
        return Scene(
            cameras=cameras,
            images=Pictures.of([images.composited(picture, mask, color) for picture, mask, _ in pictures]),
            masks=None if self.masks == "off" else Pictures.of(masks),
            depths=Pictures.of([depth for _, _, depth in pictures]) if self.depths else None,
            points=None,
            splits={"train": count[: self.views], "test": count[self.views :]},
            world_from_scene=world_from_scene,
            names=names,
            up=np.array([0.0, 0.0, 1.0]),
            background=None if self.masks == "off" else color,
            reference=partial(reference_mesh, REFERENCE_RESOLUTION),
        )

    def _frame(self, world: Float64) -> Float64:
        center = world[:3, 3] if self.center == "auto" else np.array(self.center)
        return normalize.similarity(center, SPHERE * WORLD_SCALE if self.radius == "auto" else self.radius)


def camera_poses(train: int, test: int) -> Float64:
    """[C, 4, 4] camera-to-object poses, C = train + test, OpenCV axes, all looking at the object's center."""
    around = [
        *demo_object.spiral(train, low=-0.55, high=0.95, turn=0.0),
        *demo_object.spiral(test, low=-0.35, high=0.8, turn=1.0),
    ]
    poses = np.tile(np.eye(4), (len(around), 1, 1))
    for pose, back in zip(poses, np.array(around), strict=True):
        right = np.cross([0.0, 0.0, 1.0], back)
        right /= np.linalg.norm(right)
        pose[:3, :3] = np.stack([right, np.cross(right, back), -back], axis=-1)
        pose[:3, 3] = CAMERA_DISTANCE * back
    return poses


def _render(
    cameras: Cameras, view: int, object_from_scene: Float64
) -> tuple[images.UInt8, images.UInt8, images.Float32]:
    """Color, mask and z depth (scene units, 0 = nothing) of one view."""
    pixels = cameras.pixel_grid(view)
    rays = cameras.rays(torch.full((len(pixels),), view), pixels)
    scale = float(np.cbrt(np.linalg.det(object_from_scene[:3, :3])))
    turn = (object_from_scene[:3, :3] / scale).astype(np.float32)
    origins = rays.origins.numpy() @ (scale * turn).T + object_from_scene[:3, 3].astype(np.float32)
    picture = demo_object.render(origins, rays.directions.numpy() @ turn.T)
    width, height = (int(n) for n in cameras.size[view])
    cosine = (rays.directions @ cameras.forward[view]).numpy()
    depth = (picture.t * cosine / np.float32(scale)).reshape(height, width)
    color = np.round(picture.color * 255).astype(np.uint8).reshape(height, width, 3)
    mask = np.where(picture.t > 0, np.uint8(255), np.uint8(0)).reshape(height, width)
    return color, mask, depth


def reference_mesh(resolution: int) -> trimesh.Trimesh:
    """The true surface, world units: marching cubes of the distance function, then moved onto its zero.

    resolution: lattice points per side.
    """
    import trimesh  # takes longer to import than all formats

    from utils.meshing import mesh as meshes

    mesh = meshes.extract_surface(
        lambda points: demo_object.distance(np.ascontiguousarray(points.T)), resolution=resolution, batch=8192
    )
    vertices = mesh.vertices.astype(np.float32).T
    for _ in range(3):
        vertices = vertices - demo_object.distance(vertices) * demo_object.normals(vertices)
    exact = trimesh.Trimesh(vertices.T.astype(np.float64), mesh.faces, process=False)
    return meshes.transformed(exact, world_from_object())
