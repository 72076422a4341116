"""YAML text: which scalars it knows, and that it reads back what it writes."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from utils.config.yaml_text import parse, write
from utils.errors import InputError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-4", 5e-4), ("2e5", 200_000), ("200_000", 200_000), ("1_000.5", 1000.5), ("-3", -3), ("+.5", 0.5),
        ("0x1f", 31), ("0o17", 15), ("017", 17), (".inf", float("inf")), ("-.inf", -float("inf")),
        ("1.", 1.0), ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("on", "on"), ("yes", "yes"), ("no", "no"), ("off", "off"),
        ("1:30", "1:30"), ("2026-11-21", "2026-11-21"),
        ("'5'", "5"), ("e5", "e5"), ("_1", "_1"), ("1__0", "1__0"), ("=", "="), ("[1, a]", [1, "a"]),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    got = parse(text, "x", []).plain()
    assert got == value and type(got) is type(value)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
WORDS = st.sampled_from(
    ["on", "5e-4", "1_0", "1:30", "null", "~", "", "0x1", "- a", "a: b", "!x", "*x", ".inf"]
)
TREES = st.recursive(
    SCALARS | WORDS, lambda t: st.lists(t, max_size=3) | st.dictionaries(st.text(max_size=4), t, max_size=3)
)


@given(TREES)
def test_what_is_written_is_read_back(value: Any) -> None:
    wrong: list[str] = []
    got = parse(write(value), "x", wrong).plain()
    assert not wrong and got == value and repr(got).replace(".0", "") == repr(value).replace(".0", "")


@given(st.text(alphabet="ab:-[]{}&*!?|>'\"#%@`,\n \t\\0\x00é", max_size=40) | st.text(max_size=20))
def test_no_text_makes_the_reader_fail_in_an_unknown_way(text: str) -> None:
    try:
        parse(text, "x", [])
    except InputError as error:
        assert str(error).startswith("x:")
