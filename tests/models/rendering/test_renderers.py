"""The renderers: an analytic sphere as a mesh and as a lattice; what they need and what they make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from torch import Tensor

from dataio.cameras import Cameras
from engine.showing import read_renderer
from models.model import Model
from models.rendering.baked import bake, interpolated, with_colors
from models.rendering.frames import render_image
from models.rendering.renderers.base import Source
from models.rendering.renderers.lattice import LatticeRenderer
from models.rendering.surface import Surface
from tests.models.test_surface import CASES, surface_model
from tests.support.analytic import RADIUS, color_at, hit_distance
from utils.errors import InputError
from utils.meshing.mesh import transformed, write_mesh
from utils.meshing.mesh import with_colors as colored

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
WORLD = np.array([[0.0, -2.0, 0.0, 5.0], [2.0, 0.0, 0.0, -1.0], [0.0, 0.0, 2.0, 3.0], [0.0, 0.0, 0.0, 1.0]])


def camera() -> Cameras:
    pose = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, -2.5]])[None]
    return Cameras.make(pose, [160.0, 160.0, 64.0, 48.0], [128, 96])


def source(folder: Path, model: Model | None = None, device: str = "cpu") -> Source:
    on = torch.device(device)
    return Source(folder, on, camera().to(on), WORLD, np.array([0.0, 0.0, 1.0]), model)


def truth() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of the sphere's picture: [H, W] hit, well within the outline, depth, and [H, W, 3] points."""
    rays = camera().rays(torch.zeros(128 * 96, dtype=torch.long), camera().pixel_grid(0))
    t = hit_distance(rays).float()
    points = rays.at(t.nan_to_num(posinf=0.0))
    clear = torch.isfinite(t) & ((points * rays.directions).sum(-1) < -0.2 * RADIUS)
    return tuple(x.view(96, 128, *x.shape[1:]) for x in (torch.isfinite(t), clear, t, points))  # type: ignore[return-value]


def sphere_mesh(path: Path, *, colors: bool = True) -> Path:
    """A fine sphere of the scene in the world's frame, colored by the position in the scene."""
    ball = trimesh.creation.icosphere(subdivisions=5, radius=RADIUS)
    at = color_at(torch.tensor(np.array(ball.vertices))).numpy()
    ball = colored(ball, (255 * at).round().astype(np.uint8) if colors else None)
    write_mesh(path, transformed(ball, WORLD))
    return path


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("suffix", [".ply", ".glb"])
def test_a_mesh_of_the_sphere(tmp_path: Path, device: str, suffix: str) -> None:
    path = sphere_mesh(tmp_path / "meshes" / f"mesh{suffix}")
    text = "{type: mesh, rays: 1}" if suffix == ".ply" else f"{{type: mesh, rays: 1, path: {path}}}"
    frame = read_renderer(text).build(source(tmp_path, device=device))(camera().to(device), 0)
    hit, clear, depth, points = truth()
    assert ((frame.opacity > 0) != hit).float().mean() < 0.01 and clear.sum() > 2000
    assert (frame.depth - depth)[clear].abs().max() < 1e-3
    torch.testing.assert_close(frame.normal[clear], points[clear] / RADIUS, atol=5e-3, rtol=0)
    torch.testing.assert_close(frame.color[clear], color_at(points)[clear], atol=2e-2, rtol=0)
    missed = frame.opacity == 0
    assert (frame.color[missed] == 1).all() and (frame.depth[missed] == 0).all() and (frame.normal[missed] == 0).all()


@pytest.mark.parametrize("device", DEVICES)
def test_an_edge_covers_a_part_of_a_pixel(tmp_path: Path, device: str) -> None:
    """A red plane before the camera, right of the middle of column 70: half of this column's rays meet it."""
    left = (70.5 - 64) / 160 * 2.5  # at the plane's distance
    corners = [[left, -5.0, 0.0], [9.0, -5.0, 0.0], [left, 5.0, 0.0], [9.0, 5.0, 0.0]]
    plane = trimesh.Trimesh(corners, [[0, 1, 2], [1, 3, 2]], process=False)
    red = np.tile([255, 0, 0], (4, 1)).astype(np.uint8)
    write_mesh(tmp_path / "meshes/mesh.ply", transformed(colored(plane, red), WORLD))
    frame = read_renderer("mesh").build(source(tmp_path, device=device))(camera().to(device), 0)
    for column, share in ((69, 0.0), (70, 0.5), (71, 1.0)):
        assert (frame.opacity[:, column] == share).all()
        torch.testing.assert_close(frame.color[:, column], torch.tensor([1.0, 1 - share, 1 - share]).expand(96, 3))
    across = torch.tensor([[70.75, 71.5], [70.75, 71.5]])  # where the mean ray of the two columns meets the plane
    rays = camera().rays(torch.zeros(2, dtype=torch.long), torch.stack([across[0], torch.full((2,), 48.0)], -1))
    torch.testing.assert_close(frame.depth[47:49, 70:72].mean(0), 2.5 / rays.directions[:, 2], atol=1e-4, rtol=0)
    normal = frame.normal[:, 70:].abs()
    torch.testing.assert_close(normal, torch.tensor([0.0, 0.0, 1.0]).expand_as(normal))


