"""Which config suits a data set, and where the one that was chosen does not."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Sequence

from dataio.scene import Inspection, Scene
from dataio.shapes.relief import one_side
from engine.experiment import ExperimentConfig
from models.capabilities import DataFacts
from models.losses.background_points import BackgroundPointsLoss
from utils.commands import words_of
from utils.config.loading import leaves

PLAIN = re.compile(r"[\w./~-]*/[\w./~-]*")  # paths that are text to YAML as they are
AGREEING = {  # what keeps media from showing each view something else, for configs with such a key
    "model.background.appearance.inputs": [],
    "model.foreground.field.init.type": "points",
}
FROM_ABOVE = 0.5  # upward part of the mean direction back to the cameras, from which on they look down


def suited(scene: Scene, quantities: Collection[str]) -> str:
    """The path of the config for a scene, whose pictures are not looked at. quantities: what there is per pixel."""
    return f"configs/{_name(scene, quantities)}.yaml"


def _name(scene: Scene, quantities: Collection[str]) -> str:
    if "mask" in quantities:
        return "neus_hash"
    if scene.room:
        return "neus_hash_room" if "depth" in quantities else "neus_hash_open"
    if from_above(scene):
        return "neus_hash_aerial"
    return "neus_hash_open" if one_side(scene) is None else "neus_hash_relief"


def from_above(scene: Scene) -> bool:
    """Whether all cameras of a world with z up, as a place on Earth gives it, look down in the mean."""
    back = -scene.cameras.camera_to_world[:, 2, 2].double().mean()
    return scene.georeference is not None and bool(back > FROM_ABOVE)


def command(config: str, data: str, overrides: Sequence[str] = ()) -> str:
    """The line for a shell that trains a config on the data at a path, with changes as key.sub=value."""
    path = data if PLAIN.fullmatch(data) else json.dumps(data, ensure_ascii=False)
    return shlex.join([*words_of("train.py"), config, f"data.path={path}", *overrides])


def warnings(config: ExperimentConfig, scene: Scene) -> Iterator[str]:
    """One line for each reason why the config does not suit the scene, with the key to change."""
    return _warnings(config, scene.quantities.keys(), lambda: scene)


def warnings_before(config: ExperimentConfig, found: Inspection) -> Iterator[str]:
    """The same for data of which no picture was decoded yet."""
    return _warnings(config, found.quantities, found.outline)


def _warnings(
    config: ExperimentConfig, quantities: Collection[str], scene: Callable[[], Scene] | None
) -> Iterator[str]:
    about = DataFacts(
        masks="mask" in quantities,
        background=config.model.background is not None or config.model.backdrop is not None,
        one_sided=lambda: scene is not None and one_side(scene()) is not None,
        suited=lambda: "configs/neus_hash_open.yaml" if scene is None else suited(scene(), quantities),
    )
    yield from config.model.foreground.field.warnings(about)
    for name, loss in config.losses.items():
        lacking = [quantity for quantity in loss.data_needs.pixels if quantity not in quantities]
        if lacking == ["mask"] and about.background:
            continue  # what a mask would take away, the background explains: such configs are for data without
        if lacking:
            words = " and ".join(f"{quantity}s" for quantity in lacking)
            yield f"losses.{name} asks for {words}, which these data lack: it goes without"


def against_parting(config: ExperimentConfig) -> list[str]:
    """Overrides that help where held-out views fall behind training views, of those that the config does not have."""
    if config.model.background is None:
        return []
    has = leaves(config)
    found = [f"{key.removesuffix('.type')}={value}" for key, value in AGREEING.items() if has.get(key, value) != value]
    held = any(isinstance(loss, BackgroundPointsLoss) for loss in config.losses.values())
    return found if held else [*found, "losses.background_points.type=background_points"]
