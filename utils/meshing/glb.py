"""glTF 2.0 in one file (.glb): what the format fixes that our meshes do not, +Y up, linear colors, float32.

The vertices keep the axes of the world; the mesh's node turns them. Its `extras` say the unit and what was taken off
the vertices.
"""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from utils.meshing.scales import Floats, float32_offset

COLORS = "_COLOR_0"  # an attribute of our own to trimesh, which knows colors of 8 bits alone
JSON_CHUNK = b"JSON"
# Photographed colors, seen from both sides: a mesh may be open.
UNLIT = "KHR_materials_unlit"  # light is in the photographs already
MATERIAL = {
    "name": "vertex_colors",
    "pbrMetallicRoughness": {"baseColorFactor": [1.0, 1.0, 1.0, 1.0], "metallicFactor": 0.0, "roughnessFactor": 1.0},
    "doubleSided": True,
}


def write_glb(
    path: Path,
    mesh: trimesh.Trimesh,
    colors: NDArray[np.uint8] | None,
    texture: tuple[NDArray[np.floating], NDArray[np.uint8]] | None = None,
    *,
    up: ArrayLike,
    meters_per_unit: float | None,
) -> None:
    """Write a mesh with its vertex normals and colors [V, 4] (sRGB, straight alpha; None: without), or a texture.

    texture: coordinates [V, 2] from the bottom left, and the picture [H, W, 3], sRGB; its material is not lit.

    up: [3], the direction of the vertices' frame that the node turns into +Y. meters_per_unit: said in the extras,
    "unknown" for None. Where float32 does not hold the vertices they are written less `offset`, which stands in the
    extras, in the vertices' axes, and is zero otherwise. Raises OSError.
    """
    offset = float32_offset(np.asarray(mesh.vertices))
    normals = unit_normals(np.asarray(mesh.vertex_normals))
    moved = trimesh.Trimesh(mesh.vertices - offset, mesh.faces, vertex_normals=normals, process=False)
    if colors is not None:
        moved.vertex_attributes[COLORS] = linear_colors(colors)
    if texture is not None:
        moved.visual = trimesh.visual.TextureVisuals(texture[0], material=_photographs(texture[1]))
    extras = {"meters_per_unit": meters_per_unit or "unknown", "offset": offset.tolist()}
    scene = trimesh.Scene()
    scene.add_geometry(moved, node_name="mesh", geom_name="surface", transform=y_up(up), metadata=extras)
    scene.export(path, file_type="glb", include_normals=True, tree_postprocessor=_finish)


def unit_normals(normals: Floats) -> Floats:
    """Normals [V, 3] of length one; (0, 0, 1) for a vertex that has none, of which glTF has no word."""
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(length > 0, normals / np.where(length > 0, length, 1.0), [0.0, 0.0, 1.0])


def _finish(tree: dict[str, Any]) -> None:
    """Name the colors as glTF does, and give the mesh its material, or that of the texture the light that it has."""
    if "textures" in tree:
        tree["materials"][0]["extensions"] = {UNLIT: {}}
        tree["extensionsUsed"] = [UNLIT]
        return
    tree["materials"] = [MATERIAL]
    primitive = tree["meshes"][0]["primitives"][0]
    primitive["material"] = 0
    if COLORS in primitive["attributes"]:
        number = primitive["attributes"].pop(COLORS)
        primitive["attributes"]["COLOR_0"] = number
        tree["accessors"][number]["normalized"] = True


def _photographs(picture: NDArray[np.uint8]) -> trimesh.visual.material.PBRMaterial:
    image = Image.fromarray(picture)
    return trimesh.visual.material.PBRMaterial(
        name="photographs", baseColorTexture=image, metallicFactor=0.0, roughnessFactor=1.0, doubleSided=True
    )


