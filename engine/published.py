"""A run for others to fetch: weights that no code can hide in, config, and a card that says what they are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from engine.experiment import ExperimentConfig, read_config
from engine.run import find_checkpoint, load_model
from engine.saved import Saved, read_color, read_saved, similarity
from models.model import Model
from utils.config.loading import to_yaml
from utils.entries import Entry
from utils.errors import InputError
from utils.evaluation.results import read_results
from utils.files import write_bytes, write_json, write_text_if_changed

WEIGHTS, CONFIG, CARD, NUMBERS = "model.safetensors", "config.yaml", "README.md", "metrics.json"
FORMAT = "1"


@dataclass(frozen=True)
class Published:
    """What was published: the model in evaluation mode on the CPU, and its scene frame [4, 4]."""

    config: ExperimentConfig
    model: Model
    world_from_scene: npt.NDArray[np.float64]
    step: int


def publish(path: str | Path, out: Path, *, data_license: str, best: bool = False) -> Path:
    """Write the run at `path`, or one of its checkpoints, into `out`, and return that.

    data_license: of the photographs, by the user's word. best: of the highest PSNR instead of the newest. Raises
    InputError where there is no such checkpoint, and StorageError.
    """
    folder, checkpoint = find_checkpoint(Path(path), best=best)
    saved = read_saved(checkpoint)
    config = read_config(folder / CONFIG, saved=True)
    # Places on the machine that trained it are nobody's business.
    config = config.model_copy(update={"output": None, "data": config.data.model_copy(update={"path": None})})
    model = _model(config, saved.scene.background, len(saved.scene.cameras))
    load_model(model, saved.model)
    state: dict[str, Any] = dict(model.state_dict())
    tensors = {name: value.contiguous().clone() for name, value in state.items() if isinstance(value, Tensor)}
    numbers_too = {name: value for name, value in state.items() if name not in tensors}
    write_bytes(out / WEIGHTS, save(tensors, metadata=_metadata(saved, numbers_too)))
    write_text_if_changed(out / CONFIG, to_yaml(config))
    numbers = read_results(folder / NUMBERS) if (folder / NUMBERS).is_file() else {}
    write_json(out / NUMBERS, numbers)
    write_text_if_changed(out / CARD, _card(folder.name, config, saved, numbers, data_license))
    return out


def open_published(folder: Path) -> Published:
    """What `publish` has written. Raises InputError where it is damaged, or something else."""
    config = read_config(folder / CONFIG, saved=True)
    source = str(folder / WEIGHTS)
    try:
        with safe_open(source, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # it is no mapping
        about = Entry(json.loads(metadata["scene"]), "scene", source)
        state |= about["numbers"].mapping()
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(f"{source}: not the weights of a published run: {error}") from None
    background = about["background"]
    color = None if background.missing else read_color(background)
    model = _model(config, color, about["cameras"].whole(1, 10**6))
    load_model(model, Entry(state, "model", source))
    model.update(about["progress"].number(0.0, 1.0))
    place = about["world_from_scene"]
    frame = similarity(np.array([row.numbers(4) for row in place]), place)
    return Published(config, model.eval(), frame, about["step"].whole())


def _model(config: ExperimentConfig, background: tuple[float, float, float] | None, cameras: int) -> Model:
    return Model(config.model, data_color=background, cameras=cameras)


def _metadata(saved: Saved, numbers: dict[str, Any]) -> dict[str, str]:
    """What a model needs beside its weights, as safetensors keeps it: text. numbers: of its state, no tensors."""
    scene = {
        "cameras": len(saved.scene.cameras),
        "background": saved.scene.background,
        "world_from_scene": saved.scene.world_from_scene.tolist(),
        "progress": saved.progress,
        "step": saved.step,
        "numbers": numbers,
    }
    return {"format": FORMAT, "scene": json.dumps(scene)}


def _card(name: str, config: ExperimentConfig, saved: Saved, numbers: dict[str, Any], data_license: str) -> str:
    images, mesh = numbers.get("images") or {}, numbers.get("mesh") or {}
    scores = [f"| PSNR of {images['views']} held-out views | {images['psnr']:.2f} dB |"] if "psnr" in images else []
    scores += [f"| SSIM | {images['ssim']:.4f} |"] if "ssim" in images else []
    scores += [f"| Chamfer distance, radii | {mesh['chamfer']:.5f} |"] if "chamfer" in mesh else []
    splits, medium = saved.scene.splits, config.model.foreground.model_dump()
    asked = "rays" if config.train.samples is None else "samples"
    return "\n".join(
        [
            f"# {name}",
            "",
            "A scene as a radiance field or surface, learned from photographs with known cameras.",
            "",
            "| | |",
            "|---|---|",
            f"| Field, opacity | `{medium['field']['type']}`, `{medium['opacity']['type']}` |",
            f"| Steps, {asked} per step | {saved.step}, {config.train.samples or config.train.rays} |",
            f"| Photographs to learn from, held out | {len(splits['train'])}, {len(splits['test'])} |",
            *(scores or ["| Scores | not measured: evaluate.py RUN |"]),
            "",
            f"**Data.** License of the photographs, by the publisher's word: {' '.join(data_license.split())}",
            "",
            "**Files.** `model.safetensors`: parameters and grids; `config.yaml`: the whole config; `metrics.json`.",
            "Open them with `engine.published.open_published(Path(FOLDER))`; points go in in the scene frame, which",
            "`world_from_scene` [4, 4] turns into the world's.",
            "",
            "**Use and limits.** This scene only, seen from about where its photographs were taken. What was not",
            "photographed is made up.",
            "",
        ]
    )
