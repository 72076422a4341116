"""report.html: one page about a run that needs nothing else, made of what lies in the run folder."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image

from engine.report.contents import Contents, files_and_commands, read_contents
from engine.report.surface_view import SCRIPT, surface_view
from utils.commands import note_command
from utils.errors import InputError, first_line, printable
from utils.files import write_bytes
from utils.meshing.mesh import read_mesh, transformed
from utils.pages import html
from utils.pages.camera_map import camera_map
from utils.pages.curves import Curve, chart
from utils.pages.html import text

NAME = "report.html"
ERROR = "the error is the root of the mean square over the channels of color, 1 from black to white"
LARGEST_CLIP = 12 << 20  # bytes of a video in the page; larger ones are linked
LARGEST_MESH = 512 << 20
MESHES = ("mesh.ply", "mesh.glb", "mesh.obj")
STYLE = """
.tiles{display:flex;flex-wrap:wrap;gap:10px}.tile{background:#f3f6fa;padding:.5em 1em;border-radius:6px}
.tile b{display:block;font-size:1.35em;font-weight:600}.tile span{color:#666;font-size:12px}
canvas{border:1px solid #ddd;touch-action:none;cursor:grab;height:auto}
pre{background:#f7f7f7;padding:.8em;overflow:auto}
.chart{background:#fff}.chart .g{stroke:#e6e6e6}.chart text{font-size:11px;fill:#666}.chart .t{font-size:13px;fill:#222}
code{overflow-wrap:anywhere}summary{cursor:pointer;font-weight:600;margin-top:2em}
"""
# The numbers at the top: a title, where they are in metrics.json, how they are written.
TILES = (
    ("PSNR, held-out views", ("images", "psnr"), "{:.2f} dB"),
    ("SSIM", ("images", "ssim"), "{:.4f}"),
    ("chamfer distance", ("mesh", "chamfer"), "{:.4g}"),
    ("F-score at 0.01 radii", ("mesh", "f_score_0.01"), "{:.4f}"),
    ("steps", ("train", "steps"), "{}"),
    ("seconds of training", ("train", "seconds"), "{:.0f}"),
    ("rays per second", ("train", "rays_per_second"), "{:.0f}"),
    ("peak memory", ("train", "peak_memory_mb"), "{:.0f} MiB"),
)
# Charts: a title, the curves by the beginning of their names, whether the axis is logarithmic.
CHARTS = (
    ("PSNR, dB", ("train/psnr", "train/psnr_views", "val/psnr"), False),
    ("loss", ("train/loss",), True),
    ("terms of the loss, before their weights", ("train/loss/",), True),
    ("PSNR of held-out views, dB", ("val/psnr/",), False),
    ("statistics of the model", ("model/",), True),
    ("cells, rows and depth of grids and trees", ("structure/",), True),
    ("learning rate", ("opt/lr",), True),
    ("rays per second", ("perf/rays_per_s",), False),
    ("samples per ray", ("perf/samples_per_ray",), False),
)


def try_to_write(folder: Path) -> None:
    """Write the page of a run that has ended; whatever goes wrong is a line of warning, never the run's failure."""
    try:
        print(f"{write_report(folder)}: the run on one page")
    except Exception as error:  # of any kind: a page is worth no run
        words = printable(first_line(error))
        print(f"warning: {folder / NAME}: not written ({words}) - try python report.py {folder}", file=sys.stderr)


def write_report(folder: Path, out: Path | None = None) -> Path:
    """Write the page, whole or not at all, into the folder or to `out`; returns where it is.

    Raises InputError where the folder is that of no run, StorageError where the disk refuses.
    """
    path = out or folder / NAME
    contents = read_contents(folder)
    note_command(folder, [path])
    write_bytes(path, page(contents).encode("utf-8"))
    return path


def page(contents: Contents) -> str:
    """The whole page."""
    title = f"Run: {contents.folder.resolve().name}"
    parts = [
        f"<h1>{text(title)}</h1>",
        _tiles(contents.results),
        *_warnings(contents),
        *_views(contents),
        *_charts(contents.curves),
        *_clips(contents.folder),
        *_surface(contents),
        *_numbers(contents.results),
        *_config(contents),
        *_files(contents.folder),
    ]
    return html.page(title, parts, style=STYLE, script=SCRIPT.read_text("utf-8"))


def _tiles(results: dict[str, Any]) -> str:
    found = []
    for title, (block, key), form in TILES:
        value = (results.get(block) or {}).get(key)
        if isinstance(value, int | float):
            found.append(f'<div class="tile"><b>{text(form.format(value))}</b><span>{text(title)}</span></div>')
    return f'<div class="tiles">{"".join(found)}</div>'


def _warnings(contents: Contents) -> Iterator[str]:
    yield "<h2>Warnings</h2>"
    for step, said in contents.warnings:
        yield f'<div class="f warning">step {step}: {text(said)}</div>'
    for line in contents.lacking:
        yield f'<div class="f note">{text(line)}</div>'
    if not contents.warnings and not contents.lacking:
        yield "<p>The run was warned of nothing.</p>"


def _views(contents: Contents) -> Iterator[str]:
    """The newest picture of held-out views, as training wrote it."""
    path = contents.views_picture
    if path is None:
        return
    yield "<h2>Held-out views: photograph, rendering, error, depth, normals</h2>"
    try:
        with Image.open(path) as image:
            yield html.picture(np.asarray(image.convert("RGB")))
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        yield f'<div class="f note">{text(f"{path.name}: {error}")}</div>'
    yield f"<p>{text(path.name)}; {ERROR}.</p>"


def _charts(curves: dict[str, Curve]) -> Iterator[str]:
    drawn = [chart(title, _chosen(curves, names), logarithmic=log) for title, names, log in CHARTS]
    if any(drawn):
        yield "<h2>Curves over the steps</h2>"
        yield f'<div class="grid">{"".join(drawn)}</div>'


def _chosen(curves: dict[str, Curve], names: tuple[str, ...]) -> list[Curve]:
    """The curves of these names; a name that ends in / stands for all that begin so, without it."""
    found = []
    for name in names:
        if name.endswith("/"):
            inside = [key for key in curves if key.startswith(name)]
            found += [Curve(key.removeprefix(name), curves[key].steps, curves[key].values) for key in inside]
        elif name in curves:
            found.append(curves[name])
    return found


def _clips(folder: Path) -> Iterator[str]:
    paths = sorted((folder / "videos").glob("*.mp4"))
    if paths:
        yield "<h2>Videos</h2>"
    for path in paths:
        name = text(f"videos/{path.name}")
        link = f'<a href="{name}">{name}</a>'
        if path.stat().st_size <= LARGEST_CLIP:
            source = html.data_uri("video/mp4", path.read_bytes())
            clip = f'<video controls autoplay loop muted playsinline src="{source}"></video>'
            yield f'<figure class="wide">{clip}<figcaption>{link}</figcaption></figure>'
        else:
            yield f"<p>{link}: {path.stat().st_size >> 20} MiB, beside this page</p>"


def _surface(contents: Contents) -> Iterator[str]:
    """The mesh with the cameras, to be turned, and the cameras from above."""
    scene = contents.scene
    if scene is None:
        return
    mesh, said = _mesh(contents)
    up = scene.world_from_scene[:3, :3].T @ scene.up
    up /= np.linalg.norm(up)
    held_out = np.setdiff1d(np.arange(len(scene.names)), scene.splits["train"])
    yield "<h2>Surface and cameras</h2>"
    yield f"<p>{text(said)} Drag to turn, scroll to come nearer, shift and drag to move, double-click to go back.</p>"
    yield "".join(_switch(name, words) for name, words in SWITCHES)
    yield surface_view(mesh, scene.cameras, held_out, up)
    yield '<p id="surface-note"></p>'
    pose = scene.cameras.camera_to_world.double().numpy()
    colors = ["#e90" if view in held_out else "#246" for view in range(len(pose))]
    yield "<h2>Cameras from above</h2>"
    yield camera_map(pose[:, :, 3], pose[:, :, 2], up, colors=colors, names=scene.names)
    views = f"{len(scene.splits['train'])} training views (blue), {len(held_out)} held out (orange)"
    yield f"<p>{text(views)}. The disk is the unit sphere, where the surface is looked for.</p>"


SWITCHES = (("surface-color", "colors"), ("surface-lit", "light"), ("surface-cameras", "cameras"))


def _switch(name: str, words: str) -> str:
    return f'<label><input type="checkbox" id="{name}" checked> {text(words)}</label> '


def _mesh(contents: Contents) -> tuple[trimesh.Trimesh | None, str]:
    """The run's mesh in the scene frame, and what to say of it."""
    assert contents.scene is not None
    folder = contents.folder / "meshes"
    path = next((folder / name for name in MESHES if (folder / name).is_file()), None)
    if path is None:
        return None, f"There is no mesh yet: python extract_mesh.py {contents.folder}, then report.py again."
    if path.stat().st_size > LARGEST_MESH:
        return None, f"meshes/{path.name} is too large for a page."
    try:
        mesh = read_mesh(path, up=contents.scene.up)
    except InputError as error:
        return None, f"{error}."
    size = f"meshes/{path.name}: {len(mesh.vertices)} vertices, {len(mesh.faces)} faces."
    return transformed(mesh, np.linalg.inv(contents.scene.world_from_scene)), size


def _numbers(results: dict[str, Any]) -> Iterator[str]:
    """All of metrics.json: a table per block, and one for each list of rows in it, as those per view."""
    blocks = list(_blocks("", results))
    if blocks:
        yield "<h2>Numbers</h2>"
    for name, rows in blocks:
        yield f"<h3>{text(name)}</h3>"
        if isinstance(rows, list):
            keys = list(dict.fromkeys(key for row in rows for key in row))
            yield html.table(([_shown(row.get(key)) for key in keys] for row in rows), keys)
        else:
            yield html.table((key, _shown(value)) for key, value in rows.items())


def _blocks(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Mappings of plain values, and lists of mappings, with their names, from the outside to the inside."""
    if isinstance(value, list):
        yield name, value
        return
    plain = {key: entry for key, entry in value.items() if entry is not None and not _nested(entry)}
    if plain:
        yield name or "all", plain
    for key, entry in value.items():
        if _nested(entry):
            yield from _blocks(f"{name}.{key}" if name else str(key), entry)


def _nested(value: Any) -> bool:
    rows = isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)
    return isinstance(value, dict) or rows


def _shown(value: Any) -> str:
    return "" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def _config(contents: Contents) -> Iterator[str]:
    yield f"<details><summary>config.yaml</summary><pre>{html.lines(contents.config)}</pre></details>"
    said = "\n".join(f"step {step}: {words}" for step, words in contents.messages)
    if said:
        yield f"<details><summary>What the run said</summary><pre>{html.lines(said)}</pre></details>"


def _files(folder: Path) -> Iterator[str]:
    yield "<h2>Files, and the commands that make them again</h2>"
    yield html.table(files_and_commands(folder), ("file", "size", "command"))
