"""The page of all keys: types, ranges and defaults as the schema of a made-up config says them."""

from typing import Any, Literal

import pytest
from pydantic import Field

from utils.config import reference
from utils.config.parts import StrictModel
from utils.config.schema import json_schema


class Inner(StrictModel):
    """What is inside."""

    size: tuple[float, float] = Field((0.5, 1.0), description="wide | high")
    base: int = Field(16, description="no file")


class Outer(StrictModel):
    count: int = Field(3, ge=1, lt=9, description="of things")
    rate: float | None = Field(None, gt=0)
    mode: Literal["a", "b"] = "a"
    inner: Inner = Inner()
    names: list[str] = Field([], max_length=4)
    needed: float


@pytest.mark.parametrize(
    "row",
    [
        "| `count` | integer | ≥ 1, < 9 | `3` | of things |",
        "| `rate` | number or null | > 0 | `null` |  |",
        "| `mode` | `a` or `b` |  | `a` |  |",
        '| `inner` | [Inner](#inner) |  | `{"size": [0.5, 1.0], "base": 16}` |  |',
        "| `base` | integer |  | `16` | no file |",
        "| `names` | list of text | at most 4 | `[]` |  |",
        "| `needed` | number |  | must be given |  |",
        "## Inner\n\nWhat is inside.\n",
        "| `size` | [number, number] |  | `[0.5, 1.0]` | wide \\| high |",
    ],
)
def test_a_row_says_what_the_class_says(row: str) -> None:
    assert row in reference.page(json_schema(Outer))


@pytest.mark.parametrize(
    ("described", "kind", "limits"),
    [
        ({"type": "boolean"}, "true or false", ""),
        ({"type": "array", "items": {"type": "number"}, "minItems": 1}, "list of number", "1 or more"),
        ({"type": "array", "items": {"type": "number", "minimum": 0}}, "list of number", "≥ 0"),
        ({"type": "object", "additionalProperties": {"type": "integer", "maximum": 2}}, "mapping to integer", "≤ 2"),
        ({"anyOf": [{"type": "number", "minimum": 0}, {"$ref": "#/$defs/AConfig"}]}, "number or [A](#a)", "≥ 0"),
        ({"type": "string", "examples": ["cuda:1"]}, "text, as `cuda:1`", ""),
        ({"const": 0, "type": "integer"}, "`0`", ""),
    ],
)
def test_types_and_ranges(described: dict[str, Any], kind: str, limits: str) -> None:
    assert reference.type_of(described) == kind
    assert reference.range_of(described) == limits
