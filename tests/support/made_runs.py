"""A run folder without a training behind it: cameras around a colored ball, logs, a mesh, pictures."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
import trimesh
from PIL import Image

from dataio.cameras import Cameras
from utils.checkpoint import save_checkpoint
from utils.meshing.mesh import with_colors, write_mesh
from utils.paths.camera_paths import look_at

VIEWS, HELD_OUT, RADIUS = 9, 2, 0.5
WORLD = np.array([[0.0, -2.0, 0.0, 5.0], [2.0, 0.0, 0.0, -1.0], [0.0, 0.0, 2.0, 3.0], [0.0, 0.0, 0.0, 1.0]])
HOSTILE = "<img src=x onerror=alert(1)>\x1b[31m"


def ring_cameras(size: tuple[int, int] = (60, 40), focal: float = 60.0) -> Cameras:
    """Cameras around the origin that look at it, scene frame, up is z."""
    turn = np.linspace(0.0, 2.0 * np.pi, VIEWS, endpoint=False)
    centers = 3.0 * np.stack([np.cos(turn), np.sin(turn), 0.4 + 0.0 * turn], 1)
    poses = look_at(centers, [0.0, 0.0, 0.0], [0.0, 0.0, 1.0])
    return Cameras.make(poses, [focal, focal, size[0] / 2, size[1] / 2], size)


def ball() -> trimesh.Trimesh:
    """A sphere in the scene frame, red where x > 0 and blue elsewhere."""
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=RADIUS)
    colors = np.where(mesh.vertices[:, :1] > 0, [[255, 0, 0, 255]], [[0, 0, 255, 255]]).astype(np.uint8)
    return with_colors(trimesh.Trimesh(mesh.vertices, mesh.faces, process=False), colors)


def write_run(folder: Path) -> Path:
    """Write what a page reads of a run, with names and texts that must not get into it as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(f"# {HOSTILE}\ntrain: {{steps: 3}}\n", "utf-8")
    rows: list[dict[str, float | None]] = [
        {"step": step, "train/loss": 1 / step, "train/psnr": 20.0 + step} for step in range(1, 101)
    ]
    rows += [{"step": 100, "val/psnr": None, f"val/psnr/{HOSTILE}": 21.0}]
    lines = [json.dumps(row) for row in rows]
    (folder / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 101, "train/lo']), "utf-8")
    said = [(0, f"warning: {HOSTILE}"), (50, "3 held-out views"), (60, f"warning: {HOSTILE}")]
    text = "".join(json.dumps({"step": step, "text": words}) + "\n" for step, words in said)
    (folder / "messages.jsonl").write_text(text, "utf-8")
    results = {"images": {"psnr": 31.25, "views": [{"name": HOSTILE, "psnr": 30.5}]}, "mesh": None, "train": None}
    (folder / "metrics.json").write_text(json.dumps(results), "utf-8")
    (folder / "images").mkdir(exist_ok=True)
    Image.fromarray(np.full((8, 40, 3), 90, np.uint8)).save(folder / "images/step_00000100.png")
    (folder / "videos").mkdir(exist_ok=True)
    (folder / "videos" / "a'b.mp4").write_bytes(b"no video")
    moved = ball().apply_transform(WORLD)
    write_mesh(folder / "meshes/mesh.ply", moved)
    save_checkpoint(folder / "checkpoints", 100, _state(), info={"world": 1})
    return folder


def _state() -> dict[str, object]:
    index = torch.arange(VIEWS)
    names = [HOSTILE, *(f"view_{i}" for i in range(1, VIEWS))]
    scene = {
        "cameras": ring_cameras().state(),
        "splits": {"train": index[:-HELD_OUT], "test": index[-HELD_OUT:]},
        "names": names,
        "world_from_scene": torch.from_numpy(WORLD),
        "up": torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64),
        "background": None,
        "georeference": None,
    }
    empty: dict[str, object] = {name: {} for name in ("model", "optimizer", "sampler")}
    return {**empty, "scene": scene, "plateau": None, "progress": 1.0, "clocks": [1.0, 1.0], "rate_scale": 1.0}


def half_angle() -> float:
    """How large the ball is seen from a camera, from its center to its outline, radians."""
    return math.asin(RADIUS / math.hypot(3.0, 1.2))
