"""Another function in the place of one of the product's, for the time of a measurement."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def patched(pairs: Sequence[tuple[Any, Any]]) -> Iterator[None]:
    """Within, wherever a loaded module of models/ names the first of a pair, it means the second."""
    forms = {id(before): after for before, after in pairs}
    places = [place for place in named() if id(place[2]) in forms]
    for module, name, function in places:
        setattr(module, name, forms[id(function)])
    try:
        yield
    finally:
        for module, name, function in places:
            setattr(module, name, function)


def named() -> Iterator[tuple[Any, str, Any]]:
    """All names in the loaded modules of models/: (module, name, what it means)."""
    for module in [module for name, module in sys.modules.items() if name.startswith("models.")]:
        for name, value in list(vars(module).items()):
            yield module, name, value