def test_behind_a_mesh_is_the_models_background(tmp_path: Path) -> None:
    model = surface_model(*CASES["logistic"])
    model.background_color.copy_(torch.tensor([0.1, 0.2, 0.3]))
    path = sphere_mesh(tmp_path / "plain.ply", colors=False)
    frame = read_renderer(f"{{type: mesh, path: {path}}}").build(source(tmp_path, model))(camera(), 0)
    torch.testing.assert_close(frame.color[0, 0], torch.tensor([0.1, 0.2, 0.3]))
    torch.testing.assert_close(frame.color[48, 64], torch.full((3,), 0.7))


def test_what_is_missing_is_one_line(tmp_path: Path) -> None:
    for text, said in (
        ("mesh", "extract_mesh.py"),
        (f"{{type: mesh, path: {tmp_path}/other.ply}}", "other.ply: no such file"),
        ("volume", "has no network"),
        ("asset", "bake.py"),
    ):
        with pytest.raises(InputError, match=said) as caught:
            read_renderer(text).build(source(tmp_path))
        assert len(str(caught.value).splitlines()) == 1


WRONG = ["", "volum", "[volume]", "{resolution: 3}", "{type: lattice, resolution: 1}", "{", "a: b"]


@pytest.mark.parametrize("text", WRONG)
def test_renderers_that_are_none(text: str) -> None:
    with pytest.raises(InputError, match="command line"):
        read_renderer(text)


def test_each_says_what_it_makes() -> None:
    makes = {text: read_renderer(text).modes for text in ("volume", "surface", "mesh", "lattice")}
    assert makes.pop("lattice") == ("depth", "normal")
    assert set(makes.values()) == {("rgb", "depth", "normal")}
    assert read_renderer("{type: lattice, normals: false}").modes == ("depth",)
    assert read_renderer(None).model_dump()["type"] == "volume"


def test_surface_and_volume_are_those_of_the_model(tmp_path: Path) -> None:
    model = surface_model(*CASES["logistic"])
    model.refresh(0)
    given = source(tmp_path, model)
    for text, seen in (("volume", model), ("surface", Surface(model))):
        found, expected = read_renderer(text).build(given)(camera(), 0), render_image(seen, camera(), 0)
        assert torch.equal(found.color, expected.color) and torch.equal(found.normal, expected.normal)


@pytest.mark.parametrize("name", ["logistic", "density", "logits"])
def test_a_lattice_of_the_sphere(tmp_path: Path, name: str) -> None:
    model = surface_model(*CASES[name])
    frame = read_renderer("{type: lattice, resolution: 96}").build(source(tmp_path, model))(camera(), 0)
    hit, clear, depth, points = truth()
    assert ((frame.opacity > 0) != hit).float().mean() < 0.02
    assert (frame.depth - depth)[clear].abs().median() < 0.25 * 2 / 95
    # A density rises e-fold in six cells, which central differences over two of them bend but little.
    torch.testing.assert_close(frame.normal[clear], points[clear] / RADIUS, atol=0.03, rtol=0)
    assert (frame.color == 0).all() and (frame.normal[frame.opacity == 0] == 0).all()


@pytest.mark.parametrize("name", ["logistic", "density", "logits"])
@pytest.mark.parametrize("halves", [False, True])
def test_baked_colors_are_those_of_the_surface(name: str, halves: bool) -> None:
    """Lattice points are moved onto the surface for their colors; the truth is the color in closed form there."""
    volume = surface_model(*CASES[name]).foreground
    baked = bake(volume, 64)
    baked = with_colors(baked.in_halves() if halves else baked, volume)
    frame = LatticeRenderer(baked.to(torch.device("cpu")), background=torch.tensor([0.0, 1.0, 0.0]))(camera(), 0)
    _, clear, _, points = truth()
    torch.testing.assert_close(frame.color[clear], color_at(points)[clear], atol=2e-2, rtol=0)
    missed = frame.opacity == 0
    assert (frame.color[missed] == torch.tensor([0.0, 1.0, 0.0])).all()
    assert baked.values.dtype == (torch.float16 if halves else torch.float32)


def test_interpolation_is_that_of_torch() -> None:
    g = torch.Generator().manual_seed(0)
    lattice, points = torch.rand(9, 9, 9, 2, generator=g), torch.rand(500, 3, generator=g) * 2.4 - 1.2
    grid = points.flip(-1)[None, None, None]
    options = {"align_corners": True, "mode": "bilinear", "padding_mode": "border"}
    read = torch.nn.functional.grid_sample(lattice.permute(3, 0, 1, 2)[None], grid, **options)  # type: ignore[arg-type]
    torch.testing.assert_close(interpolated(lattice, points), read[0, :, 0, 0].T)
    assert interpolated(lattice, points[:0]).shape == (0, 2)
