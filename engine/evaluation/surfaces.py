"""Surfaces against what is known to be true: which protocol, which truth, and what looked at the place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from dataio.pictures.images import UInt8
from dataio.recognition import AutoData
from dataio.scene import DataConfig, Scene
from dataio.visibility import times_seen
from engine.early import part_override
from engine.evaluation.pictures import SEEN_MARGIN
from engine.protocols.base import Floats, ProtocolConfig, Scored, Sight, Subject, error_colors
from engine.protocols.generic import GenericProtocol
from engine.run import Run
from utils.config.loading import from_command_line
from utils.config.parts import Choice, StrictModel, discover
from utils.errors import InputError
from utils.evaluation.height_metrics import compare_heights, reference_points
from utils.meshing.mesh import read_mesh, with_colors, write_mesh

discover("engine.protocols")  # a protocol is found by lying in its folder


class ScoringConfig(StrictModel):
    """How a surface is scored."""

    protocol: Choice[ProtocolConfig] = GenericProtocol()


def read_protocol(text: str | None) -> ProtocolConfig:
    """A protocol's config from its name, or from a YAML mapping with its `type`; None: the generic one.

    Raises InputError for an unknown one, and for wrong keys.
    """
    if text is None:
        return GenericProtocol()
    return from_command_line([part_override(text, "protocol")], ScoringConfig).protocol


def sight_of(scene: Scene) -> Sight:
    """What a scene's cameras saw; masks are those of the scene."""
    scale = float(np.cbrt(np.linalg.det(scene.world_from_scene[:3, :3])))
    scene_from_world = np.linalg.inv(scene.world_from_scene)

    def seen(points: Floats) -> NDArray[np.int64]:
        inside = points @ scene_from_world[:3, :3].T + scene_from_world[:3, 3]
        return times_seen(scene, scene.splits["train"], inside, margin=SEEN_MARGIN / scale)

    def masks() -> Sequence[UInt8] | None:
        return scene.masks

    return Sight(scene.cameras.transformed(scene.world_from_scene), scene.splits["train"], masks, seen)


def sight_of_data(path: str) -> Callable[[], Sight]:
    """What the cameras of a data set saw, read with masks and depths when it is asked for."""

    @lru_cache(maxsize=1)
    def read() -> Sight:
        config: DataConfig = AutoData(path=path)
        return sight_of(config.load())

    return read


def score_surface(
    run: Run | None, mesh: Path, reference: Path, protocol: ProtocolConfig, sight: Callable[[], Sight] | None
) -> Scored:
    """Score a mesh, in world units, by a protocol. Raises InputError."""
    up = None if run is None else run.up
    return protocol.score(Subject(read_mesh(mesh, up=up), reference, up, sight))


def score_against_scene(run: Run, scene: Scene, mesh: Path | None, protocol: ProtocolConfig) -> Scored | None:
    """Score a mesh (None: the run's) against the scene's own true surface, which is also kept beside the run's meshes.

    None where the data know no true surface, or no mesh was extracted yet. Raises InputError for a mesh that was named
    and has nothing to be compared with.
    """
    truth = known_surface(run, scene)
    if truth is None:
        if mesh is not None:
            raise InputError(f"{mesh}: the data know no true surface to compare with - give --reference")
        return None
    path = mesh or own_mesh(run.folder)
    if mesh is None and not path.is_file():
        print(f"no mesh to measure: python extract_mesh.py {run.folder}")
        return None
    if not isinstance(protocol, GenericProtocol):
        raise InputError("--protocol: the data know a true mesh only - expected --reference with the protocol's files")
    return protocol.against(read_mesh(path, up=run.up), truth)


def known_surface(run: Run, scene: Scene) -> trimesh.Trimesh | None:
    """The scene's own true surface, world units, kept beside the run's meshes."""
    if scene.reference is None:
        return None
    truth = scene.reference()
    write_mesh(run.folder / "meshes" / "reference.ply", truth)
    return truth


def own_mesh(folder: Path) -> Path:
    """The mesh of a run, where extract_mesh.py puts it."""
    return folder / "meshes" / "mesh.ply"


def measure_heights(run: Run | None, mesh: Path, heights: Path) -> dict[str, Any]:
    """Vertical errors of a mesh's uppermost surface, world units, z up. Raises InputError without a mesh."""
    surface = read_mesh(mesh, up=None if run is None else run.up)
    return {"file": mesh.name, **compare_heights(surface, reference_points(heights)).as_dict()}


def write_errors(path: Path, scored: Scored) -> None:
    """Write the mesh that was scored with the colors of its errors."""
    mesh = trimesh.Trimesh(scored.mesh.vertices, scored.mesh.faces, process=False)
    write_mesh(path, with_colors(mesh, error_colors(scored)))