def read_glb(path: Path) -> tuple[trimesh.Trimesh, NDArray[np.uint8] | None, Floats]:
    """The whole scene of a file as one mesh, +Y up; its colors [V, 4] in sRGB, or None; its offset [3] (`write_glb`).

    Raises whatever trimesh and the parsing of a damaged file stumble over.
    """
    head, rest = _split(path.read_bytes())
    for part in head.get("meshes", []):
        for primitive in part["primitives"]:
            if "COLOR_0" in primitive["attributes"]:  # as they are: trimesh would read numbers of 16 bits modulo 256
                primitive["attributes"][COLORS] = primitive["attributes"].pop("COLOR_0")
    file, plain = io.BytesIO(_joined(head, rest)), not head.get("images")
    mesh = trimesh.load_mesh(file, file_type="glb", process=False, skip_materials=plain)
    offsets = [node["extras"]["offset"] for node in head.get("nodes", []) if "offset" in (node.get("extras") or {})]
    linear = mesh.vertex_attributes.pop(COLORS, None)
    colors = None if linear is None else srgb_colors(np.asarray(linear))
    return mesh, colors, np.array(offsets[0] if offsets else [0.0, 0.0, 0.0])


def _split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The parsed JSON of a file, and the chunks behind it."""
    magic, version, _, length, kind = struct.unpack_from("<4sIII4s", content)
    if magic != b"glTF" or version != 2 or kind != JSON_CHUNK:
        raise ValueError("not a binary glTF 2.0")
    return json.loads(content[20 : 20 + length]), content[20 + length :]


def _joined(head: dict[str, Any], rest: bytes) -> bytes:
    """The inverse of `_split`."""
    text = json.dumps(head).encode()
    text += b" " * (-len(text) % 4)
    return struct.pack("<4sIII4s", b"glTF", 2, 20 + len(text) + len(rest), len(text), JSON_CHUNK) + text + rest


def linear_colors(srgb: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """sRGB [V, 4] of 8 bits as the linear colors that COLOR_0 is read as, normalized to 16 bits; alpha is linear.

    8 bits would leave 156 of the 256 shades, and few of the dark ones. Source: glTF 2.0, 3.9.2; IEC 61966-2-1.
    """
    share = srgb / 255.0
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    linear[:, 3] = share[:, 3]
    return np.rint(65535.0 * linear).astype("<u2")


def srgb_colors(linear: NDArray[Any]) -> NDArray[np.uint8]:
    """The inverse of `linear_colors`, [V, 3] or [V, 4] -> [V, 4]: of normalized numbers of any width, or of floats."""
    share = linear / np.iinfo(linear.dtype).max if linear.dtype.kind == "u" else np.clip(linear, 0.0, 1.0)
    color = share[:, :3]
    srgb = np.where(color <= 0.0031308, 12.92 * color, 1.055 * color ** (1.0 / 2.4) - 0.055)
    alpha = share[:, 3:] if share.shape[1] == 4 else np.ones((len(share), 1))
    return np.rint(255.0 * np.concatenate([srgb, alpha], axis=1)).astype(np.uint8)


def y_up(up: ArrayLike) -> Floats:
    """The rotation [4, 4] that turns the direction `up` [3] into +Y, by the smallest angle."""
    turn = np.eye(4)
    turn[:3, :3] = _rotation_between(np.asarray(up, np.float64), np.array([0.0, 1.0, 0.0]))
    return turn


def _rotation_between(start: Floats, end: Floats) -> Floats:
    """The smallest rotation [3, 3] that turns the direction of `start` into that of `end`."""
    from scipy.spatial.transform import Rotation

    start, end = start / np.linalg.norm(start), end / np.linalg.norm(end)
    axis = np.cross(start, end)
    sine, cosine = np.linalg.norm(axis), start @ end
    if sine < 1e-12:
        axis = np.eye(3)[np.abs(start).argmin()]
        axis = np.cross(start, axis)
    return Rotation.from_rotvec(axis / np.linalg.norm(axis) * np.arctan2(sine, cosine)).as_matrix()
