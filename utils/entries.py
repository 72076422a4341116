"""What a file of ours should hold, looked at entry by entry: what is there, and what was expected, as one line."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from utils.errors import InputError, printable

LONGEST_NAME = 60


class Entry:
    """A value of a nested state with its name in it; each look at it raises InputError where it is not that."""

    def __init__(self, value: Any, name: str, source: str) -> None:
        """source: the file, for the message."""
        self.value, self.name, self.source = value, name, source

    def __getitem__(self, key: str) -> Entry:
        """An entry of a mapping; None where there is none."""
        return Entry(self.mapping().get(key), f"{self.name}.{key}" if self.name else key, self.source)

    def __iter__(self) -> Iterator[Entry]:
        """The entries of a list or tuple."""
        if not isinstance(self.value, (list, tuple)):
            raise self.refused("a list")
        return (Entry(item, f"{self.name}.{i}", self.source) for i, item in enumerate(self.value))

    @property
    def missing(self) -> bool:
        """Whether it is None or not there."""
        return self.value is None

    def refused(self, expected: str) -> InputError:
        """The error that says what is there, and what should be."""
        name = printable(self.name)
        name = name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..."
        return InputError(f"{self.source}: {name} - got {described(self.value)} - expected {expected}")

    def mapping(self) -> dict[Any, Any]:
        """A dict."""
        if not isinstance(self.value, dict):
            raise self.refused("a mapping")
        return self.value

    def number(self, least: float = -math.inf, most: float = math.inf) -> float:
        """A finite number from `least` to `most`."""
        value = self.value
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not _between(value, least, most):
            raise self.refused(f"a number{_range(least, most)}")
        return float(value)

    def whole(self, least: int = 0, most: int = 2**62) -> int:
        """A whole number from `least` to `most`."""
        if type(self.value) is not int or not least <= self.value <= most:
            raise self.refused(f"a whole number{_range(least, most)}")
        return self.value

    def numbers(self, count: int, least: float = -math.inf, most: float = math.inf) -> list[float]:
        """A list of so many finite numbers from `least` to `most`."""
        entries = list(self)
        if len(entries) != count:
            raise self.refused(f"{count} numbers")
        return [entry.number(least, most) for entry in entries]

    def names(self, count: int) -> list[str]:
        """A list of so many texts."""
        entries = list(self)
        if len(entries) != count or not all(isinstance(entry.value, str) for entry in entries):
            raise self.refused(f"{count} names")
        return [entry.value for entry in entries]

    def tensor(self, shape: Sequence[int | None], like: torch.dtype) -> Tensor:
        """A tensor [*N] on the CPU, of floats or whole numbers as `like` is, all finite. shape: None is any size."""
        value = self.value
        fits = is_plain(value) and value.ndim == len(shape) and value.is_floating_point() == like.is_floating_point
        if not fits or any(want not in (None, got) for want, got in zip(shape, value.shape, strict=True)):
            raise self.refused(f"{_kind(like)} of shape {_sizes(shape)}")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise InputError(f"{self.source}: {printable(self.name)} - got numbers that are not finite")
        return value

    def like(self, own: Any) -> None:
        """The same mappings and lists as `own` [any nesting], numbers where it has numbers, tensors of its shapes."""
        if isinstance(own, dict):
            extra = self.mapping().keys() ^ own.keys()
            if extra:
                name = min(extra, key=str)
                raise Entry(self.value.get(name), f"{self.name}.{name}", self.source).refused(
                    "an entry of that name" if name in own else "no such entry"
                )
            for key, item in own.items():
                self[key].like(item)
        elif isinstance(own, Tensor):
            self.tensor(own.shape, own.dtype)
        else:
            self.number()


def is_plain(value: Any) -> bool:
    """Whether a value is a tensor [*N] on the CPU that holds all its numbers: none that is sparse, complex or the like.

    One number can be looked at as a billion of them.
    """
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type != "cpu":
        return False
    if value.is_quantized or value.is_complex() or value.is_nested:
        return False
    return value.numel() * value.element_size() <= value.untyped_storage().nbytes()


def described(value: Any) -> str:
    """A value in a few words."""
    if value is None:
        return "nothing"
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {_sizes(value.shape)}"
    if isinstance(value, (dict, list, tuple, set)):
        return f"a {type(value).__name__} of {len(value)}"
    text = printable(repr(value)) if isinstance(value, (float, bool)) else printable(str(value)[:LONGEST_NAME])
    return text if isinstance(value, (int, float)) else repr(text)


def _between(value: float, least: float, most: float) -> bool:
    # A whole number may be too large for a float.
    return least <= value <= most and abs(value) < 1e300


def _range(least: float, most: float) -> str:
    if math.isinf(least) and math.isinf(most):
        return ""
    return f" from {least:g}" if most >= 2**62 else f" from {least:g} to {most:g}"


def _kind(like: torch.dtype) -> str:
    return "floats" if like.is_floating_point else "whole numbers"


def _sizes(shape: Sequence[int | None]) -> str:
    return f"({', '.join('N' if size is None else str(size) for size in shape)})"
