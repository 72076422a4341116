"""JSON of others, read with the bounds that every camera path keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from utils.errors import InputError

LARGEST_FILE = 64 << 20
MOST = 1e12  # world units, and frames' scales


def load_json(path: Path, what: str) -> Any:
    """What a file holds; raises InputError, which says what was expected, where it is none or too large."""
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise InputError(f"{path}: larger than {LARGEST_FILE >> 20} MB - expected {what}")
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror} - expected {what}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not JSON - {' '.join(str(error).split())}") from error
