"""configs/schema.json, from which editors complete and check a config."""

import json
import re

import pytest

from engine import experiment
from tests.support.sources import ROOT
from utils.config import reference

FILES = sorted((ROOT / "configs").rglob("*.yaml"))


def test_the_schema_is_current() -> None:
    committed = (ROOT / "configs/schema.json").read_text("utf-8")
    assert committed == experiment.schema_text(), "run: make schema"


def test_the_page_of_all_keys_is_current() -> None:
    schema = json.loads((ROOT / "configs/schema.json").read_text("utf-8"))
    committed = (ROOT / "docs/reference/config.md").read_text("utf-8")
    assert committed == reference.page(schema), "run: make schema"
    described = [schema, *schema["$defs"].values()]
    keys = {key for each in described for key in each.get("properties", ())} - {"base", "type"}
    assert {key for key in keys if f"| `{key}` |" not in committed} == set()
    links = set(re.findall(r"\]\(#([^)]+)\)", committed))
    assert links and all(f"## {link}\n" in committed.lower() for link in links)


def test_the_schema_knows_keys_parts_and_ranges() -> None:
    schema = json.loads(experiment.schema_text())
    assert {"base", "data", "model", "losses", "optimizer", "train", "output"} <= schema["properties"].keys()
    parts = schema["$defs"]
    assert {"DataConfig.dtu", "SamplerConfig.occupancy_grid", "LossConfig.mask"} <= parts.keys()
    assert parts["OptimizerConfig.adam"]["properties"]["lr"]["exclusiveMinimum"] == 0
    assert parts["OptimizerConfig.adam"]["additionalProperties"] is False
    choice = schema["$defs"]["OptimizerConfig"]["oneOf"]
    assert choice[0]["properties"]["lr"]["exclusiveMinimum"] == 0  # without a type
    entry = choice[0]["properties"]["parts"]["additionalProperties"]["anyOf"]
    assert entry == [{"type": "number", "exclusiveMinimum": 0}, {"$ref": "#/$defs/OptimizerConfig"}]
    assert {"OptimizerConfig.adamw", "OptimizerConfig.rmsprop"} <= parts.keys()
    references = {word for word in json.dumps(schema).split('"') if word.startswith("#/$defs/")}
    assert {reference.removeprefix("#/$defs/") for reference in references} <= parts.keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_config_names_the_schema_in_line_1(path) -> None:
    first = path.read_text("utf-8").splitlines()[0]
    up = "../" * (len(path.relative_to(ROOT / "configs").parts) - 1)
    assert first == f"# yaml-language-server: $schema={up}schema.json"
