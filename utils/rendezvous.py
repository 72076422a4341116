"""Ranks that meet: a name that the processes of this attempt share, and none of those before them has known.

Where torchrun starts ranks anew, they come to the store of its agent, which still holds what the dead have written,
their addresses among it: ranks that read those wait for processes that are gone. Its count of restarts does not tell
attempts apart: it stays the same when a machine joins or leaves, and a machine that is new counts from zero. So the
first rank makes up a name, and passes it only to who has asked with a word that was made up for this attempt.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import timedelta
from threading import Thread

import torch.distributed as dist

from utils.errors import InputError, printable
from utils.rank_environment import RankEnvironment

POLL_SECONDS = 0.02
CONNECT_SECONDS = 2.0
GRACE_SECONDS = 5.0  # how much longer the others wait for the first rank's word on who is missing
SKEW_SECONDS = 5.0  # between the clocks of two machines, from which on it is said


@dataclass(frozen=True)
class Presence:
    """What a rank says of itself: how many ranks it expects, on which machine it is, what time it is there."""

    world: int
    host: str
    time: float


def open_store(found: RankEnvironment, seconds: float) -> dist.Store:
    """The store that the ranks share: the agent's where torchrun has one, else the first rank's own.

    Raises InputError or RuntimeError after `seconds` in which it was not to be reached, or at once when the first rank
    cannot have the port; a thread may then be left waiting.
    """
    agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    own = found.rank == 0 and not agent
    deadline = time.monotonic() + seconds
    if not own:
        _wait_for_listener(found.address, found.port, seconds)
    opened: list[dist.Store | RuntimeError] = []

    def connect() -> None:
        wait, many = timedelta(seconds=seconds), {"wait_for_workers": False, "multi_tenant": True}
        try:
            opened.append(dist.TCPStore(found.address, found.port, found.world, is_master=own, timeout=wait, **many))
        except RuntimeError as error:
            opened.append(error)

    thread = Thread(target=connect, daemon=True)  # what listens there may be something else, which never answers
    thread.start()
    thread.join(max(deadline - time.monotonic(), POLL_SECONDS))
    store = opened[0] if opened else InputError(f"what listens there did not answer within {seconds:g} s")
    if isinstance(store, Exception):
        raise store
    return store


def _wait_for_listener(address: str, port: int, seconds: float) -> None:
    """Return when something listens there. Raises InputError, with the system's words, after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((address, port), timeout=CONNECT_SECONDS).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                said = error.strerror or error
                raise InputError(f"nothing to be reached there within {seconds:g} s: {said}") from None
        time.sleep(CONNECT_SECONDS / 10)


def meet(store: dist.Store, rank: int, world: int, seconds: float) -> str:
    """The name of this attempt, the same on all ranks. All ranks call it; `store` is the one they share.

    Raises InputError when they are not all there after `seconds`, with the numbers of those that are missing, or when
    they expect different numbers of ranks.
    """
    refused = _invite(store, world, seconds) if rank == 0 else _ask(store, rank, world, seconds)
    name, reason = refused
    if reason:
        raise InputError(reason)
    return name


def _ask(store: dist.Store, rank: int, world: int, seconds: float) -> tuple[str, str]:
    """Name, and why the ranks do not meet, if so; of a rank other than the first."""
    word, wait = uuid.uuid4().hex, timedelta(seconds=seconds + GRACE_SECONDS)
    store.set(f"ask/{rank}", word)
    try:
        store.wait([f"name/{word}"], wait)
        name = store.get(f"name/{word}").decode()
        own = Presence(world, socket.gethostname(), time.time())
        store.set(f"here/{name}/{rank}", json.dumps(asdict(own)))
        store.wait([f"word/{name}"], wait)
    except dist.DistStoreError:
        return "", f"the first rank did not answer within {seconds:g} s"
    return name, store.get(f"word/{name}").decode()


def _invite(store: dist.Store, world: int, seconds: float) -> tuple[str, str]:
    """Name, and why the ranks do not meet, if so; of the first rank."""
    name, deadline = uuid.uuid4().hex, time.monotonic() + seconds
    missing, asked, found = set(range(1, world)), set[str](), dict[int, Presence]()
    while missing and time.monotonic() < deadline:
        for rank in sorted(missing):
            if store.check([f"here/{name}/{rank}"]):
                found[rank] = Presence(**json.loads(store.get(f"here/{name}/{rank}")))
                _compare_clocks(rank, found[rank])
                missing.remove(rank)
            elif store.check([f"ask/{rank}"]) and (word := store.get(f"ask/{rank}").decode()) not in asked:
                asked.add(word)  # maybe of an attempt before this one: then nobody reads the answer
                store.set(f"name/{word}", name)
        time.sleep(POLL_SECONDS)
    reason = _reason(world, missing, found, seconds)
    store.set(f"word/{name}", reason)
    return name, reason


def _reason(world: int, missing: set[int], found: dict[int, Presence], seconds: float) -> str:
    other = [f"rank {rank} on {known.host} {known.world}" for rank, known in found.items() if known.world != world]
    if other:
        return f"rank 0 expects {world} ranks, {', '.join(other[:3])} - expected the same number everywhere"
    if missing:
        names = ", ".join(str(rank) for rank in sorted(missing)[:8]) + (", ..." if len(missing) > 8 else "")
        return f"no word from rank {names} of {world} within {seconds:g} s"
    return ""


def _compare_clocks(rank: int, presence: Presence) -> None:
    behind = time.time() - presence.time
    if abs(behind) > SKEW_SECONDS:
        print(
            f"warning: the clock of rank {rank} on {printable(presence.host)} is {behind:+.0f} s from that of rank 0 -"
            " torchrun takes a machine for lost from some 15 s on: set the clocks by NTP",
            file=sys.stderr,
        )
