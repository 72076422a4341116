"""What training views say of a mesh: colors as they saw it, and which of it none of them saw."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from dataio.views import evenly_chosen
from models.kernels.rays.cast import Triangles
from models.rendering.visible import Seen, Sight, ranked, who_sees

if TYPE_CHECKING:
    import trimesh

    from engine.run import Run

MOST_VIEWS = 64  # that are asked, evenly chosen
AT_ONCE = 1 << 15  # vertices
CAP = 0.985  # scene units: from here on a vertex lies where the unit sphere closed the surface


def triangles_of(mesh: trimesh.Trimesh) -> Triangles:
    """A mesh to cast rays at, on the CPU."""
    vertices, faces = np.array(mesh.vertices, np.float32), np.array(mesh.faces, np.int32)
    return Triangles(torch.from_numpy(vertices), torch.from_numpy(faces))


def asked_views(run: Run, most: int = MOST_VIEWS) -> npt.NDArray[np.int64]:
    """The training views that are asked about a mesh, evenly chosen where there are more than `most`."""
    train = run.splits["train"]
    return train[evenly_chosen(len(train), most)]


def corners_of(mesh: trimesh.Trimesh) -> tuple[torch.Tensor, torch.Tensor]:
    """Vertices [V, 3] of a mesh and their outward normals [V, 3], float32, on the CPU."""
    vertices, normals = (torch.from_numpy(np.array(x, np.float32)) for x in (mesh.vertices, mesh.vertex_normals))
    return vertices, normals


def sights_of(run: Run, mesh: trimesh.Trimesh, cell: float) -> Iterator[Sight]:
    """What each of the asked training views in turn sees of the vertices of a mesh in the scene frame; on the CPU.

    cell: size of its triangles, scene units.
    """
    cameras = run.cameras.to("cpu")[torch.from_numpy(asked_views(run))]
    return who_sees(*corners_of(mesh), triangles_of(mesh), cameras, margin=2 * cell)


def views_of(run: Run, mesh: trimesh.Trimesh, sights: Iterable[Sight]) -> Seen:
    """Which training views see the vertices of a mesh; sights: of it, by `sights_of`."""
    chosen, (vertices, _) = asked_views(run), corners_of(mesh)
    found = ranked(vertices, run.cameras.to("cpu")[torch.from_numpy(chosen)], sights)
    numbers = torch.from_numpy(np.append(chosen, -1))
    return Seen(numbers[found.best], found.count)


@torch.no_grad()
def colors_as_seen(run: Run, mesh: trimesh.Trimesh, seen: Seen) -> npt.NDArray[np.float32]:
    """[V, 3] in [0, 1]: the median of a vertex's colors along the views that see it best.

    The color of a field means something along directions that cameras had; a vertex that none sees is asked along its
    normal. mesh: scene frame.
    """
    vertices, normals = (np.array(x, np.float32) for x in (mesh.vertices, mesh.vertex_normals))
    colors = []
    for part in torch.arange(len(vertices)).split(AT_ONCE):
        x = torch.from_numpy(vertices[part]).to(run.device)
        along = torch.from_numpy(normals[part]).to(run.device)
        colors.append(field_colors(run, x, along, seen.best[part].to(run.device)).cpu())
    return np.asarray(torch.cat(colors).numpy())


@torch.no_grad()
def field_colors(run: Run, x: torch.Tensor, normals: torch.Tensor, best: torch.Tensor) -> torch.Tensor:
    """[N, 3]: the median of a point's colors along the views best [N, B] that see it, along its normal without any.

    x: [N, 3] scene frame, normals: [N, 3], outward, on the run's device. best: views, -1 where there are fewer.
    """
    found = torch.full((len(x), best.shape[1], 3), torch.nan, device=x.device)
    for column in range(best.shape[1]):
        known = (best[:, column] >= 0).nonzero()[:, 0]
        ways = F.normalize(x[known] - run.cameras.centers[best[known, column]], dim=-1)
        found[known, column] = run.surface_color(x[known], ways)
    unseen = (best[:, 0] < 0).nonzero()[:, 0]
    found[unseen, 0] = run.surface_color(x[unseen], -F.normalize(normals[unseen], dim=-1))
    return found.nanquantile(0.5, dim=1)


def without_caps(run: Run, mesh: trimesh.Trimesh, seen: Seen) -> tuple[npt.NDArray[np.bool_], float]:
    """Which faces [F] are kept when the surface is left open where the unit sphere closed it, and the share of the area
    that goes.

    What closes a solid that goes on beyond the sphere is no surface; with it go the unseen faces that are joined to it,
    the skirts of a scene seen from one side. The unseen underside of an object stays. mesh: scene frame.
    """
    vertices = np.array(mesh.vertices, np.float32)
    radius = np.linalg.norm(vertices, axis=1, keepdims=True)
    far = np.flatnonzero(radius[:, 0] > CAP)
    at_sphere = np.zeros(len(vertices), dtype=bool)
    at_sphere[far] = (run.surface_value(torch.from_numpy(vertices[far] / radius[far])) < 0).cpu().numpy()
    cap = np.asarray(at_sphere[mesh.faces].all(1))
    unseen = np.asarray((seen.count == 0).numpy()[mesh.faces].all(1))
    keep = ~_reached(mesh, unseen | cap, cap)
    area = mesh.area_faces
    return keep, float(area[~keep].sum() / max(area.sum(), 1e-30))


def _reached(mesh: trimesh.Trimesh, among: npt.NDArray[np.bool_], start: npt.NDArray[np.bool_]) -> npt.NDArray[Any]:
    """[F] bool: faces of `among` [F] that are joined, edge by edge, to those of `start` [F]."""
    pairs = mesh.face_adjacency[among[mesh.face_adjacency].all(1)]
    both = np.concatenate([pairs, pairs[:, ::-1]])
    both = both[np.argsort(both[:, 0], kind="stable")]
    first = np.searchsorted(both[:, 0], np.arange(len(among) + 1))
    found, going = start.copy(), deque(np.flatnonzero(start).tolist())
    while going:
        face = going.popleft()
        for other in both[first[face] : first[face + 1], 1].tolist():
            if not found[other]:
                found[other] = True
                going.append(other)
    return found
