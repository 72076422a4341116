"""AdamW: Adam with weight decay apart from the gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field

from models.optimizers.adam import Adam
from models.optimizers.base import MomentsConfig


class AdamwConfig(MomentsConfig):
    """Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019), algorithm 2."""

    type: Literal["adamw"] = "adamw"
    weight_decay: float = Field(0.0, ge=0, description="pulls every weight to zero; the paper's default is 0.01")

    def build(self, groups: Sequence[dict[str, Any]]) -> Adam:
        options: dict[str, Any] = {"betas": self.betas, "eps": self.eps, "weight_decay": self.weight_decay}
        return Adam(groups, lr=self.lr, decoupled=True, **options)
