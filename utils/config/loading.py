"""YAML files and command-line overrides -> one validated config, or all mistakes at once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from utils.config.mistakes import closest, describe, did_you_mean
from utils.config.parts import Origin, StrictModel
from utils.config.schema import Schema, json_schema
from utils.config.yaml_text import MAX_BYTES, Node, Place, merge, parse, write
from utils.errors import InputError

ModelT = TypeVar("ModelT", bound=StrictModel)
MOST_BASES = 100
CONFIGS = Path(__file__).parents[2] / "configs"


def load_config(
    path: str | Path,
    overrides: Sequence[str],
    model: type[ModelT],
    *,
    renamed: Mapping[str, str] | None = None,
    instead: Mapping[str, Sequence[str]] | None = None,
    saved: bool = False,
) -> ModelT:
    """The config in the YAML file `path` as a `model`.

    `base: FILE` (or a list, later ones win) names the files that this one completes; each is looked up
    beside the file, then in the project's `configs/` and `configs/data/`. So is `path` itself where it is
    `configs/FILE` and there is none: an installed copy brings its own. `overrides` are
    `key.sub=value` with values in YAML; they win over all files. How they merge: docs/configs.md.

    renamed: keys of earlier versions, each with its name of today; `*` stands for any one key on the way. A name
    `../a.b` is one beside the mapping that the key was in. They are mistakes, but in a config that a run has saved,
    where they are read as what they meant.

    instead: by the key of a mapping, those in it that stand for one another: one that is given takes the others away
    that were inherited.

    Raises `InputError` with one line per mistake: `file:line:column: key: what (got X); did you mean 'y'?`.
    """
    return _validated(read_tree(path, overrides, renamed=renamed, instead=instead, saved=saved), model)


def read_tree(
    path: str | Path,
    overrides: Sequence[str],
    *,
    renamed: Mapping[str, str] | None = None,
    instead: Mapping[str, Sequence[str]] | None = None,
    saved: bool = False,
) -> Node:
    """What `load_config` validates: files and overrides merged, keys by their names of today. Raises `InputError`."""
    mistakes: list[str] = []
    tree = _Files(mistakes, instead or {}).read(_ours_if_missing(Path(path)))
    tree = _overridden(tree, _parse_overrides(overrides, mistakes), instead or {})
    for old, new in (renamed or {}).items():
        _rename(tree, old.split("."), new, None if saved else mistakes)
    return _without(mistakes, tree)


def from_command_line(overrides: Sequence[str], model: type[ModelT]) -> ModelT:
    """A `model` of nothing but `key.sub=value`, with values in YAML. Raises `InputError` as `load_config` does."""
    return _validated(overrides_tree(overrides), model)


def overrides_tree(overrides: Sequence[str]) -> Node:
    """What `from_command_line` validates. Raises `InputError`."""
    mistakes: list[str] = []
    return _without(mistakes, _parse_overrides(overrides, mistakes))


def _without(mistakes: Sequence[str], tree: Node) -> Node:
    if mistakes:
        raise InputError("\n".join(mistakes))
    return tree


def _validated(tree: Node, model: type[ModelT]) -> ModelT:
    try:
        # JSON mode is strict about kinds (no "on" for true) and yet takes a list for a tuple.
        config = model.model_validate_json(json.dumps(tree.plain()), strict=True)
    except ValidationError as error:
        schema = Schema(json_schema(model))
        raise InputError("\n".join(describe(error, tree, schema))) from None
    config._origin = Origin(tree)
    return config


def place_of(config: StrictModel, *keys: str) -> str:
    """`file:line:column` where a key of a loaded config was written, or the command line; empty where it was not."""
    node = config._origin.tree
    for key in keys:
        node = node.child(key) if node is not None else None
    return "" if node is None else str(node.key)


def to_yaml(config: BaseModel) -> str:
    """The whole config as YAML, defaults included; `load_config` reads it back to an equal config."""
    return write(_type_first(config.model_dump(mode="json")))


def differences(a: BaseModel, b: BaseModel) -> list[str]:
    """`key: old -> new` for each value that differs between two configs, in the order of their fields."""
    old, new = leaves(a), leaves(b)
    keys = dict.fromkeys((*old, *new))
    shown = ((key, old.get(key, "(absent)"), new.get(key, "(absent)")) for key in keys)
    return [f"{key}: {before} -> {after}" for key, before, after in shown if before != after]


def leaves(config: BaseModel) -> dict[str, Any]:
    """Every value of a config by its dotted key, in the order of its fields; lists of plain values stay whole."""
    return dict(flattened(config.model_dump(mode="json")))


class _Files:
    """Reads a config file and the files that it names as its base."""

    def __init__(self, mistakes: list[str], instead: Mapping[str, Sequence[str]]) -> None:
        """instead: see `load_config`."""
        self.mistakes, self.instead = mistakes, instead
        self.done: dict[Path, Node] = {}
        self.roots = [_real(CONFIGS)]
        self.named = 0  # bases so far

    def read(self, path: Path) -> Node:
        if not path.is_file():
            raise InputError(_no_file(path))
        self.roots.append(_real(path.parent))
        if not self.is_ours(path):
            raise InputError(f"{_shown(path)}: a link that leads out of its folder - expected the file itself")
        return self.complete(path, ())

    def complete(self, path: Path, chain: tuple[Path, ...]) -> Node:
        """The tree of `path` merged over its bases; `chain` holds the files that led here."""
        file = _real(path)
        if file not in self.done:
            tree = parse(_read_text(path), _shown(path), self.mistakes)
            self.done[file] = self.with_bases(_as_mapping(tree, path), path, (*chain, file))
        return self.done[file]

    def with_bases(self, tree: Node, path: Path, chain: tuple[Path, ...]) -> Node:
        entries = dict(tree.value) if isinstance(tree.value, dict) else {}
        base = entries.pop("base", None)
        merged = Node({}, tree.place, tree.key)
        for name in self.base_names(base) if base else ():
            found = self.find(str(name.value), path, name.place)
            if _real(found) in chain:
                circle = " -> ".join(file.name for file in (*chain, found))
                raise InputError(f"{name.place}: base: files name each other in a circle: {circle}")
            merged = _overridden(merged, self.complete(found, chain), self.instead)
        return _overridden(merged, Node(entries, tree.place, tree.key), self.instead)

    def is_ours(self, path: Path) -> bool:
        """Whether a file lies, links followed, in the config's folder or in the project's."""
        return any(_real(path).is_relative_to(root) for root in self.roots)

    def base_names(self, base: Node) -> list[Node]:
        """The names in `base`. Raises InputError when there are more in all than any config has."""
        names = base.value if isinstance(base.value, list) else [base]
        wrong = [name for name in names if not isinstance(name.value, str) or not name.value.isprintable()]
        self.mistakes += [f"{name.place}: base: should be a file or a list of files" for name in wrong]
        self.named += len(names)
        if self.named > MOST_BASES:
            raise InputError(f"{base.place}: base: more than {MOST_BASES} files in all, which no config has")
        return [name for name in names if name not in wrong]

    def find(self, name: str, path: Path, place: Place) -> Path:
        """The file that `name`, written in the file `path`, means; it must lie in a folder of configs."""
        folders = (path.parent, CONFIGS, CONFIGS / "data")
        for candidate in (folder / name for folder in folders):
            if not self.is_ours(candidate):
                raise InputError(f"{place}: base: {name!r} lies outside the config's folder and configs/")
            if candidate.is_file():
                return candidate
        near = [file.name for folder in folders for file in sorted(folder.glob("*.yaml"))]
        raise InputError(f"{place}: base: no file {name!r}{did_you_mean(name, near)}")


def _overridden(parent: Node, child: Node, instead: Mapping[str, Sequence[str]]) -> Node:
    """`merge`, without what in the parent stands for a key that the child gives another one for."""
    for key, names in instead.items():
        old, new = parent.child(key), child.child(key)
        given = {name for name in names if new is not None and getattr(new.child(name), "value", None) is not None}
        if given and old is not None and isinstance(old.value, dict) and isinstance(parent.value, dict):
            kept = {name: node for name, node in old.value.items() if name in given or name not in names}
            parent = Node({**parent.value, key: Node(kept, old.place, old.key)}, parent.place, parent.key)
    return merge(parent, child)


def _ours_if_missing(path: Path) -> Path:
    """`path`, or the project's file of that name where nothing is at `configs/FILE` in the current folder."""
    ours = CONFIGS.joinpath(*path.parts[1:])
    named = path.parts[:1] == (CONFIGS.name,) and not os.path.lexists(path)
    return ours if named and ours.is_file() else path


