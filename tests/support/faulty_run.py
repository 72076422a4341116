"""A tiny run under torchrun, started and hurt by tests: the same pieces for the quick share and for the night."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from tests.support.sources import ROOT
from utils.checkpoint import load_checkpoint, newest_checkpoint

DATA = "data={type: procedural, views: 4, test_views: 1, size: 24}"
KEYS = (DATA, "train.rays=64", "train.minutes=null", "train.validations=0", "train.log_every=1", "device=cpu",
        "model.foreground.field.init=sphere")  # fmt: skip
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def train_command(folder: Path, *keys: str, config: str = "neus_hash") -> list[str]:
    """The words after the interpreter that train a tiny run into `folder`."""
    return ["train.py", f"configs/{config}.yaml", *KEYS, f"output={folder}", *keys]


def torchrun(*options: str, ranks: int = 2) -> list[str]:
    """The words that start so many ranks on this machine."""
    return [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", *options]


def started(command: list[str]) -> subprocess.Popen[str]:
    """A process in a group of its own, with all that it says in one pipe."""
    return subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )  # fmt: skip


def finished(command: list[str], *, code: int | None = 0, seconds: float = 300) -> tuple[str, float]:
    """What a command says, and the seconds that it takes; code: that it must end with (None: any)."""
    begun, process = time.monotonic(), started(command)
    said, _ = process.communicate(timeout=seconds)
    assert code is None or process.returncode == code, said[-3000:]
    return said, time.monotonic() - begun


def hash_of(folder: Path) -> str:
    """A digest of all that the newest checkpoint holds but the clocks."""
    checkpoint = newest_checkpoint(folder / "checkpoints")
    assert checkpoint is not None
    state, _ = load_checkpoint(checkpoint)
    del state["clocks"]
    digest = blake2b()
    _feed(digest, state)
    return digest.hexdigest()


def _feed(digest: Any, value: object) -> None:
    if isinstance(value, torch.Tensor):
        digest.update(value.contiguous().numpy().tobytes())
    elif isinstance(value, dict):
        for key in value:
            digest.update(str(key).encode())
            _feed(digest, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            _feed(digest, item)
    else:
        digest.update(repr(value).encode())
