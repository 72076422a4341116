"""Mesh files, byte by byte: what a .glb means by glTF 2.0, and coordinates and normals anywhere and at any scale."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray

from utils.meshing.mesh import read_mesh, vertex_colors, with_colors, write_mesh
from utils.meshing.scales import float32_offset, smooth_normals

Array = NDArray[Any]
COMPONENTS = {5121: "<u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
UTM = np.array([500_000.0, 5_600_000.0, 112.0])
PLACES = [(1.0, np.zeros(3)), (1.0, UTM), (1e-6, np.zeros(3)), (1e6, np.zeros(3)), (0.01, UTM)]


def parsed(path: Path) -> tuple[dict[str, Any], list[Array]]:
    """A .glb's JSON, and the numbers of its accessors, [N, width], read as the specification says."""
    content = path.read_bytes()
    magic, version, size, length, kind = struct.unpack_from("<4sIII4s", content)
    assert (magic, version, size, kind) == (b"glTF", 2, len(content), b"JSON") and length % 4 == 0
    head = json.loads(content[20 : 20 + length])
    data = content[28 + length :]
    assert content[24 + length : 28 + length] == b"BIN\0"
    arrays = []
    for accessor in head["accessors"]:
        view, width = head["bufferViews"][accessor["bufferView"]], WIDTHS[accessor["type"]]
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        kind = COMPONENTS[accessor["componentType"]]
        assert start % 4 == 0 and "byteStride" not in view
        arrays.append(np.frombuffer(data, kind, accessor["count"] * width, start).reshape(-1, width))
    return head, arrays