def _no_file(path: Path) -> str:
    if path.is_dir():
        return f"{_shown(path)}: a folder - expected a config file (.yaml)"
    if "=" in str(path):
        return f"{path}: stands where the config is expected, as in configs/neus_hash.yaml {path}"
    files = (*CONFIGS.rglob("*.yaml"), *path.parent.glob("*.yaml"))
    known = {file.stem: file for file in sorted(files, key=lambda file: (file.parent == path.parent, str(file)))}
    near = closest(path.stem, known)
    hint = "" if near is None else f"; did you mean {_shown(known[near])!r}?"
    return f"{_shown(path)}: no such config file{hint}"


def _read_text(path: Path) -> str:
    try:
        data = path.read_bytes() if path.stat().st_size <= MAX_BYTES else None
    except OSError as error:
        raise InputError(f"{_shown(path)}: cannot be read: {error.strerror}") from None
    if data is None:
        raise InputError(f"{_shown(path)}: larger than {MAX_BYTES >> 20} MB, which no config is")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InputError(f"{_shown(path)}:{line}: not UTF-8 text") from None


def _real(path: Path) -> Path:
    # Path.resolve() raises on a loop of links; this leaves it to the reading.
    return Path(os.path.realpath(path))


def _shown(path: Path) -> str:
    """`path` as short as it can be said from the current folder."""
    absolute = os.path.abspath(path)
    return absolute.removeprefix(os.path.join(os.getcwd(), ""))


