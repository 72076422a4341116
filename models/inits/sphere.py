"""A sphere."""

from __future__ import annotations

from typing import Literal

from models.inits.base import InitConfig


class SphereInit(InitConfig):
    """The sphere of the field's `radius`; seen from inside with `inside_out`."""

    type: Literal["sphere"] = "sphere"
