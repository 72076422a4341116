"""Photographs of different exposure: each is multiplied by a gain of its own, and a tint of each is learned or not.

The data are written anew, once as they are and once with the gains on the object; what masks leave out stays as it is.
Held-out views are compared within the masks, after the affine change of color that fits each of them best.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import machine
from benchmarks.time_to_quality import ended, script
from benchmarks.train_step import overrides_of
from utils.errors import run_script

if TYPE_CHECKING:
    from dataio.scene import Scene

EXAMPLE = """examples:
  python -m benchmarks.photograph_gains --data data/figure --minutes 5
  python -m benchmarks.photograph_gains --minutes 2 --stops 1 --keep runs/gains

clean: the photographs as they are; plain: with gains; tint: with gains, and per_image: tint."""
TINT = "model.foreground.appearance.per_image=tint"


def main() -> int:
    parser = machine.parser_of(__doc__, EXAMPLE)
    add = parser.add_argument
    add("--config", default="configs/neus_hash.yaml", metavar="FILE", help="default: configs/neus_hash.yaml")
    add("--data", metavar="PATH", help="default: the procedural scene, 200 x 200")
    add("--minutes", type=float, default=5.0, metavar="M", help="of each training; default: 5")
    add("--stops", type=float, default=0.5, metavar="S", help="gains are 2^s, s uniform within +/- this; default: 0.5")
    add("--keep", type=Path, metavar="FOLDER", help="keep data and runs there; default: they are dropped")
    args = parser.parse_intermixed_args()
    budget = [f"device={args.device}", f"train.minutes={args.minutes}", *args.overrides]
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        found = measure(args.config, overrides_of(args.data, args.device, []), folder, args.stops, budget)
    return machine.finish(found, args.out, "photograph_gains")


def measure(config: str, data: Sequence[str], folder: Path, stops: float, budget: Sequence[str]) -> dict[str, Any]:
    """Everything the table shows. data: overrides that name the data. folder: of copies and runs. stops: of the gains.

    Raises InputError for a wrong config or data, and when training ends with an error.
    """
    from dataio.export import write_transforms
    from engine.experiment import read_config
    from utils.distributed import choose_device

    read = read_config(config, [*data, *budget])
    scene = read.data.load()
    write_transforms(scene, folder / "clean")
    write_transforms(with_gains(scene, stops), folder / "gains")
    rows = []
    for name, source, own in (("clean", "clean", []), ("plain", "gains", []), ("tint", "gains", [TINT])):
        copy = f"data={{type: transforms, path: {json.dumps(str(folder / source))}}}"
        place = f"output={json.dumps(str(folder / f'run_{name}'))}"
        ended("train.py", script("train.py", config, *budget, copy, *own, place))
        rows.append({"run": name, **quality(folder / f"run_{name}", read.device)})
    about = {"stops": stops, "budget": list(budget)}
    return {**machine.describe(choose_device(read.device)), **about, "gains": rows}


def with_gains(scene: Scene, stops: float, seed: int = 0) -> Scene:
    """The scene with every photograph multiplied by its gain, within masks where there are some; cut at white."""
    import numpy as np

    from dataio.pictures.pictures import Pictures

    gains = 2.0 ** np.random.default_rng(seed).uniform(-stops, stops, len(scene.names))
    pictures = []
    for view, gain in enumerate(gains):
        color = np.asarray(scene.images[view], np.float64) / 255
        behind = np.zeros_like(color)
        if scene.masks is not None:
            outside = 1 - np.asarray(scene.masks[view], np.float64)[..., None] / 255
            behind = outside * np.array(scene.background or (0.0, 0.0, 0.0))
        bright = np.clip(gain * (color - behind) + behind, 0, 1)
        pictures.append(np.rint(255 * bright).astype(np.uint8))
    return replace(scene, images=Pictures.of(pictures))


def quality(folder: Path, device: str) -> dict[str, Any]:
    """Mean PSNR of the held-out views of a run, within masks where there are some, as they are and fitted."""
    import torch

    from engine.run import Run
    from models.rendering.frames import render_image
    from utils.evaluation.image_metrics import affine_fitted, psnr

    run = Run.open(folder, device)
    scene = run.load_scene()
    cameras, plain, fitted = scene.cameras.to(run.device), [], []
    for view in (int(view) for view in scene.splits["test"]):
        truth = torch.from_numpy(scene.images[view]).double() / 255
        mask = None if scene.masks is None else torch.from_numpy(scene.masks[view]) > 127
        color = render_image(run.model, cameras, view, photograph=True).color.double()
        plain.append(psnr(color, truth, mask).item())
        fitted.append(psnr(affine_fitted(color, truth, mask), truth, mask).item())
    count = max(len(plain), 1)
    return {"steps": run.step, "psnr": sum(plain) / count, "psnr_affine": sum(fitted) / count, "views": len(plain)}


if __name__ == "__main__":
    run_script(main)
