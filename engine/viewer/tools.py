"""What one does in the viewer beside looking: a camera path by key frames, a crop box, a training that is watched."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.viewer import remote
from engine.viewer.keyframes import KeyFrame, path_through, write_next
from engine.viewer.panel import RED, THIN, Panel, key_frame, wxyz_of
from utils.commands import words_of
from utils.errors import StorageError, first_line, printable

Floats = NDArray[np.float64]
LOOK_EVERY = 2.0  # seconds between two looks for a newer checkpoint
CORNERS = 0.6  # scene units, of the crop box at first


class PathTool:
    """Key frames, and the file of a path through them."""

    def __init__(self, panel: Panel, folder: Path) -> None:
        self.panel, self.folder = panel, folder
        self.keys: list[KeyFrame] = []
        self.marks: list[Any] = []
        gui = panel.server.gui
        with gui.add_folder("camera path", expand_by_default=False):
            gui.add_button("add key frame").on_click(lambda event: self.add(key_frame(event.client)))
            gui.add_button("remove the last").on_click(lambda _: self.remove())
            self.seconds = gui.add_number("seconds", 4.0, min=0.1, max=3600.0)
            self.fps = gui.add_number("frames per second", 20.0, min=0.1, max=240.0)
            gui.add_button("write the path").on_click(lambda event: self.write(event.client))
            self.said = gui.add_markdown("no key frames")

    def add(self, key: KeyFrame) -> None:
        """Take a camera as the next key frame, and mark it."""
        self.keys.append(key)
        name = f"/path/{len(self.keys)}"
        look: dict[str, Any] = {"wxyz": wxyz_of(key.pose), "position": key.pose[:, 3], "color": RED, **THIN}
        self.marks.append(self.panel.server.scene.add_camera_frustum(name, key.fov, 1.5, scale=0.06, **look))
        self.said.content = f"{len(self.keys)} key frames"

    def remove(self) -> None:
        """Drop the last key frame."""
        if self.keys:
            self.keys.pop()
            self.marks.pop().remove()
        self.said.content = f"{len(self.keys)} key frames"

    def write(self, client: Any) -> None:
        """Write the path, and say how it is rendered."""
        if len(self.keys) < 2:
            self.said.content = "a path needs two key frames"
            return
        frames = max(2, round(float(self.seconds.value) * float(self.fps.value)))
        width, height = client.camera.image_width // 2 * 2, client.camera.image_height // 2 * 2
        path = path_through(self.keys, frames, (width, height), self.panel.shown.source.world_from_scene)
        try:
            place = write_next(self.folder / "paths", path, float(self.fps.value))
        except StorageError as error:
            self.said.content = code(str(error))
            return
        self._say(shlex.join([*words_of("render.py"), str(self.folder), "--path", str(place)]))

    def _say(self, command: str) -> None:
        print(command, flush=True)
        self.said.content = code(command)


class CropTool:
    """A box in the scene, and the argument with which extract_mesh.py keeps what is in it."""

    def __init__(self, panel: Panel, folder: Path) -> None:
        self.panel, self.folder = panel, folder
        self.box: Any = None
        gui = panel.server.gui
        with gui.add_folder("crop box", expand_by_default=False):
            self.shown = gui.add_checkbox("show", False)
            start: dict[str, Any] = {"min": (-1.0,) * 3, "max": (1.0,) * 3, "step": 0.01}
            self.low = gui.add_vector3("from", (-CORNERS,) * 3, **start)
            self.high = gui.add_vector3("to", (CORNERS,) * 3, **start)
            self.said = gui.add_markdown("")
        for handle in (self.shown, self.low, self.high):
            handle.on_update(lambda _: self.draw())

    def draw(self) -> None:
        """Show the box, and say what it means in the world."""
        low, high = (np.array(handle.value, np.float64) for handle in (self.low, self.high))
        low, high = np.minimum(low, high), np.maximum(low, high)
        size = np.maximum(high - low, 1e-3)
        if self.box is not None:
            self.box.remove()
        self.box = self.panel.server.scene.add_box(
            "/crop", (200, 30, 30), tuple(size), wireframe=True, position=(low + high) / 2, visible=self.shown.value
        )
        self.said.content = code(crop_command(self.folder, low, high, self.panel.shown.source.world_from_scene))


def crop_command(folder: Path, low: Floats, high: Floats, world_from_scene: Floats) -> str:
    """The command that extracts what lies in a box of the scene frame: in the world, the box around its corners."""
    ends = np.array(np.meshgrid(*zip(low, high, strict=True), indexing="ij")).reshape(3, -1).T
    world = ends @ world_from_scene[:3, :3].T + world_from_scene[:3, 3]
    numbers = ",".join(f"{value:.7g}" for value in (*world.min(0), *world.max(0)))
    return shlex.join([*words_of("extract_mesh.py"), str(folder), f"--crop={numbers}"])


class LiveTool:
    """A training that goes on: its newest checkpoint is shown; it can be paused and asked for a checkpoint."""

    def __init__(self, panel: Panel, folder: Path, reopen: Callable[[], Any]) -> None:
        """reopen: the newest state of what is shown; may raise."""
        self.panel, self.folder, self.reopen = panel, folder, reopen
        self.newest, self.pausing, self.ended = self._latest(), False, threading.Event()
        gui = panel.server.gui
        with gui.add_folder("training"):
            self.said = gui.add_markdown("")
            self.pause = gui.add_button("pause")
            self.pause.on_click(lambda _: self.switch())
            self.save = gui.add_button("checkpoint now")
            self.save.on_click(lambda _: remote.ask_to_save(folder))
        self.say()
        threading.Thread(target=self._watch, daemon=True, name="watch").start()

    def _latest(self) -> str:
        try:
            return (self.folder / "checkpoints" / "latest").read_text("utf-8").strip()
        except OSError:
            return ""

    def say(self) -> None:
        """Say how the training is; one that does not run cannot be asked for anything."""
        runs = remote.is_training(self.folder)
        state = "not running" if not runs else "paused" if self.pausing else "running"
        for button in (self.pause, self.save):
            if button.disabled is runs:
                button.disabled = not runs
        if self.said.content != (words := f"{state}; shown: {code(self.newest)}"):
            self.said.content = words

    def switch(self) -> None:
        """Pause, or go on."""
        self.pausing = not self.pausing
        if self.pausing:
            remote.ask_to_save(self.folder)
            remote.ask_to_pause(self.folder)
        else:
            remote.let_go_on(self.folder)
        self.pause.label = "resume" if self.pausing else "pause"
        self.say()

    def _watch(self) -> None:
        while not self.ended.wait(LOOK_EVERY):
            if self.pausing:
                remote.ask_to_pause(self.folder)
            self.say()
            self.refresh()

    def end(self) -> None:
        """Look no more; a training that was paused goes on."""
        self.ended.set()
        if self.pausing:
            self.switch()

    def refresh(self) -> None:
        """Show a newer checkpoint, if there is one; one that cannot be read, as while it is replaced, is left out."""
        latest = self._latest()
        if latest == self.newest:
            return
        try:
            self.panel.show(self.reopen())
            self.newest = latest
        except Exception as error:  # the next one may be sound
            print(f"warning: {printable(first_line(error))}", flush=True)


def code(words: str) -> str:
    """Text as it is in the panel, which reads Markdown."""
    return f"`{printable(words).replace('`', '')}`"
