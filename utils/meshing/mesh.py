"""Surfaces as triangle meshes: extracted from a function, cleaned of crumbs, read and written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from utils.errors import InputError
from utils.files import replacing, write_bytes
from utils.meshing.glb import read_glb, write_glb, y_up
from utils.meshing.lattice import Field, Lattice, Region, Values, lattice_surface
from utils.meshing.ply import VertexRows, write_ply
from utils.meshing.scales import extent, float32_offset, seamless_normals, smooth_normals
from utils.meshing.welding import Welder, components

FORMATS = (".ply", ".obj", ".glb", ".stl")
Texture = tuple[NDArray[np.floating], NDArray[np.uint8]]
Keep = str | float


def extract_surface(
    value: Values,
    *,
    resolution: int,
    extent: float = 1.0,
    radius: float | None = None,
    safety: float = 1.5,
    batch: int = 1 << 16,
    solid_beyond: bool = False,
    region: Region | None = None,
) -> trimesh.Trimesh:
    """Mesh of a function's zero level, by marching cubes on `resolution`^3 points over [-extent, extent]^3.

    value: points [N, 3] float32 -> [N], positive outside; any units, its slope is measured. radius: places
    farther from the origin count as outside, which closes the mesh at that sphere, and the function is not
    called there; solid_beyond: they count as inside, as around a room, which is a hollow in a solid.
    safety: factor on the steepest slope between points eight apart, when a region is passed over for being far
    from zero; infinity evaluates every point. A surface that neither changes a sign there
    nor comes within the margin is missed. batch: points per call. region: faces beyond it are left out.
    Returns vertices in the function's units, float64, faces counter-clockwise from outside; closed wherever
    the surface does not leave the cube. Raises InputError when there is no surface or a value is not finite,
    ValueError for a resolution below 2. Source: Lorensen and Cline 1987.
    """
    if resolution < 2 or extent <= 0.0:
        raise ValueError(f"resolution >= 2 and extent > 0 expected, got {resolution} and {extent}")
    field = Field(value, Lattice(resolution, extent), radius=radius, batch=batch, solid_beyond=solid_beyond)
    found = list(lattice_surface(field, Welder(resolution), safety=safety, region=region))
    if not found:
        raise no_surface()
    vertices = np.concatenate([piece.vertices for piece in found])
    return trimesh.Trimesh(vertices, np.concatenate([piece.welded.faces for piece in found]), process=False)


def no_surface() -> InputError:
    """What is said where a function has no zero level."""
    return InputError(
        "surface - the field has one sign everywhere, so there is no surface yet - train longer or check "
        "that the scene's center and radius enclose the object"
    )


def keep_pieces(mesh: trimesh.Trimesh, keep: Keep, most: int | None = None) -> tuple[trimesh.Trimesh, int]:
    """The mesh without its small connected pieces, and how many were dropped; see `kept_pieces`. Colors are dropped."""
    if keep == "all" and most is None:
        return mesh, 0
    piece = pieces(mesh)
    kept = kept_pieces(np.bincount(piece, weights=mesh.area_faces), keep, most)
    return submesh(mesh, kept[piece]), int(len(kept) - kept.sum())


def kept_pieces(area: NDArray[Any], keep: Keep, most: int | None = None) -> NDArray[np.bool_]:
    """[P] bool: which of the pieces with areas [P] are kept.

    keep: "all", "largest" (by area), or the least area of a piece as a share of the largest one's, 0 to 1. most: how
    many of the largest, None for all of these. Raises ValueError for other values.
    """
    if keep not in ("all", "largest") and not (isinstance(keep, float) and 0.0 <= keep <= 1.0):
        raise ValueError(f"keep: 'all', 'largest' or a share from 0 to 1 expected, got {keep!r}")
    if most is not None and most < 1:
        raise ValueError(f"most: 1 or more expected, got {most}")
    kept = area >= (area.max(initial=0.0) * keep if isinstance(keep, float) else 0.0)
    rank = np.empty(len(area), np.int64)
    rank[np.argsort(-area, kind="stable")] = np.arange(len(area))
    return kept & (rank < (1 if keep == "largest" else most or len(area)))


def pieces(mesh: trimesh.Trimesh) -> NDArray[np.integer]:
    """[F] the number, from 0, of the connected piece of each face; faces connect through shared vertices."""
    faces = np.asarray(mesh.faces)
    label = components(faces, len(mesh.vertices))
    _, piece = np.unique(label[faces[:, 0]], return_inverse=True)
    return piece


def submesh(mesh: trimesh.Trimesh, chosen: NDArray[np.bool_]) -> trimesh.Trimesh:
    """The chosen faces, [F] bool, with the vertices that they use, in the old order."""
    faces = np.asarray(mesh.faces)[chosen]
    used, number = np.unique(faces, return_inverse=True)
    return trimesh.Trimesh(mesh.vertices[used], number.reshape(-1, 3), process=False)


def transformed(mesh: trimesh.Trimesh, similarity: ArrayLike) -> trimesh.Trimesh:
    """A copy of the mesh moved by a similarity [4, 4]; mirrored faces are turned, to stay outward."""
    matrix = np.asarray(similarity, np.float64)
    vertices = mesh.vertices @ matrix[:3, :3].T + matrix[:3, 3]
    faces = mesh.faces if np.linalg.det(matrix[:3, :3]) > 0 else mesh.faces[:, ::-1]
    moved = trimesh.Trimesh(vertices, faces, process=False)
    texture = texture_of(mesh)
    return with_colors(moved, vertex_colors(mesh)) if texture is None else with_texture(moved, *texture)


def simplified(mesh: trimesh.Trimesh, faces: int) -> trimesh.Trimesh:
    """A mesh of at most so many faces, or about so many where it cannot have fewer; itself where it has no more.

    Source: Garland and Heckbert 1997.
    """
    import fast_simplification

    if len(mesh.faces) <= faces:
        return mesh
    given = np.asarray(mesh.vertices, np.float32), np.asarray(mesh.faces, np.int32)
    vertices, corners = fast_simplification.simplify(*given, target_count=faces)
    return trimesh.Trimesh(vertices, corners, process=False)


def simplified_among(
    mesh: trimesh.Trimesh, chosen: NDArray[np.bool_], faces: int
) -> tuple[trimesh.Trimesh, NDArray[np.bool_]]:
    """The mesh with its chosen faces [F] `simplified`, which come first, and the others as they are; and which [F']
    these are. Between the two it is not joined any more.
    """
    part, rest = simplified(submesh(mesh, chosen), faces), submesh(mesh, ~chosen)
    joined = np.concatenate([part.faces, np.asarray(rest.faces) + len(part.vertices)])
    vertices = np.concatenate([part.vertices, rest.vertices])
    return trimesh.Trimesh(vertices, joined, process=False), np.arange(len(joined)) < len(part.faces)


def vertex_colors(mesh: trimesh.Trimesh) -> NDArray[np.uint8] | None:
    """RGBA of the vertices, [V, 4] uint8, or None when the mesh has none of its own."""
    visual = mesh.visual
    if isinstance(visual, trimesh.visual.ColorVisuals) and visual.kind == "vertex":
        return np.asarray(visual.vertex_colors, np.uint8)
    return None


def texture_of(mesh: trimesh.Trimesh) -> Texture | None:
    """Coordinates [V, 2] in a picture, from the bottom left, and the picture [H, W, 3]; None where there is none."""
    visual = mesh.visual
    if not isinstance(visual, trimesh.visual.TextureVisuals) or visual.uv is None:
        return None
    material = visual.material
    picture = getattr(material, "baseColorTexture", None) or getattr(material, "image", None)
    return None if picture is None else (np.asarray(visual.uv), np.asarray(picture.convert("RGB")))


def with_texture(
    mesh: trimesh.Trimesh, uv: NDArray[np.floating], picture: NDArray[np.uint8], name: str = "photographs"
) -> trimesh.Trimesh:
    """The same mesh, not a copy, with a picture [H, W, 3] at coordinates [V, 2], `texture_of`. name: of its look."""
    whole, none = [255, 255, 255, 255], [0, 0, 0, 255]  # an .obj is drawn with the picture times the diffuse color
    material = trimesh.visual.material.SimpleMaterial(Image.fromarray(picture), whole, whole, none, name=name)
    mesh.visual = trimesh.visual.TextureVisuals(uv=uv, material=material)
    return mesh


def with_colors(mesh: trimesh.Trimesh, colors: NDArray[np.uint8] | None) -> trimesh.Trimesh:
    """The same mesh, not a copy, with vertex colors [V, 3] or [V, 4]; None leaves it as it is."""
    if colors is not None:
        mesh.visual = trimesh.visual.ColorVisuals(mesh, vertex_colors=colors)
    return mesh


def write_mesh(
    path: Path, mesh: trimesh.Trimesh, *, up: ArrayLike = (0.0, 0.0, 1.0), meters_per_unit: float | None = None
) -> None:
    """Write .ply (binary), .obj, .glb or .stl with vertex normals and colors, if any, whole or not at all.

    An .obj or .glb has the mesh's texture, an .obj in NAME.png, which NAME.mtl names. An .stl is shape alone.

    Vertices keep their frame, and their precision wherever in the world and however small they are: a .ply has doubles
    where it needs them, an .obj the digits, a .glb an offset (`glb.write_glb`), an .stl the same offset. up: [3], the
    direction of the frame that the node of a .glb turns into +Y. meters_per_unit: None where it is unknown; said in a
    .glb, which counts in meters. Raises InputError for other suffixes and for vertices that are not finite,
    StorageError where the disk refuses.
    """
    check_suffix(path)
    if not np.isfinite(mesh.vertices).all():
        raise InputError(f"{path}: the mesh has vertices that are not finite, nothing was written")
    colors, texture = vertex_colors(mesh), texture_of(mesh)
    normals = smooth_normals(mesh) if texture is None else seamless_normals(mesh)
    whole = trimesh.Trimesh(mesh.vertices, mesh.faces, vertex_normals=normals, process=False)
    kind = path.suffix.lower()[1:]
    with replacing(path) as temporary:
        if kind == "glb":
            write_glb(temporary, whole, colors, texture, up=up, meters_per_unit=meters_per_unit)
        elif kind == "stl":
            whole.apply_translation(-float32_offset(np.asarray(whole.vertices)))
            whole.export(temporary, file_type="stl")
        elif kind == "obj" and texture is not None:
            _write_textured_obj(path, temporary, whole, texture)
        elif kind == "obj":
            with_colors(whole, colors).export(temporary, file_type="obj", include_normals=True, digits=_digits(whole))
        else:
            rows = VertexRows(np.asarray(whole.vertices), normals, colors)
            double = bool(float32_offset(rows.vertices).any())
            write_ply(temporary, [rows], [whole.faces], (len(normals), len(whole.faces)), double=double)


def write_cloud(path: Path, mesh: trimesh.Trimesh, count: int) -> None:
    """Write .ply of `count` points drawn evenly from a mesh, with normals and colors between those of its vertices.

    Whole or not at all. Raises StorageError where the disk refuses.
    """
    points, face = trimesh.sample.sample_surface(mesh, count, seed=0)
    share = trimesh.triangles.points_to_barycentric(mesh.triangles[face], points)[..., None]
    normals = (smooth_normals(mesh)[mesh.faces[face]] * share).sum(1)
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-30)
    own = vertex_colors(mesh)
    colors = None if own is None else np.rint((own[mesh.faces[face]] * share).sum(1)).clip(0, 255).astype(np.uint8)
    rows = VertexRows(points, normals, colors)
    with replacing(path) as temporary:
        write_ply(temporary, [rows], [], (count, 0), double=bool(float32_offset(points).any()))


def _write_textured_obj(path: Path, temporary: Path, mesh: trimesh.Trimesh, texture: Texture) -> None:
    """Write `temporary`, which becomes `path`, and what it names, beside it."""
    uv, picture = texture
    with_texture(mesh, uv, picture, name=path.stem)
    text, others = trimesh.exchange.obj.export_obj(
        mesh, include_normals=True, digits=_digits(mesh), return_texture=True, mtl_name=f"{path.stem}.mtl"
    )
    for name, content in others.items():
        write_bytes(path.with_name(name), content)
    temporary.write_text(text)


def _digits(mesh: trimesh.Trimesh) -> int:
    return max(8, 8 - int(np.floor(np.log10(extent(mesh.vertices)))))


def check_suffix(path: Path) -> None:
    """Raise InputError unless the file's suffix names a format that `write_mesh` writes."""
    if path.suffix.lower() not in FORMATS:
        raise InputError(f"{path}: one of {', '.join(FORMATS)} expected, got '{path.suffix}'")


def read_mesh(path: Path, *, up: ArrayLike | None = None) -> trimesh.Trimesh:
    """Read a triangle mesh from any format that trimesh reads, its vertices as they are in the file, colors in sRGB.

    up: [3], turns a .glb, whose up is +Y, back into the frame with this up, and adds its offset: the inverse of
    `write_mesh`. Raises InputError when the file is missing, unreadable, has no faces or vertices that are not finite.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file, a mesh was expected")
    try:
        mesh = _read_glb(path, up) if path.suffix.lower() == ".glb" else trimesh.load_mesh(path, process=False)
    except Exception as error:  # trimesh's readers raise whatever their parsing stumbles over
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: not a readable mesh ({type(error).__name__}: {reason})") from error
    if not isinstance(mesh, trimesh.Trimesh) or len(mesh.faces) == 0:
        raise InputError(f"{path}: the mesh has no faces")
    if not np.isfinite(mesh.vertices).all():
        raise InputError(f"{path}: the mesh has vertices that are not finite")
    if mesh.faces.min() < 0 or mesh.faces.max() >= len(mesh.vertices):
        raise InputError(f"{path}: faces name vertices that do not exist")
    return mesh


def _read_glb(path: Path, up: ArrayLike | None) -> trimesh.Trimesh:
    mesh, colors, offset = read_glb(path)
    with_colors(mesh, colors)
    if up is None:
        return mesh
    back = y_up(up).T
    back[:3, 3] = offset
    return transformed(mesh, back)
