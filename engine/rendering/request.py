"""What is asked of a rendering, and the session that makes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from dataio.cameras import Cameras
from engine.rendering.along import one_size, resized
from engine.rendering.modes import MODES
from engine.rendering.outputs import DEPTH_SUFFIXES, check_outputs, depth_scale
from engine.rendering.painter import Painter, whole_depth_range
from engine.rendering.photographs import PhotographRenderer, photographs
from engine.rendering.session import Session
from engine.rendering.work import Work, digest
from engine.showing import Shown
from models.rendering.frames import size_of
from models.rendering.renderers.base import Renderer, RendererConfig
from models.rendering.renderers.mesh import MeshRendererConfig, OfMesh
from models.rendering.renderers.wireframe import WireframeRendererConfig
from utils.errors import InputError
from utils.paths.base import CameraPath
from utils.pictures.sheets import columns_for, screen_height, sheet_size

OF_MESH: dict[str, type[OfMesh]] = {"mesh": MeshRendererConfig, "wireframe": WireframeRendererConfig}


@dataclass(frozen=True)
class Request:
    """modes: of the panels. outs: files and folders, one at least. size, scale: of a panel, None: what suits.

    columns: of panels, None: what suits. depth: the folder of depth files, None: none.
    """

    modes: tuple[str, ...]
    outs: Sequence[Path]
    size: tuple[int, int] | None = None
    scale: float | None = None
    columns: int | None = None
    depth: Path | None = None

    @property
    def folder(self) -> Path | None:
        """Where the frames are to stay, if anywhere. Raises InputError for two such folders, or that of the depths."""
        folders = [out for out in self.outs if not out.suffix or out.is_dir()]
        if len(folders) > 1:
            raise InputError(f"--out: {folders[1]} - {folders[0]} holds the pictures already - expected one folder")
        if folders and self.depth is not None and folders[0].absolute() == self.depth.absolute():
            raise InputError(f"--depth: {self.depth} - the pictures go there - expected another folder")
        return folders[0] if folders else None

    def sized(self, cameras: Cameras, path: CameraPath) -> tuple[Cameras, int]:
        """The cameras in their sizes, and in how many columns panels stand."""
        count = len(self.modes)
        columns = min(self.columns or columns_for(count, *(self.size or size_of(cameras, 0))), count)
        own = path.anywhere or path.views is not None  # a path file, and photographs, have their size
        height = int(cameras.size[0, 1])
        suits = 1.0 if own else screen_height(height, count, columns) / height
        return resized(cameras, self.size, self.scale or suits), columns


def session_of(request: Request, shown: Shown, config: RendererConfig, path: CameraPath, cameras: Cameras) -> Session:
    """Everything built that the frames need. Raises InputError for what does not fit together."""
    cameras, columns = request.sized(cameras, path)
    sizes = {sheet_size(*size_of(cameras, i), len(request.modes), columns) for i in _different(cameras)}
    check_outputs(request.outs, len(cameras), sizes)
    compares = any(MODES[name].photograph for name in request.modes)
    beside = photographs(shown.run, path.views, cameras) if compares else None
    renderers = _renderers(request, shown, config, beside)
    unit = float(np.cbrt(np.linalg.det(shown.source.world_from_scene[:3, :3])))
    span = whole_depth_range(shown.renderer, cameras) if "depth" in request.modes else (0.0, 1.0)
    truth = None if beside is None else (lambda index: beside.picture(cameras, index))
    painter = Painter(renderers, cameras, request.modes, span, unit, truth, request.depth is not None)
    scale = depth_scale(unit * (float(cameras.centers.norm(dim=1).max()) + 1.0))
    names = frame_names(shown, path)
    text = [config.model_dump_json(), ",".join(request.modes), str(columns)]
    known = digest(shown.source, cameras, text, _files(shown, config, request))
    pictures = Work(request.folder or hidden(request.outs[0]), names, (".png",), known)
    depths = None if request.depth is None else Work(request.depth, names, DEPTH_SUFFIXES, known)
    units = "unknown" if shown.run is None or shown.run.georeference is None else "m"
    return Session(painter, pictures, depths, columns, scale, units, request.folder is not None)


def said(request: Request, session: Session, there: int, fps: float) -> str:
    """The last line: what was made, of what size."""
    cameras = session.painter.cameras
    count, modes = len(cameras), ", ".join(request.modes)
    width, height = sheet_size(*size_of(cameras, 0), len(request.modes), session.columns)
    size = f"{width} x {height}" if one_size(cameras) else "several sizes"
    before = f", {there} of them were there" if there else ""
    depth = "" if request.depth is None else f"; {request.depth}: z depth"
    outs = ", ".join(map(str, request.outs))
    frames = "1 frame" if count == 1 else f"{count} frames"
    return f"{outs}: {size}, {frames}{before}, {count / fps:.1f} s, {modes}{depth}"


def frame_names(shown: Shown, path: CameraPath) -> list[str]:
    """Names of the frames' files: numbers, or what photographs are called."""
    numbers = [f"{index:05d}" for index in range(len(path))]
    if path.views is None or shown.run is None:
        return numbers
    names = [shown.run.names[view] for view in path.views]
    for forms in ([PurePath(name).stem for name in names], [str(PurePath(name).with_suffix("")) for name in names]):
        flat = [form.replace("/", "_") for form in forms]
        if max(Counter(flat).values()) == 1:
            return flat
    return numbers


def hidden(out: Path) -> Path:
    """The folder of frames that only lead to a file."""
    return out.with_name(f".{out.name}.frames")


def _different(cameras: Cameras) -> list[int]:
    """One index for each size of picture."""
    return list({tuple(size): index for index, size in enumerate(cameras.size.tolist())}.values())


def _renderers(
    request: Request, shown: Shown, config: RendererConfig, beside: PhotographRenderer | None
) -> dict[str | None, Renderer]:
    """Those that the modes need, by name; of the mesh that the chosen renderer shows, where it shows one."""
    found: dict[str | None, Renderer] = {None: shown.renderer}
    path = config.path if isinstance(config, OfMesh) else None
    for by in {MODES[name].by for name in request.modes} - {None}:
        if by in OF_MESH:
            found[by] = OF_MESH[by](path=path).build(shown.source)
        elif beside is not None:
            found[by] = beside
    return found


def _files(shown: Shown, config: RendererConfig, request: Request) -> list[Path]:
    """Files that the frames depend on, beside the model."""
    files = [shown.source.folder / "asset.json"] if shown.run is None else []
    mesh = config.path if isinstance(config, OfMesh) else None
    if isinstance(config, OfMesh) or any(MODES[name].by in OF_MESH for name in request.modes):
        files.append(mesh or shown.source.meshes / "mesh.ply")
    beside = [files[-1].with_suffix(suffix) for suffix in (".mtl", ".png")] if mesh and mesh.suffix == ".obj" else []
    return files + [path for path in beside if path.is_file()]