def _as_mapping(tree: Node, path: Path) -> Node:
    if tree.value is None:
        return Node({}, tree.place, tree.key)
    if not isinstance(tree.value, dict):
        raise InputError(f"{_shown(path)}:1:1: a config is a mapping of keys to values")
    return tree


def _parse_overrides(overrides: Sequence[str], mistakes: list[str]) -> Node:
    """All overrides as one tree, so that `a.type=x a.b=y` means the same in any order."""
    place = Place("command line")
    tree = Node({}, place, place)
    for override in overrides:
        key, equals, text = override.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path):
            mistakes.append(f"{place}: expected key.sub=value (got {override!r})")
            continue
        try:
            value = parse(text, str(place), mistakes, in_file=False)
        except InputError as error:
            reason = str(error).removeprefix(f"{place}: ")
            mistakes.append(f"{place}: {key}: {reason}; quote the value (got {text!r})")
            continue
        _insert(tree, path, value)
    return tree


def _rename(
    tree: Node,
    old: Sequence[str],
    new: str,
    mistakes: list[str] | None,
    shown: str = "",
    above: Node | None = None,
) -> None:
    """Give a key of `tree` its new name, or, with `mistakes`, refuse it by a line that says the new name."""
    if not isinstance(tree.value, dict):
        return
    for key in list(tree.value) if old[0] == "*" else [key for key in tree.value if key == old[0]]:
        if len(old) > 1:
            _rename(tree.value[key], old[1:], new, mistakes, f"{shown}{key}.", tree)
        elif mistakes is None:
            _insert(*_target(tree, above, new), tree.value.pop(key))
        else:
            name = ".".join([*shown.split(".")[:-2], new[3:]]) if new.startswith("../") else f"{shown}{new}"
            mistakes.append(f"{tree.value[key].key}: {shown}{key}: is now called {new.lstrip('./')}: write {name}")


def _target(tree: Node, above: Node | None, new: str) -> tuple[Node, list[str]]:
    """Where a key of the mapping `tree`, which lies in `above`, goes by its new name."""
    if new.startswith("../") and above is not None:
        return above, new[3:].split(".")
    return tree, [new]


def _insert(tree: Node, path: Sequence[str], value: Node) -> None:
    for part in path[:-1]:
        entries = tree.value
        assert isinstance(entries, dict)
        if not isinstance(getattr(entries.get(part), "value", None), dict):
            entries[part] = Node({}, value.place, value.place)
        tree = entries[part]
    assert isinstance(tree.value, dict)
    tree.value[path[-1]] = value


def _type_first(value: Any) -> Any:
    """`value` with the `type` of each mapping before its other keys, which it gives their meaning."""
    if isinstance(value, list):
        return [_type_first(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {key: _type_first(value[key]) for key in sorted(value, key=lambda key: key != "type")}


def flattened(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of nested mappings and lists, with its dotted key."""
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        value = dict(enumerate(value))
    if not isinstance(value, dict) or not value:
        yield key, value
        return
    for name, item in value.items():
        yield from flattened(item, f"{key}.{name}" if key else str(name))
