"""The frame of nerfstudio's data: its cameras are turned, shifted and scaled before training."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from utils.errors import InputError
from utils.paths.json_file import MOST, load_json

Floats = NDArray[np.float64]
NAME = "dataparser_transforms.json"  # which ns-train writes beside its config.yml


@dataclass(frozen=True)
class NerfstudioFrame:
    """p' = scale (turn p + shift) of points p in the world, which is that before any `applied_transform`."""

    turn: Floats  # [3, 3]
    shift: Floats  # [3]
    scale: float

    @staticmethod
    def beside(path: Path) -> NerfstudioFrame | None:
        """The frame that dataparser_transforms.json in a file's folder says; None without one. Raises InputError."""
        file = path.parent / NAME
        if not file.is_file():
            return None
        data = load_json(file, "a frame of nerfstudio")
        try:
            matrix = np.array(data["transform"], np.float64).reshape(3, 4)
            scale = float(data["scale"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise InputError(f"{file} - expected transform (3 rows of 4 numbers) and scale") from error
        turn, shift = matrix[:, :3], matrix[:, 3]
        rigid = np.isfinite(matrix).all() and np.abs(turn @ turn.T - np.eye(3)).max() < 1e-3
        if not rigid or np.linalg.det(turn) < 0 or not 1 / MOST <= scale <= MOST or np.abs(shift).max() > MOST:
            raise InputError(f"{file}: not a rotation, a shift and a scale above 0")
        return NerfstudioFrame(turn, shift, scale)

    def to_world(self, poses: Floats) -> Floats:
        """Poses [F, 3, 4] of nerfstudio's frame in the world's."""
        places = (poses[:, :, 3] / self.scale - self.shift) @ self.turn
        return np.concatenate([self.turn.T @ poses[:, :, :3], places[:, :, None]], axis=2)

    def from_world(self, poses: Floats) -> Floats:
        """Poses [F, 3, 4] of the world in nerfstudio's frame."""
        places = self.scale * (poses[:, :, 3] @ self.turn.T + self.shift)
        return np.concatenate([self.turn @ poses[:, :, :3], places[:, :, None]], axis=2)
