"""Host lists as schedulers write them: `gpu[01-04],login` -> one name per machine."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path

from utils.errors import InputError

MOST_HOSTS = 100_000
SHOWN = 80  # characters of a list in a message
_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?(?::(\d+))?")


def expand_hosts(text: str) -> list[str]:
    """The names that a list of SLURM's means, in its order: `a[1,3-5]-ib` is a1-ib, a3-ib, ...

    Zeros in front stay (`gpu[08-10]`), a name may have several brackets, `[0-6:2]` counts by twos. Raises InputError
    for what is no such list.
    """
    hosts = [host for item in _items(text) for host in _expand(item, text)]
    if not hosts or not all(re.fullmatch(r"[\w.:-]+", host) for host in hosts):
        raise _no_list(text)
    return hosts


def hosts_of_file(path: Path) -> list[str]:
    """The names in a file of hosts, as PBS_NODEFILE, one line per process: each once, in their order.

    Raises InputError where it cannot be read or names none.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: the scheduler's list of hosts cannot be read: {error}") from None
    hosts = list(dict.fromkeys(line.split()[0] for line in lines if line.strip()))
    if not hosts:
        raise InputError(f"{path}: got no host - expected the scheduler's list, one per line")
    return hosts


def _items(text: str) -> list[str]:
    """The list's items: parted by commas, but for those in brackets."""
    return [item for item in re.split(r",(?![^\[]*\])", text.strip()) if item]


def _expand(item: str, text: str) -> list[str]:
    parts = _BRACKETS.split(item)  # fixed, inside of brackets, fixed, ...
    choices = [_numbers(part, text) if i % 2 else [part] for i, part in enumerate(parts)]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > MOST_HOSTS:
        raise _no_list(text)
    return ["".join(words) for words in product(*choices)]


def _numbers(inside: str, text: str) -> list[str]:
    found: list[str] = []
    for item in inside.split(","):
        match = _RANGE.fullmatch(item)
        if not match:
            raise _no_list(text)
        first, last, step = match[1], match[2] or match[1], int(match[3] or 1)
        if step < 1 or not 0 <= int(last) - int(first) < MOST_HOSTS * step:
            raise _no_list(text)
        found += [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1, step)]
    return found


def _no_list(text: str) -> InputError:
    return InputError(f"got {text[:SHOWN]!r} - expected a list of hosts like gpu[01-04],login")
