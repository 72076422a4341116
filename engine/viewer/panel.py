"""The viewer: a scene in a browser, a panel beside it, and pictures behind it that follow each camera."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dataio.cameras import Cameras
from dataio.views import evenly_chosen
from engine.viewer.keyframes import KeyFrame
from engine.viewer.painter import Painter, Request, camera_of
from engine.viewer.server import Server
from engine.viewer.shown import MESH, NOTHING, SLICE, Shown, depth_along_axis, glb_of, picture_of
from models.rendering.frames import Frame, directions_of, size_of
from utils import memory

Floats = NDArray[np.float64]
MOST_CAMERAS = 512
SIZES = ("256", "512", "768", "1024", "1536")
START_FOV = 0.8  # radians, where there is no camera to begin with
THIN: dict[str, Any] = {"thickness": 1.5, "thickness_units": "screen"}
BEFORE = 0.88  # of the first camera's distance: its drawing lies behind who looks
BLANK = np.full((1, 1, 3), 255, np.uint8)  # without a background viser draws a mesh pale
BLUE, ORANGE, RED = (36, 68, 102), (238, 153, 0), (200, 30, 30)


@dataclass
class Look:
    """What the panel says of pictures; the same for all who look. axis, offset: of the slice."""

    view: str
    size: int = 768  # pixels of the longer side, when the camera rests
    axis: Any = "z"
    offset: float = 0.0


class Panel:
    """The state of the viewer, and what happens when somebody moves, comes, goes or clicks."""

    def __init__(self, server: Server, shown: Shown) -> None:
        self.server, self.shown, self.painter = server, shown, Painter()
        self.look = Look(shown.views[0])
        self.lock = threading.Lock()
        self.painted = threading.Event()  # somebody has seen a picture
        self.mesh: Any = None
        self.frusta: dict[tuple[str, int], Any] = {}
        self._set_scene()
        self._add_views()
        server.on_client_connect(self._come)
        server.on_client_disconnect(self._go)

    # --- the scene -------------------------------------------------------------------------------------------------

    def _set_scene(self) -> None:
        scene, shown = self.server.scene, self.shown
        scene.set_up_direction(shown.up)
        self._place_first_camera()
        self._show_mesh()
        self._add_cameras(shown.source.cameras, "train", BLUE)
        if shown.held_out is not None:
            self._add_cameras(shown.held_out, "held_out", ORANGE)

    def _show_mesh(self) -> None:
        """Show the mesh, or hide it; it is sent when it is looked at first, since it may be large."""
        visible = self.look.view == MESH
        if self.mesh is not None:
            self.mesh.visible = visible
        elif visible and self.shown.mesh is not None:
            self.mesh = self.server.scene.add_glb("/mesh", glb_of(self.shown.mesh))

    def _place_first_camera(self) -> None:
        """New clients begin where the first photograph was taken, or before the mesh."""
        start, cameras = self.server.initial_camera, self.shown.source.cameras
        if not len(cameras):
            across = np.cross(self.shown.up, np.eye(3)[np.abs(self.shown.up).argmin()])
            away = 2.6 * across / np.linalg.norm(across) + 0.9 * self.shown.up
            start.position, start.look_at, start.fov = away, np.zeros(3), START_FOV
            return
        pose = cameras.camera_to_world[0].cpu().double().numpy()
        distance = max(float(-pose[:, 3] @ pose[:, 2]), 0.5)
        middle = pose[:, 3] + distance * pose[:, 2]
        start.position, start.look_at = middle - BEFORE * distance * pose[:, 2], middle
        start.fov = fov_of(cameras, 0)

    def _add_cameras(self, cameras: Cameras, name: str, color: tuple[int, int, int]) -> None:
        for index in evenly_chosen(len(cameras), MOST_CAMERAS).tolist():
            pose = cameras.camera_to_world[index].cpu().double().numpy()
            width, height = size_of(cameras, index)
            handle = self.server.scene.add_camera_frustum(
                f"/cameras/{name}/{index}", fov_of(cameras, index), width / height, scale=0.08,
                color=color, wxyz=wxyz_of(pose), position=pose[:, 3], **THIN,
            )  # fmt: skip
            handle.on_click(partial(_go_there, pose))
            self.frusta[name, index] = handle

    def train_views(self) -> list[int]:
        """The training views whose cameras are drawn."""
        return [index for name, index in self.frusta if name == "train"]

    def set_thumbnail(self, view: int, picture: NDArray[np.uint8]) -> None:
        """Show a small photograph [H, W, 3] in the camera of a training view."""
        self.frusta["train", view].image = picture

    # --- the panel -------------------------------------------------------------------------------------------------

    def _add_views(self) -> None:
        gui = self.server.gui
        view = gui.add_dropdown("view", self.shown.views, initial_value=self.look.view)
        view.on_update(lambda _: self.choose(view=view.value))
        if self.shown.renderer is not None:
            size = gui.add_dropdown("pixels", SIZES, initial_value=str(self.look.size))
            size.on_update(lambda _: self.choose(size=int(size.value)))
        if SLICE in self.shown.views:
            axis = gui.add_dropdown("slice across", ("x", "y", "z"), initial_value="z")
            axis.on_update(lambda _: self.choose(axis=axis.value))
            offset = gui.add_slider("slice at", -1.0, 1.0, 0.01, 0.0)
            offset.on_update(lambda _: self.choose(offset=float(offset.value)))
        if self.frusta:
            cameras = gui.add_checkbox("cameras", True)
            cameras.on_update(lambda _: self._show_cameras(bool(cameras.value)))

    def _show_cameras(self, visible: bool) -> None:
        for handle in self.frusta.values():
            handle.visible = visible

    def choose(self, **changes: Any) -> None:
        """Look in another way, and render for all."""
        for name, value in changes.items():
            setattr(self.look, name, value)
        self._show_mesh()
        self.repaint()

    # --- who looks -------------------------------------------------------------------------------------------------

    def _come(self, client: Any) -> None:
        client.camera.on_update(lambda camera: self.paint(camera.client))
        self.paint(client)

    def _go(self, client: Any) -> None:
        self.painter.forget(client.client_id)
        memory.give_back()

    def repaint(self) -> None:
        """Render for all who look."""
        for client in self.server.get_clients().values():
            self.paint(client)

    def show(self, shown: Shown) -> None:
        """Show a newer state of the same."""
        self.shown = shown
        self.repaint()

    def paint(self, client: Any) -> None:
        """Ask for the picture of a client's camera; where the browser draws all, for none."""
        shown, look = self.shown, self.look
        if shown.renderer is None or look.view == MESH:
            self.painter.forget(client.client_id)
            client.scene.set_background_image(BLANK, depth=np.full((1, 1), NOTHING, np.float32))
            self.painted.set()
            return
        renderer = shown.slicer(look.axis, look.offset) if look.view == SLICE else shown.renderer
        camera = camera_of(pose_of(client), client.camera.fov, *self._size(client), shown.source.device)
        rays = camera.to("cpu")

        def deliver(frame: Frame, step: int) -> None:
            if client.client_id not in self.server.get_clients():
                return
            directions = directions_of(rays, 0, step).numpy()
            depth = depth_along_axis(frame, directions, rays.forward[0].numpy())
            client.scene.set_background_image(picture_of(look.view, frame, directions), format="jpeg", depth=depth)
            self.painted.set()

        self.painter.ask(client.client_id, Request(renderer, camera, deliver))

    def _size(self, client: Any) -> tuple[int, int]:
        """Width and height of a client's picture: no more pixels than its window has."""
        wide, high = max(client.camera.image_width, 1), max(client.camera.image_height, 1)
        scale = min(1.0, self.look.size / max(wide, high))
        return max(round(scale * wide), 1), max(round(scale * high), 1)


