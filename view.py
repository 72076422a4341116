"""Look at a run, an asset or a mesh in a browser: color, shape, depth, normals, slices, cameras."""

from __future__ import annotations

import argparse
import secrets
import socket
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from engine import early
from engine.viewer import remote
from engine.viewer.guard import LOOPBACK
from utils.command_line import Parser, device, number
from utils.errors import InputError, leave_at_once, run_script

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from engine.viewer.panel import Panel
    from engine.viewer.shown import Shown
    from engine.viewer.tools import LiveTool
    from models.rendering.renderers.base import RendererConfig

MESHES = (".ply", ".obj", ".glb", ".stl")
THUMBNAIL, SMALL = 96, 32  # pixels of the longer side: of a photograph in a camera, of a picture that nobody sees
EXAMPLE = """examples:
  python view.py runs/demo
  python view.py runs/demo/meshes/mesh.ply
  python view.py runs/demo --renderer surface --port 8000

It listens on this machine alone and prints the line for ssh with which to look from another one.
--host opens it to others, who need the address with the token that is printed then. A run that is
training is shown as of its newest checkpoint, and can be paused. Ctrl-C ends it."""


def main() -> int:
    parser = Parser(__doc__, EXAMPLE)
    add = parser.add_argument
    add("shown", metavar="RUN|MESH", help="run folder, checkpoint, asset folder, or a .ply, .obj, .glb or .stl")
    add("--renderer", metavar="R", help="volume, surface, lattice, mesh or YAML; default: volume")
    add("--host", default="127.0.0.1", metavar="H", help="address to listen on; default: this machine alone")
    add("--port", type=number(int, 1024, 65535), default=7007, metavar="N", help="or the next free one; default: 7007")
    add("--thumbnails", action=argparse.BooleanOptionalAction, default=True, help="photographs in the cameras")
    add("--device", type=device, default="auto", help="auto, cpu, cuda or cuda:N")
    add("--until-eof", action="store_true", help="end with standard input, for programs that start a viewer")
    args = parser.parse()
    early.check_viewer()
    ended = end_of_input() if args.until_eof else threading.Event()
    folder = folder_of(args.shown, args.renderer, ended)

    from engine.showing import read_renderer
    from engine.viewer.shown import open_to_view

    config = read_renderer(args.renderer) if args.renderer else None
    live = (folder / "config.yaml").is_file() and remote.is_training(folder)
    shown = open_to_view(Path(args.shown), config, args.device)
    panel = served(args, shown)
    if live:  # from now on; the start alone should not take minutes
        be_modest()
    training = add_tools(panel, folder, config, args.thumbnails and not live) if shown.run is not None else None
    try:
        ended.wait()
    finally:
        if training is not None:
            training.end()
        leave_at_once()  # a picture may be in the making
    return 0


def end_of_input() -> threading.Event:
    """An event that is set when standard input ends."""
    ended = threading.Event()

    def read() -> None:
        while sys.stdin.buffer.read(1 << 16):
            pass
        ended.set()

    threading.Thread(target=read, daemon=True, name="input").start()
    return ended


def folder_of(shown: str, renderer: str | None, ended: threading.Event) -> Path:
    """The folder of a run, an asset or a mesh. Raises InputError for what shows before anything is loaded.

    Waits for the first checkpoint of a run that is training, until `ended`.
    """
    path = Path(shown)
    if renderer:
        early.check_renderer(renderer)
    if path.suffix.lower() in MESHES:
        if not path.is_file():
            raise InputError(f"{path}: no such file - expected a mesh or a run folder")
        return path.parent
    if (path / "asset.json").is_file():
        return path
    remote.await_checkpoint(early.run_folder(path), ended)
    return early.check_run(path)


def be_modest() -> None:
    """Leave the processor to a training on this machine."""
    import os

    import torch

    os.nice(19)
    torch.set_num_threads(1)


def served(args: argparse.Namespace, shown: Shown) -> Panel:
    """The viewer, listening; prints where. Raises InputError where it cannot be."""
    from engine.viewer.guard import Guard
    from engine.viewer.panel import Panel
    from engine.viewer.server import start_server

    # A client may go while its picture is made.
    warnings.filterwarnings("ignore", "Queued a .* on a closed connection")
    token = None if args.host in LOOPBACK else secrets.token_urlsafe(24)
    rate = warm_up(shown)
    server = start_server(args.host, args.port, Guard.of(args.host, token), Path(args.shown).name)
    panel = Panel(server, shown)
    panel.painter.rate = rate or panel.painter.rate
    print(places(args.host, server.get_port(), token), flush=True)
    return panel


def warm_up(shown: Shown) -> float | None:
    """Compile what is compiled at the first picture, before anybody waits for one.

    Returns how many rays a second are rendered since, so that the first picture is as coarse as it must be; None where
    the browser draws all.
    """
    if shown.renderer is None:
        return None
    small = shown.source.cameras[:1].scaled(SMALL / float(shown.source.cameras.size[0].max()))
    shown.renderer(small, 0)
    begun = time.perf_counter()
    shown.renderer(small, 0)
    return int(small.size[0].prod()) / max(time.perf_counter() - begun, 1e-6)


def places(host: str, port: int, token: str | None) -> str:
    """Where to look, and from another machine how."""
    if token is None:
        name = socket.gethostname()
        return f"http://127.0.0.1:{port}\nfrom another machine: ssh -L {port}:127.0.0.1:{port} {name}, then the same"
    address = f"[{host}]" if ":" in host else host
    return f"http://{address}:{port}/?token={token}\nwho knows this address sees and steers the viewer"


def add_tools(panel: Panel, folder: Path, config: RendererConfig | None, thumbnails: bool) -> LiveTool:
    """What a run has beside pictures; returns what watches its training."""
    from engine.viewer.shown import reopened
    from engine.viewer.tools import CropTool, LiveTool, PathTool

    PathTool(panel, folder)
    CropTool(panel, folder)
    if thumbnails:
        threading.Thread(target=show_photographs, args=(panel,), daemon=True).start()
    return LiveTool(panel, folder, lambda: reopened(panel.shown, folder, config))


def show_photographs(panel: Panel) -> None:
    """Put the photographs into the cameras, where the data are still there; a convenience, so no failure.

    They are read once somebody looks, and after the first picture, which they would make wait.
    """
    panel.painted.wait()
    run = panel.shown.run
    assert run is not None
    try:
        scene = run.load_scene()
        for view in panel.train_views():
            panel.set_thumbnail(view, small(scene.images[int(run.splits["train"][view])]))
    except Exception as error:
        print(f"no photographs in the cameras: {error}", flush=True)


def small(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A thumbnail of a picture [H, W, 3]."""
    from dataio.pictures.images import resized

    scale = min(1.0, THUMBNAIL / max(picture.shape[:2]))
    size = max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale))
    return resized(picture, size)


if __name__ == "__main__":
    run_script(main)
