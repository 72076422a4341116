"""Which command made which file of a run: commands.json, for who wants to make it again."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from utils.console import PREFIX
from utils.errors import StorageError, printable
from utils.files import write_json

NAME = "commands.json"


def note_command(folder: Path, files: Sequence[Path]) -> None:
    """Keep the command line of this process as that which made these files or folders of the run folder.

    Files elsewhere are left out. A disk that refuses is a warning.
    """
    root = folder.resolve()
    names = [str(path.relative_to(root)) for path in (f.resolve() for f in files) if path.is_relative_to(root)]
    if not names:
        return
    try:
        write_json(folder / NAME, {**noted_commands(folder), **dict.fromkeys(names, this_command())})
    except StorageError as error:
        print(f"warning: {printable(str(error))}", file=sys.stderr)


def noted_commands(folder: Path) -> dict[str, str]:
    """The files that are known, relative to the run folder, and their commands; none where the file is none of ours."""
    try:
        found = json.loads((folder / NAME).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    entries = found.items() if isinstance(found, dict) else ()
    return {name: command for name, command in entries if isinstance(command, str)}


def this_command() -> str:
    """The command line of this process, for a shell."""
    script = Path(sys.argv[0])
    words = ["python", script.name] if script.suffix == ".py" else [script.name]
    return shlex.join([*words, *sys.argv[1:]])


def words_of(script: str) -> list[str]:
    """How a script of ours is called beside this process: `python train.py`, or `surfaces-train` of an installed copy.
    """
    if Path(sys.argv[0]).name.startswith(PREFIX):
        return [PREFIX + script.removesuffix(".py").replace("_", "-")]
    return ["python", script]
