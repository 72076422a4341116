"""A first look at what a script was given, before torch is imported, which takes longer than to find most mistakes.

A config is compared with configs/schema.json. What depends on several keys at once, the classes find later.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dataio.files import need_folder
from engine.renames import RENAMED
from utils.config.loading import CONFIGS, overrides_tree, read_tree
from utils.config.mistakes import describe, key_of
from utils.config.schema import Schema
from utils.config.yaml_text import Node, Place
from utils.errors import InputError
from utils.files import check_folder

SCHEMA = CONFIGS / "schema.json"
ROOT = Path(__file__).parents[1]
VIEWER = ("viser", "websockets")
A_CHECKOUT = 60.0  # seconds within which all files of a checkout are written


def check_config(path: str | Path, overrides: Sequence[str] = (), *, saved: bool = False) -> Node:
    """Raise InputError with the mistakes that the schema shows in a config, as `engine.experiment.read_config` does.

    Returns what was read, without defaults.
    """
    tree = read_tree(path, overrides, renamed=RENAMED, saved=saved)
    _compare(tree, Schema(_content()))
    return tree


def check_places(tree: Node, output: Path) -> None:
    """Raise InputError where the files that a config names are not there, or cannot be written to."""
    check_folder(output, "output")
    check_data(tree)
    teacher = _text(tree, "teacher")
    if teacher:
        run_folder(Path(teacher))


def check_data(tree: Node) -> None:
    """Raise InputError where there are no data at `data.path`, or no place for what is made of them."""
    path = _text(tree, "data", "path")
    if path or _text(tree, "data", "type") in (None, "auto"):
        need_folder(path)
    for key in ("cache", "prepared"):
        folder = _text(tree, "data", key)
        if folder:
            check_folder(Path(folder).expanduser(), f"data.{key}")


def output_folder(tree: Node, config_path: str | Path) -> Path:
    """The run folder: `output`, or runs/CONFIG-DATA."""
    output, path = _text(tree, "output"), _text(tree, "data", "path")
    if output:
        return Path(output).expanduser()
    data = Path(path).resolve().name if path else _text(tree, "data", "type") or "auto"
    return Path("runs") / f"{Path(config_path).stem}-{data}"


def _text(tree: Node, *keys: str) -> str | None:
    """What a config says at a key; None where it says nothing, or nothing that is text."""
    node: Node | None = tree
    for key in keys:
        if node is None or (key == "type" and isinstance(node.value, str)):  # a name alone is a type
            break
        node = node.child(key)
    return node.value if node is not None and isinstance(node.value, str) else None


def check_renderer(text: str) -> None:
    """Raise InputError for the mistakes in a renderer's name or mapping, as `engine.showing.read_renderer` does."""
    _check_part(text, "renderer", "RendererConfig")


def check_path(text: str) -> str:
    """Raise InputError for the mistakes in a camera path's name or mapping, as `engine.showing.read_path` does.

    Returns the name of its files: that of a path file, or the path's type.
    """
    if text.lower().endswith(".json") and not text.lstrip().startswith("{"):
        if not Path(text).expanduser().is_file():
            raise InputError(f"--path: {text}: no such file - expected a camera path")
        return Path(text).stem
    _check_part(text, "path", "PathConfig")
    return _text(overrides_tree([part_override(text, "path")]), "path", "type") or "path"


def check_protocol(text: str) -> None:
    """Raise InputError for the mistakes in a protocol's name or mapping, as `evaluation.surfaces.read_protocol` does.
    """
    _check_part(text, "protocol", "ProtocolConfig")


def _check_part(text: str, key: str, kind: str) -> None:
    """Raise InputError for the mistakes in what an option says of a part: its name, or a mapping."""
    schema = Schema(_content(), {"type": "object", "properties": {key: {"$ref": f"#/$defs/{kind}"}}})
    _compare(overrides_tree([part_override(text, key)]), schema)


def part_override(text: str, key: str) -> str:
    """What an option says of a part, its name or a YAML mapping with its `type`, as an override of a config's key."""
    return f"{key}={text}" if text.lstrip().startswith("{") else f"{key}.type={text}"


def check_run(path: str | Path, overrides: Sequence[str] = ()) -> Path:
    """The folder of the run that a run folder or one of its checkpoints means. Raises InputError.

    overrides: changes to the run's config, which are looked at too.
    """
    folder = run_folder(Path(path))
    if not has_checkpoint(folder):
        raise InputError(f"{folder}: no complete checkpoint in {folder / 'checkpoints'} - train it first")
    check_config(folder / "config.yaml", overrides, saved=True)
    return folder


def has_checkpoint(folder: Path) -> bool:
    """Whether a run folder has a complete checkpoint."""
    return any((folder / "checkpoints").glob("step_*/manifest.json"))


def run_folder(path: Path) -> Path:
    """The run folder that `path` is, or in which it is a checkpoint. Raises InputError."""
    if (path / "manifest.json").is_file():
        folder = path.resolve().parent.parent
        if (folder / "config.yaml").is_file():
            return folder
        raise InputError(f"{path}: no config.yaml in {folder} - expected a checkpoint inside a run folder")
    if not (path / "config.yaml").is_file():
        what = "not a run folder" if path.exists() else "no such folder"
        raise InputError(f"{path}: {what} - expected a run folder, with config.yaml and checkpoints/ in it")
    return path


def check_viewer() -> None:
    """Raise InputError where what a viewer needs beyond requirements.txt is not installed."""
    missing = [name for name in VIEWER if find_spec(name) is None]
    if missing:
        raise InputError(f"{missing[0]} is not installed - pip install -r requirements-view.txt -c constraints.txt")


def keys() -> list[str]:
    """The keys of a config that need no model: `seed`, `train.steps`, those of all data formats."""
    schema, empty = Schema(_content()), Node({}, Place(""), Place(""))
    top = schema.keys(empty, ())
    return top + [f"{key}.{inner}" for key in ("data", "train", "optimizer") for inner in schema.keys(empty, (key,))]


@cache
def _content() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(SCHEMA.read_text("utf-8"))
    return content


def _compare(tree: Node, schema: Schema) -> None:
    try:
        schema.validate(tree)
    except ValidationError as error:
        if not _may_be_new(set(_named(error, tree))):
            raise InputError("\n".join(describe(error, tree, schema))) from None


def _named(error: ValidationError, tree: Node) -> Iterator[str]:
    """The keys that are wrong, and unknown types."""
    for detail in error.errors(include_url=False):
        if detail["type"] == "unknown_type":
            yield str(detail["input"])
        elif detail["type"] == "missing":
            yield str(detail["loc"][-1])
        else:
            yield from key_of(tree, detail["loc"])[-1:]


def _may_be_new(words: set[str]) -> bool:
    """Whether a source that is newer than the schema names one of these keys or types: then its classes decide."""
    written = SCHEMA.stat().st_mtime + A_CHECKOUT
    sources = (path for folder in ("engine", "dataio", "models", "utils") for path in (ROOT / folder).rglob("*.py"))
    newer = (path.read_text("utf-8") for path in sources if path.stat().st_mtime > written)
    named = re.compile(rf"^    ({'|'.join(map(re.escape, words))}): |\"({'|'.join(map(re.escape, words))})\"", re.M)
    return any(named.search(text) for text in newer)
