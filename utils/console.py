"""The commands of an installed copy: `surfaces-train` runs train.py, and so on for each script at the top.

The copy is one folder with the files of a checkout in it. It comes first on the path here, as the folder of a script
does, so the same imports find the same files.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

PREFIX = "surfaces-"
FOLDER = Path(__file__).resolve().parents[1]


def main() -> None:
    """Run the script that this process was called as; ends the process with its exit code, 2 where there is none."""
    called = Path(sys.argv[0]).name
    script = called.removeprefix(PREFIX).replace("-", "_")
    if not (FOLDER / f"{script}.py").is_file():
        print(f"error: called as {called[:60]!r} - expected a name like {PREFIX}train", file=sys.stderr)
        sys.exit(2)
    sys.path.insert(0, str(FOLDER))
    runpy.run_module(script, run_name="__main__")
