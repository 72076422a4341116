"""The page of all keys of a config, written from its schema: what python -m utils.config.reference prints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from utils.config.loading import CONFIGS
from utils.config.schema import COMPLETE, NEEDED

Described = Mapping[str, Any]  # what JSON schema says of a value
ABOUT = """# All keys of a config

Written by `make schema` from configs/schema.json: change the config's class instead of this page. How files and the
command line are merged: [configs.md](../configs.md); the keys of data in more words: [data.md](../data.md). A part is
chosen by its `type`; where it has no key that must be given, its name alone stands for it with its defaults. "Its own"
is a mapping with the defaults of its own table.
"""
HEAD = "| Key | Type | Range | Default | What |\n|---|---|---|---|---|"
LONGEST = 40  # characters of a default that is shown
LIMITS = {"minimum": "≥ {}", "exclusiveMinimum": "> {}", "maximum": "≤ {}", "exclusiveMaximum": "< {}",
          "minItems": "{} or more", "maxItems": "at most {}"}  # fmt: skip


def page(schema: Described) -> str:
    """The page in Markdown: the config at the top, then each kind of part by name, with its parts."""
    definitions = schema["$defs"]
    parts = [text for name in sorted(definitions) if "." not in name for text in _kind(name, definitions)]
    own = {key: value for key, value in schema["properties"].items() if key != "base"}  # of files, see configs.md
    return "\n\n".join([ABOUT.strip(), "## The config", *_keys(own, schema), *parts]) + "\n"


def _kind(name: str, definitions: Described) -> Iterator[str]:
    """The sections of a kind of part, or of a mapping that is no choice. Keys of all parts stand once, above."""
    yield f"## {_title(name)}"
    if "oneOf" not in definitions[name]:
        yield from _body(definitions[name])
        return
    known = {key.partition(".")[2]: value for key, value in definitions.items() if key.startswith(f"{name}.")}
    default = definitions[name]["oneOf"][0].get("title")
    yield f"One of: {', '.join(f'`{part}`' for part in known)}." + (f" Without a type: `{default}`." if default else "")
    shared = _shared([part["properties"] for part in known.values()])
    if shared:
        yield "Of all:"
        yield from _keys(shared, {})
    for part, described in known.items():
        yield f"### {_title(name)}: {part}"
        own = {key: value for key, value in described["properties"].items() if key not in (*shared, "type")}
        yield from _body({**described, "properties": own})


def _shared(properties: list[Described]) -> dict[str, Any]:
    """The keys that mean the same in each of several parts."""
    first, *others = properties
    return {key: value for key, value in first.items() if others and all(o.get(key) == value for o in others)}


def _body(described: Described) -> Iterator[str]:
    yield " ".join(described.get("description", "").split("\n\n")[0].split()) or "A mapping."
    yield from _keys(described["properties"], described)


def _keys(properties: Described, owner: Described) -> Iterator[str]:
    """The table of keys; nothing where there are none."""
    rows = [_row(key, value, key in owner.get(NEEDED, ())) for key, value in properties.items()]
    if rows:
        yield "\n".join([HEAD, *rows])


def _row(key: str, described: Described, needed: bool) -> str:
    default = "must be given" if needed else _default(described["default"]) if "default" in described else ""
    told = described.get("description", "")
    if COMPLETE in described:
        told = "; ".join(filter(None, [told, f"complete in {', '.join(described[COMPLETE])}"]))
    cells = (f"`{key}`", type_of(described), range_of(described), default, told)
    return "| " + " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in cells) + " |"


def type_of(described: Described) -> str:
    """What kind of value it is, in words; parts as links to their sections."""
    if "$ref" in described:
        title = _title(described["$ref"].rpartition("/")[2])
        return f"[{title}](#{title.lower()})"
    if "anyOf" in described:
        return " or ".join(dict.fromkeys(type_of(option) for option in described["anyOf"]))
    if "enum" in described or "const" in described:
        return " or ".join(_value(value) for value in described.get("enum") or [described["const"]])
    return _plain_type(described)


def _plain_type(described: Described) -> str:
    kind = str(described.get("type", "any"))
    if "prefixItems" in described:
        return f"[{', '.join(type_of(item) for item in described['prefixItems'])}]"
    if kind == "array":
        return f"list of {type_of(described.get('items', {}))}"
    if kind == "object":
        return f"mapping to {type_of(described.get('additionalProperties') or {})}"
    names = {"string": "text", "boolean": "true or false"}
    return ", ".join([names.get(kind, kind), *(f"as {_value(e)}" for e in described.get("examples", ())[:1])])


def range_of(described: Described) -> str:
    """The limits of a number, or of how many entries a list has; of several kinds those of each that has any."""
    if "anyOf" in described:
        return " or ".join(dict.fromkeys(filter(None, map(range_of, described["anyOf"]))))
    if "prefixItems" in described:
        return " and ".join(dict.fromkeys(filter(None, map(range_of, described["prefixItems"]))))
    own = ", ".join(words.format(described[key]) for key, words in LIMITS.items() if key in described)
    inner = described.get("items") or described.get("additionalProperties")
    return "; ".join(filter(None, [own, range_of(inner) if inner else ""]))


def _default(value: Any) -> str:
    """A default, short; of a part that has many keys its type, of another mapping that there is one."""
    if isinstance(value, dict) and len(json.dumps(value)) > LONGEST:
        return f"`{value['type']}`" if "type" in value else "its own"
    return _value(value)


def _value(value: Any) -> str:
    return f"`{value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}`"


def _title(name: str) -> str:
    return name.removesuffix("Config")


if __name__ == "__main__":
    print(page(json.loads((CONFIGS / "schema.json").read_text("utf-8"))), end="")
