"""Numbers that a user may write: every one in every config class is bounded, and what is beyond is one line."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from engine import experiment, showing
from tests.support.sources import ROOT
from utils.config.parts import Part, StrictModel
from utils.errors import InputError

assert showing and experiment  # by being imported they have defined all parts

USUAL = (1, 2, 4, 8, 0.5, 0.9, 0, 300, -1, [1], [0.1], [0.5, 0.9], [1, 2, 3], {"a": 1e-3})
TOO_MUCH = (1e308, -1e308, 1e16, float("nan"), float("inf"), -float("inf"), 2**64, -(2**64), 10**400)
FOLDERS = ("engine", "dataio", "models", "utils")


def config_classes(of: type[StrictModel] = StrictModel) -> Iterator[type[StrictModel]]:
    """All that are a mapping in a YAML; not the kinds of parts, of which no YAML has one."""
    for each in of.__subclasses__():
        if each.__module__.split(".")[0] in FOLDERS and (not issubclass(each, Part) or "type" in each.model_fields):
            yield each
        yield from config_classes(each)


def shapes(number: float) -> list[Any]:
    """A number in all places in which a field may hold one."""
    lists = [[number] * count for count in range(1, 5)] + [[0.1, number], [number, 0.9]]
    parts = [{"type": "constant", "value": number}, {"type": "linear", "start": number, "end": 1}, {"lr": number}]
    return [number, *lists, *parts, {"a": number}, {"a": {"lr": number}}]


def refused(owner: type[StrictModel], name: str, value: Any) -> bool:
    """Whether a config with this value is refused for it; other keys that it needs do not count."""
    try:
        owner.model_validate_json(json.dumps({name: value}), strict=True)
    except ValidationError as errors:
        return any(error["loc"][:1] == (name,) or not error["loc"] for error in errors.errors())
    return False


FIELDS = sorted(
    {(owner, name) for owner in config_classes() for name in owner.model_fields},
    key=lambda field: (field[0].__module__, field[0].__name__, field[1]),
)
OF_NUMBERS = [(owner, name) for owner, name in FIELDS if any(not refused(owner, name, value) for value in USUAL)]


def test_fields_of_numbers_are_found() -> None:
    """What the next test is about: that it looks at something."""
    names = {f"{owner.__name__}.{name}" for owner, name in OF_NUMBERS}
    known = "ExperimentConfig.seed AdamConfig.betas AdamConfig.parts EikonalLoss.random_points EikonalLoss.weight"
    assert names >= {*known.split(), "TrainConfig.threads", "DtuData.radius", "LatticeRendererConfig.resolution"}
    assert len(names) > 250


def test_no_field_takes_a_number_that_cannot_be_computed_with() -> None:
    taken = [
        f"{owner.__name__}.{name}: {value}"
        for owner, name in FIELDS
        for number in TOO_MUCH
        for value in shapes(number)
        if not refused(owner, name, value)
    ]
    assert not taken


def test_every_count_has_an_end() -> None:
    """Of what memory or time grow with: those that only say when something happens may be as large as they like."""
    whenever = {"every", "steps", "log_every", "checkpoint_every", "check_every", "keep_every", "keep_checkpoints",
                "seed", "validations", "holdout", "min_track", "window", "patience", "share", "cell"}  # fmt: skip
    endless = {name for owner, name in OF_NUMBERS if not refused(owner, name, 2**62)}
    assert endless <= whenever


@pytest.mark.parametrize(
    "override, words",
    [
        ("seed=18446744073709551616", ("seed", "at most 9223372036854775807")),
        (f"seed={10**400}", ("seed", "at most 9223372036854775807")),
        ("optimizer.betas=[0.9, 1]", ("optimizer.betas.1", "less than 1")),
        ("optimizer.parts={foreground: -1}", ("optimizer.parts.foreground", "greater than 0")),
        ("losses.color.weight=1e308", ("losses.color.weight", "at most 1e+15")),
        ("losses.color.weight={type: steps, start: 1, factor: 1e9, at: [0.1, 0.2]}", ("weight", "grows beyond 1e+15")),
        ("losses.eikonal.random_points=1000000000", ("losses.eikonal.random_points", "16777216")),
        ("train.threads=2000", ("train.threads", "512")),
        ("train.minutes=.inf", ("train.minutes", "at most 1e+15")),
        ("train.rays=1e12", ("train.rays", "16777216")),
        ("device=tpu", ("device", "cpu", "tpu")),
    ],
)
def test_what_is_beyond_is_one_line(override: str, words: tuple[str, ...]) -> None:
    with pytest.raises(InputError) as caught:
        experiment.read_config(ROOT / "configs/neus_hash.yaml", [override])
    line = str(caught.value)
    assert "\n" not in line and len(line) < 250
    assert all(word in line for word in words), line