def ball(scale: float = 1.0, center: Array | None = None) -> trimesh.Trimesh:
    """A sphere of diameter `scale` with all gray shades and an alpha."""
    sphere = trimesh.creation.icosphere(subdivisions=3, radius=scale / 2)
    mesh = trimesh.Trimesh(sphere.vertices + (0 if center is None else center), sphere.faces, process=False)
    shade = np.arange(len(mesh.vertices)) % 256
    return with_colors(mesh, np.column_stack([shade, 255 - shade, shade // 2, 255 - shade // 4]).astype(np.uint8))


def outward(mesh: trimesh.Trimesh) -> Array:
    """The normals of a sphere."""
    away = mesh.vertices - (mesh.vertices.max(0) + mesh.vertices.min(0)) / 2
    return np.asarray(away / np.linalg.norm(away, axis=1, keepdims=True))


def glb_normals(path: Path) -> Array:
    head, arrays = parsed(path)
    return arrays[head["meshes"][0]["primitives"][0]["attributes"]["NORMAL"]]


def obj_normals(path: Path) -> Array:
    lines = path.read_text().splitlines()
    return np.array([line.split()[1:] for line in lines if line.startswith("vn ")], np.float64)


def ply_normals(path: Path) -> Array:
    header, body = path.read_bytes().split(b"end_header\n", 1)
    words = [line.split() for line in header.decode().splitlines()]
    kinds = {"float": "<f4", "double": "<f8", "uchar": "u1"}
    columns = [(line[2], kinds[line[1]]) for line in words if line[0] == "property" and line[1] != "list"]
    count = next(int(line[2]) for line in words if line[:2] == ["element", "vertex"])
    table = np.frombuffer(body, np.dtype(columns), count)
    return np.stack([table[name] for name in ("nx", "ny", "nz")], axis=1)


NORMALS = {".glb": glb_normals, ".obj": obj_normals, ".ply": ply_normals}


def test_a_glb_has_one_dull_material_and_says_its_unit(tmp_path: Path) -> None:
    write_mesh(tmp_path / "ball.glb", ball(), meters_per_unit=0.25)
    head, _ = parsed(tmp_path / "ball.glb")
    (material,), (primitive,) = head["materials"], head["meshes"][0]["primitives"]
    assert primitive["material"] == 0 and material["pbrMetallicRoughness"]["metallicFactor"] == 0
    assert material["pbrMetallicRoughness"]["baseColorFactor"] == [1, 1, 1, 1]
    (root,) = (head["nodes"][number] for number in head["scenes"][head["scene"]]["nodes"])
    assert root["mesh"] == 0 and root["extras"] == {"meters_per_unit": 0.25, "offset": [0, 0, 0]}
    write_mesh(tmp_path / "ball.glb", ball())
    assert parsed(tmp_path / "ball.glb")[0]["nodes"][0]["extras"]["meters_per_unit"] == "unknown"


def test_colors_of_a_glb_are_linear_and_lose_no_shade(tmp_path: Path) -> None:
    """Decoded by the formula of sRGB, written down anew, each is the byte that went in."""
    mesh = ball()
    write_mesh(tmp_path / "ball.glb", mesh)
    head, arrays = parsed(tmp_path / "ball.glb")
    number = head["meshes"][0]["primitives"][0]["attributes"]["COLOR_0"]
    assert head["accessors"][number]["normalized"] is True and arrays[number].dtype == np.uint16
    linear = arrays[number] / 65535
    srgb = np.where(linear > 0.0031308, 1.055 * np.power(linear, 1 / 2.4) - 0.055, 12.92 * linear)
    srgb[:, 3] = linear[:, 3]
    wanted = vertex_colors(mesh)
    assert wanted is not None
    np.testing.assert_array_equal(np.rint(255 * srgb), wanted)
    np.testing.assert_allclose(linear[wanted[:, 0] == 128, 0], 0.21586, atol=1e-5)
    for back in (read_mesh(tmp_path / "ball.glb"), read_mesh(tmp_path / "ball.glb", up=(0, 0, 1))):
        np.testing.assert_array_equal(vertex_colors(back), wanted)


def test_colors_of_other_programs_are_read(tmp_path: Path) -> None:
    """Floats, three numbers, and 8 bits are all linear."""
    mesh = trimesh.creation.box()
    for values, name in (
        (np.tile([1.0, 0.21586, 0.0], (8, 1)).astype(np.float32), "floats"),
        (np.tile([255, 55, 0, 255], (8, 1)).astype(np.uint8), "bytes"),
    ):
        mesh.vertex_attributes["_COLOR0"] = values
        path = tmp_path / f"{name}.glb"
        path.write_bytes(mesh.export(file_type="glb").replace(b"_COLOR0", b"COLOR_0"))
        assert vertex_colors(read_mesh(path))[0].tolist() == [255, 128, 0, 255]  # type: ignore[index]


@pytest.mark.parametrize("up", [(0, 0, 1), (0, 1, 0), (0, -1, 0), (0.6, 0, -0.8)])
def test_the_node_of_a_glb_turns_up_to_y(tmp_path: Path, up: tuple[float, float, float]) -> None:
    mesh = ball(center=np.array([1.0, 2.0, 3.0]))
    write_mesh(tmp_path / "ball.glb", mesh, up=up)
    head, arrays = parsed(tmp_path / "ball.glb")
    attributes = head["meshes"][0]["primitives"][0]["attributes"]
    position, normal = arrays[attributes["POSITION"]], arrays[attributes["NORMAL"]]
    np.testing.assert_allclose(position, mesh.vertices, atol=1e-6, err_msg="vertices keep the axes of the world")
    np.testing.assert_allclose(normal, outward(mesh), atol=0.01)
    matrix = np.reshape(head["nodes"][0].get("matrix", np.eye(4)), (4, 4)).T  # column by column
    np.testing.assert_allclose(matrix[:3, :3] @ up, [0, 1, 0], atol=1e-9)
    np.testing.assert_allclose(matrix[:3, :3] @ matrix[:3, :3].T, np.eye(3), atol=1e-9)
    assert np.linalg.det(matrix) == pytest.approx(1) and not matrix[:3, 3].any()
    shown = read_mesh(tmp_path / "ball.glb")
    np.testing.assert_allclose(shown.vertices, mesh.vertices @ matrix[:3, :3].T, atol=1e-6)
    np.testing.assert_allclose(read_mesh(tmp_path / "ball.glb", up=up).vertices, mesh.vertices, atol=1e-6)


@pytest.mark.parametrize("suffix", [".ply", ".obj", ".glb"])
@pytest.mark.parametrize("scale, center", PLACES)
def test_no_coordinate_and_no_normal_is_crushed(tmp_path: Path, suffix: str, scale: float, center: Array) -> None:
    mesh, path = ball(scale, center), tmp_path / f"ball{suffix}"
    write_mesh(path, mesh, up=(0, 0, 1))
    back = read_mesh(path, up=(0, 0, 1))
    rounding = np.spacing(np.abs(center).max())  # of the truth itself
    np.testing.assert_allclose(back.vertices, mesh.vertices, rtol=0, atol=1e-6 * scale + rounding)
    np.testing.assert_array_equal(back.faces, mesh.faces)
    assert (back.area_faces > 0).all()
    assert np.sum(NORMALS[suffix](path) * outward(mesh), axis=1).min() > 0.999


def test_a_glb_at_map_coordinates_says_its_offset(tmp_path: Path) -> None:
    mesh = ball(1.0, UTM)
    write_mesh(tmp_path / "ball.glb", mesh)
    head, arrays = parsed(tmp_path / "ball.glb")
    offset = np.array(head["nodes"][0]["extras"]["offset"])
    assert offset.tolist() == UTM.tolist()
    position = arrays[head["meshes"][0]["primitives"][0]["attributes"]["POSITION"]]
    np.testing.assert_allclose(position + offset, mesh.vertices, rtol=0, atol=1e-7)


@pytest.mark.parametrize("scale, center", PLACES)
def test_a_ply_has_doubles_where_it_needs_them(tmp_path: Path, scale: float, center: Array) -> None:
    write_mesh(tmp_path / "ball.ply", ball(scale, center))
    header = (tmp_path / "ball.ply").read_bytes().split(b"end_header")[0].decode()
    assert ("property double x\n" in header) == bool(center.any())
    assert ("property float x\n" in header) != bool(center.any())


def test_float32_offset() -> None:
    corners = np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 0.5]])
    assert float32_offset(corners).tolist() == [0, 0, 0]
    assert float32_offset(corners + 3.0).tolist() == [0, 0, 0]
    assert float32_offset(corners + UTM).tolist() == [500_000, 5_600_001, 112]
    assert float32_offset(corners * 1e3 + 7.2e3).tolist() == [0, 0, 0], "a flight of kilometers fits"
    assert float32_offset(np.zeros((0, 3))).tolist() == [0, 0, 0]


@pytest.mark.parametrize("scale", [1e-9, 1e-6, 1.0, 1e9])
def test_normals_do_not_depend_on_the_unit(scale: float) -> None:
    mesh = ball(scale)
    np.testing.assert_allclose(smooth_normals(mesh), smooth_normals(ball()), atol=1e-6)
    assert np.sum(smooth_normals(mesh) * outward(mesh), axis=1).min() > 0.999


def test_every_normal_of_a_glb_has_a_direction(tmp_path: Path) -> None:
    """A face without an area, as simplification may leave it: its vertices have no normal, and glTF wants one."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [2, 2, 2], [3, 3, 3], [4, 4, 4.0]])
    mesh = trimesh.Trimesh(vertices, [[0, 2, 1], [3, 4, 5]], process=False)
    write_mesh(tmp_path / "mesh.glb", mesh)
    head, arrays = parsed(tmp_path / "mesh.glb")
    normals = arrays[head["meshes"][0]["primitives"][0]["attributes"]["NORMAL"]]
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(normals, [[0, 0, -1]] * 3 + [[0, 0, 1]] * 3, atol=1e-6)
