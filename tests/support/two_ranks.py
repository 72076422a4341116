"""Ranks over gloo, each a process of its own."""

import json
import os
import socket
import subprocess
import sys
from typing import Any

from tests.support.sources import ROOT


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def rank_environments(world: int = 2) -> list[dict[str, str]]:
    """What a launcher sets for each of so many ranks on this machine."""
    common = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    each = [{"RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"} for rank in range(world)]
    return [{**os.environ, **common, **own} for own in each]


def said_by_two_ranks(code: str) -> list[Any]:
    """What each printed last, as JSON. Both have to end well, and warnings are errors."""
    command = [sys.executable, "-W", "error", "-c", code]
    ranks = [
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        for environment in rank_environments()
    ]
    outputs = [process.communicate(timeout=120)[0] for process in ranks]
    assert [process.returncode for process in ranks] == [0, 0]
    return [json.loads(output.splitlines()[-1]) for output in outputs]
