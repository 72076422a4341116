"""Numbers and devices on the command line: within their ends, or one line."""

import argparse
from typing import Any

import pytest

from utils.arguments import between
from utils.distributed import choose_device
from utils.errors import InputError


@pytest.mark.parametrize("text, kind, value", [("16", int, 16), ("4096", int, 4096), ("1e2", float, 100.0)])
def test_numbers_within_are_taken(text: str, kind: Any, value: float) -> None:
    assert between(kind, 16, 4096)(text) == value


@pytest.mark.parametrize("kind", [int, float])
@pytest.mark.parametrize("text", ["15", "4097", "-1", "nan", "inf", "1e308", "9" * 400, "9" * 9000, "", "a\nb", "0x20"])
def test_others_are_one_short_line(text: str, kind: Any) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        between(kind, 16, 4096)(text)
    assert str(caught.value).startswith("16 to 4096 expected, got ") and len(str(caught.value)) < 90


@pytest.mark.parametrize("name", ["tpu", "cuda:", "cuda:x", "cuda:-1", "cuda:" + "9" * 40, "cpu:0", "", "\x1b[31m"])
def test_a_device_that_is_none_is_one_line(name: str) -> None:
    with pytest.raises(InputError, match=r"^device: expected auto, cpu, cuda or cuda:N \(got '[^\x1b]*'\)$"):
        choose_device(name)
    assert choose_device("cpu").type == "cpu"