def pose_of(client: Any) -> Floats:
    """Where a client's camera is, [3, 4], OpenCV axes, scene frame."""
    turn = Rotation.from_quat(np.roll(client.camera.wxyz, -1)).as_matrix()
    return np.concatenate([turn, np.asarray(client.camera.position)[:, None]], axis=1)


def go_to(client: Any, pose: Floats) -> None:
    """Move a client's camera to a pose [3, 4], at the distance from where it looks at the middle."""
    distance = max(float(-pose[:, 3] @ pose[:, 2]), 0.5)
    with client.atomic():
        client.camera.position = pose[:, 3]
        client.camera.look_at = pose[:, 3] + distance * pose[:, 2]
        client.camera.up_direction = -pose[:, 1]


def _go_there(pose: Floats, event: Any) -> None:
    """A camera [3, 4] was clicked."""
    go_to(event.client, pose)


def key_frame(client: Any) -> KeyFrame:
    """A client's camera as it is."""
    return KeyFrame(pose_of(client), float(client.camera.fov))


def wxyz_of(pose: Floats) -> Floats:
    """The rotation of a pose [3, 4] as a quaternion [4], the real part first."""
    return np.asarray(np.roll(Rotation.from_matrix(pose[:, :3]).as_quat(), 1))


def fov_of(cameras: Cameras, index: int) -> float:
    """The vertical field of view of a camera, radians."""
    return 2 * math.atan(0.5 * float(cameras.size[index, 1]) / float(cameras.intrinsics[index, 1]))
