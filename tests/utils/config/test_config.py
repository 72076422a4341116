"""Configs: what YAML means, how files and overrides combine, and what is said about every mistake."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, cast

import pytest
import yaml
from pydantic import Field, ValidationError

import utils.config.loading
from tests.support.sources import ROOT
from utils.config.loading import differences, load_config, to_yaml
from utils.config.parts import Choice, Part, StrictModel, discover, parts
from utils.config.schedule import Schedule, constant
from utils.config.schema import json_schema
from utils.errors import InputError


class GemConfig(Part):
    """A kind for the tests."""


class RubyConfig(GemConfig):
    type: Literal["ruby"] = "ruby"
    carats: int = Field(default=1, ge=1)
    size: tuple[float, float] = (1.0, 2.0)


class PearlConfig(GemConfig):
    type: Literal["pearl"] = "pearl"
    shell: Choice[GemConfig] | None = None


class MineConfig(Part):
    """A kind with a type that is meant when none is said."""

    default_type = "open"
    path: Path | None = None


class OpenMineConfig(MineConfig):
    type: Literal["open"] = "open"


class DeepMineConfig(MineConfig):
    type: Literal["deep"] = "deep"
    depth: float | Literal["auto"] = "auto"


class Work(StrictModel):
    steps: int = Field(default=100, gt=0)
    rate: Schedule = constant(0.5)
    tool: Literal["pick", "spade"] = "pick"
    night: bool = False
    rest: Schedule = Field(default=cast(Any, 3), description="a number may be the default, too")
    tools: tuple[str, Path] = ("a", Path("b"))


class Config(StrictModel):
    mine: Choice[MineConfig]
    gem: Choice[GemConfig] = RubyConfig()
    gems: list[Choice[GemConfig]] = []
    work: Work = Work()
    weights: dict[str, Schedule] = {}
    far: float = 1e9


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(utils.config.loading, "CONFIGS", tmp_path / "configs")
    (tmp_path / "configs" / "data").mkdir(parents=True)
    return tmp_path


def load(folder: Path, text: str, *overrides: str) -> Config:
    (folder / "a.yaml").write_text(text, "utf-8")
    return load_config("a.yaml", overrides, Config)


def mistakes(folder: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(InputError) as caught:
        load(folder, text, *overrides)
    return str(caught.value).splitlines()


# --- YAML ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: 2\na: 3", "a.yaml:3:1: a: duplicate key (first at line 1)"),
        ("a: !!python/name:os.system x",
         "a.yaml:1:4: a: tag !!python/name:os.system is not allowed (got 'x')"),
        ("a: !!python/object/apply:os.getcwd []",
         "a.yaml:1:4: a: tag !!python/object/apply:os.getcwd is not allowed"),
        ("a: .nan", "a.yaml:1:4: a: not a number (got '.nan')"),
        ("[1]: 2", "a.yaml:1:1: a key must be a name"),
        ("a: [", "a.yaml:1:5: not valid YAML: expected the node content, but found '<stream end>' - a bracket is not"
         " closed"),
        ("a:\n\tb: 1", "a.yaml:2:1: not valid YAML: a tab - indent with blanks"),
        ("a: {b: 1\nc: 2", "a.yaml:2:2: not valid YAML: expected ',' or '}', but got ':' - the { at line 1, column 4,"
         " is not closed"),
        ("a: [1,\nb: 2", "a.yaml:2:5: not valid YAML: expected ',' or ']', but got '<stream end>' - the [ at line 1,"
         " column 4, is not closed"),
        ("a: 'b", "a.yaml:1:6: not valid YAML: found unexpected end of stream - the quote at line 1, column 4, is not"
         " closed"),
        ("a: 1\n--- \nb: 2", "a.yaml:2:1: not valid YAML: but found another document"),
        ("a: 1\nb: \x01", "a.yaml:2:1: character '\\x01' is not allowed in YAML"),
        ("[" * 100_000, "a.yaml:1:65: not valid YAML: nested too deeply"),
        ("a: &a [*a]", "a.yaml:1:4: too large or too deep after following aliases"),
        ("- 1", "a.yaml:1:1: a config is a mapping of keys to values"),
        ("a: " + "9" * 5000, "a.yaml:1:4: a: not a number (got '" + "9" * 60 + "')"),
        ("a: 1\n" * 300_000, "a.yaml: larger than 1 MB, which no config is"),
    ],
)  # fmt: skip
def test_bad_yaml_is_one_line(folder: Path, text: str, line: str) -> None:
    assert mistakes(folder, text) == [line]


def test_alias_bomb_is_refused(folder: Path) -> None:
    lines = ["a: &a [1,1,1,1,1,1,1,1,1]"]
    lines += [
        f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]"
        for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    assert "too large or too deep" in mistakes(folder, "\n".join(lines))[0]


def test_other_files_are_refused(folder: Path) -> None:
    (folder / "bytes.yaml").write_bytes(b"mine: {}\nx: \xff\n")
    (folder / "loop.yaml").symlink_to("loop.yaml")
    said = {}
    for name in ("bytes.yaml", "loop.yaml", "byte.yaml", "a.b=1", "configs"):
        with pytest.raises(InputError) as caught:
            load_config(name, [], Config)
        said[name] = str(caught.value)
    assert said == {
        "bytes.yaml": "bytes.yaml:2: not UTF-8 text",
        "loop.yaml": "loop.yaml: no such config file; did you mean 'loop.yaml'?",
        "byte.yaml": "byte.yaml: no such config file; did you mean 'bytes.yaml'?",
        "a.b=1": "a.b=1: stands where the config is expected, as in configs/neus_hash.yaml a.b=1",
        "configs": "configs: a folder - expected a config file (.yaml)",
    }


def test_a_byte_order_mark_is_no_mistake(folder: Path) -> None:
    (folder / "b.yaml").write_bytes("mine: {path: é}\r\nfar: 3\r\n".encode("utf-8-sig"))
    config = load_config("b.yaml", [], Config)
    assert config.far == 3 and config.mine.path == Path("é")


# --- parts --------------------------------------------------------------------------------------------------


def test_parts_register_and_are_chosen() -> None:
    assert list(parts(GemConfig)) == ["pearl", "ruby"]
    config = Config.model_validate({"mine": {}, "gem": {"type": "pearl", "shell": {"type": "ruby"}}})
    assert config.mine == OpenMineConfig()
    assert config.gem == PearlConfig(shell=RubyConfig())
    assert config.model_dump()["gem"]["shell"] == {"type": "ruby", "carats": 1, "size": (1.0, 2.0)}
    assert Config.model_validate(config.model_dump()) == config


def test_a_part_defined_later_is_found() -> None:
    with pytest.raises(ValidationError, match="unknown type; choices: pearl, ruby"):
        Config.model_validate({"mine": {}, "gem": {"type": "opal"}})

    class OpalConfig(GemConfig):
        type: Literal["opal"] = "opal"

    try:
        assert Config.model_validate({"mine": {}, "gem": {"type": "opal"}}).gem == OpalConfig()
        with pytest.raises(TypeError, match="OpalTwin"):

            class OpalTwin(GemConfig):
                type: Literal["opal"] = "opal"
    finally:
        utils.config.parts._registry[GemConfig].pop("opal")


def test_a_part_must_state_one_type() -> None:
    with pytest.raises(TypeError, match="write its type as"):

        class Wrong(GemConfig):
            type: str = "wrong"


def test_parts_of_another_kind_are_refused() -> None:
    with pytest.raises(ValidationError, match="should be a mapping with a `type`"):
        Config(mine=OpenMineConfig(), gem=cast(Any, OpenMineConfig()))


def test_discover_imports_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "gem_mine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "jade.py").write_text(
        "from typing import Literal\nfrom tests.utils.config.test_config import GemConfig\n"
        "class JadeConfig(GemConfig):\n    type: Literal['jade'] = 'jade'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    discover("gem_mine")
    assert utils.config.parts._registry[GemConfig].pop("jade").__name__ == "JadeConfig"


# --- files and overrides ------------------------------------------------------------------------------------


def test_everything_at_once(folder: Path) -> None:
    text = """
    mine: {type: deep, path: shaft, depth: 7}
    gem: {type: ruby, carats: 2e2, size: [3, 4]}
    gems: [{type: pearl, shell: {type: pearl}}]
    work: {steps: 200_000, rate: {type: exponential, start: 1, end: 5e-4}}
    weights: {dust: 0.1}
    """
    config = load(folder, text, "work.night=true", "weights.gold=1e-3", "mine.path=null")
    assert config.mine == DeepMineConfig(depth=7)
    assert config.gem == RubyConfig(carats=200, size=(3, 4))
    assert config.gems == [PearlConfig(shell=PearlConfig())]
    assert config.work.steps == 200_000 and config.work.night and config.work.rate(1) == 5e-4
    assert config.work.rest == constant(3) and config.work.tools == ("a", Path("b"))
    assert config.weights["gold"](0.3) == 1e-3 and config.weights["dust"](0.9) == 0.1
    assert load(folder, to_yaml(config)) == config
    assert to_yaml(load(folder, to_yaml(config))) == to_yaml(config)
    assert json.loads(json.dumps(config.model_dump(mode="json")))["weights"] == {"dust": 0.1, "gold": 1e-3}


def test_bases_merge_in_order_and_from_their_places(folder: Path) -> None:
    (folder / "configs" / "one.yaml").write_text(
        "work: {steps: 1, night: true}\nfar: 1\ngems: [{type: ruby}]\n"
    )
    (folder / "configs" / "data" / "two.yaml").write_text("base: ../one.yaml\nmine: {path: two}\nfar: 2\n")
    config = load(folder, "base: [one.yaml, two.yaml]\nwork: {steps: 3}\ngems: []\n")
    assert (config.work.steps, config.work.night, config.far, config.gems) == (3, True, 2, [])
    assert config.mine.path == Path("two")
    (folder / "one.yaml").write_text("mine: {path: near}\n")
    assert load(folder, "base: one.yaml").mine.path == Path("near")


def test_another_type_replaces_all_options(folder: Path) -> None:
    (folder / "b.yaml").write_text("mine: {path: x}\ngem: {type: ruby, carats: 5}\n")
    assert load(folder, "base: b.yaml\ngem: {type: pearl}").gem == PearlConfig()
    assert load(folder, "base: b.yaml\ngem: {type: ruby, size: [1, 1]}").gem == RubyConfig(
        carats=5, size=(1, 1)
    )
    assert load(folder, "base: b.yaml\ngem: {size: [1, 1]}").gem == RubyConfig(carats=5, size=(1, 1))
    assert load(folder, "base: b.yaml\nmine: {type: deep}").mine == DeepMineConfig(path=Path("x"))
    pearl = PearlConfig(shell=RubyConfig())
    assert load(folder, "base: b.yaml", "gem.shell.type=ruby", "gem.type=pearl").gem == pearl


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("base: a.yaml", "a.yaml:1:7: base: files name each other in a circle: a.yaml -> a.yaml"),
        ("base: [b.yaml]",
         "b.yaml:1:7: base: files name each other in a circle: a.yaml -> b.yaml -> a.yaml"),
        ("base: c.yaml", "a.yaml:1:7: base: no file 'c.yaml'; did you mean 'b.yaml'?"),
        ("base: ../secret.yaml",
         "a.yaml:1:7: base: '../secret.yaml' lies outside the config's folder and configs/"),
        ("base: /etc/passwd",
         "a.yaml:1:7: base: '/etc/passwd' lies outside the config's folder and configs/"),
        ("base: 3", "a.yaml:1:7: base: should be a file or a list of files"),
        (f"base: [{', '.join(['b.yaml'] * 101)}]", "a.yaml:1:7: base: more than 100 files in all, which no config has"),
        (f"base: [{', '.join(['b.yaml'] * 30_000)}]",
         "a.yaml:1:79984: not valid YAML: more than 10000 values, which no config has"),
        ('base: "b\\0.yaml"', "a.yaml:1:7: base: should be a file or a list of files"),
    ],
)  # fmt: skip
def test_bad_bases_are_one_line(folder: Path, text: str, line: str) -> None:
    (folder / "b.yaml").write_text("base: a.yaml")
    assert mistakes(folder, text) == [line]


def test_a_long_chain_of_bases_has_an_end(folder: Path) -> None:
    for i in range(200):
        (folder / f"c{i}.yaml").write_text(f"base: c{i + 1}.yaml")
    assert mistakes(folder, "base: c0.yaml") == ["c99.yaml:1:7: base: more than 100 files in all, which no config has"]


def test_links_do_not_lead_outside(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    secret = tmp_path_factory.mktemp("elsewhere") / "secret.yaml"
    secret.write_text("far: 1")
    (folder / "link.yaml").symlink_to(secret)
    assert "lies outside" in mistakes(folder, "base: link.yaml")[0]
    with pytest.raises(InputError, match=r"^link\.yaml: a link that leads out of its folder"):
        load_config("link.yaml", [], Config)
    (folder / "near.yaml").symlink_to("a.yaml")
    (folder / "a.yaml").write_text("mine: {}")
    assert load_config("near.yaml", [], Config).mine == OpenMineConfig()


# --- mistakes -----------------------------------------------------------------------------------------------


def test_all_mistakes_at_once_each_with_place_key_and_hint(folder: Path) -> None:
    (folder / "b.yaml").write_text("gem:\n  type: ruby\n  carat: 3\n")
    text = """base: b.yaml
mine: {type: deep, depth: far}
gems:
- {type: pearl, shell: {type: ruby, carats: 0, zz: 1}}
- {carats: 3}
- {type: rubi}
- {type: [1]}
- 4
work:
  steps: 1.5
  tool: spde
  night: on
  rate: {type: linear, start: 1}
weights: {a: true}
fra: 3
"""
    assert sorted(mistakes(folder, text, "work.stpes=5", "work.rate.end=x")) == sorted(
        [
            "a.yaml:2:27: mine.depth: should be a number or 'auto' (got 'far')",
            "b.yaml:3:3: gem.carat: unknown key (got 3); did you mean 'carats'?",
            "a.yaml:4:45: gems.0.shell.carats: should be greater than or equal to 1 (got 0)",
            "a.yaml:4:48: gems.0.shell.zz: unknown key (got 1); known here: carats, size, type",
            "a.yaml:5:3: gems.1: `type` is missing; choices: pearl, ruby (got {'carats': 3})",
            "a.yaml:6:10: gems.2.type: unknown type; choices: pearl, ruby (got 'rubi'); did you mean 'ruby'?",
            "a.yaml:7:10: gems.3.type: unknown type; choices: pearl, ruby (got [1])",
            "a.yaml:8:3: gems.4: should be a mapping with a `type` (got 4)",
            "a.yaml:10:10: work.steps: should be a whole number (got 1.5)",
            "a.yaml:11:9: work.tool: should be 'pick' or 'spade' (got 'spde'); did you mean 'spade'?",
            "a.yaml:12:10: work.night: should be true or false (got 'on')",
            "command line: work.rate.end: should be a number (got 'x')",
            "command line: work.stpes: unknown key (got 5); did you mean 'steps'?",
            "a.yaml:14:14: weights.a: should be a number or a mapping with a `type` (got True)",
            "a.yaml:15:1: fra: unknown key (got 3); did you mean 'far'?",
        ]
    )


@pytest.mark.parametrize(
    ("text", "override", "line"),
    [
        ("far: 1", "far=2", "a.yaml:1:1: mine: required but missing"),
        ("", "far=2", "a.yaml:1:1: mine: required but missing"),
        ("mine: 3", "far=2", "a.yaml:1:7: mine: should be a mapping with a `type` (got 3)"),
        ("mine: {}\nwork: 3", "far=2", "a.yaml:2:7: work: should be a mapping (got 3)"),
        ("mine: {}", "work.steps=-1", "command line: work.steps: should be greater than 0 (got -1)"),
        ("mine: {}", "far", "command line: expected key.sub=value (got 'far')"),
        ("mine: {}", "a..b=1", "command line: expected key.sub=value (got 'a..b=1')"),
        ("mine: {}", "far.x=1", "command line: far: should be a number (got {'x': 1})"),
        ("mine: {}", "base=b.yaml", "command line: base: unknown key (got 'b.yaml'); known here: "
         "far, gem, gems, mine, weights, work"),
        ("mine: {}", "far=a: b: c", "command line: far: not valid YAML: mapping values are not allowed here; "
         "quote the value (got 'a: b: c')"),
        ("mine: {}\nwork: {rate: {type: linear, start: 1, end: 2, begin: 0.5, until: 0.2}}", "far=1",
         "a.yaml:2:14: work.rate: `begin` should be less than `until` (got {'type': 'linear', 'start': 1, "
         "'end': 2, 'begin': 0.5, 'u...)"),
        ('mine: {path: "\\ud800"}', "far=1", None),
    ],
)  # fmt: skip
def test_single_mistakes(folder: Path, text: str, override: str, line: str | None) -> None:
    said = mistakes(folder, text, override)
    assert len(said) == 1
    assert line is None or said == [line]


# --- what else is made of a config --------------------------------------------------------------------------


def test_differences_name_keys_and_values() -> None:
    old = Config(mine=OpenMineConfig(), gems=[RubyConfig()])
    new = Config(
        mine=OpenMineConfig(path=Path("x")), gems=[RubyConfig(carats=2)], work=Work(rate=constant(1))
    )
    assert differences(old, old) == []
    assert differences(old, new) == ["mine.path: None -> x", "gems.0.carats: 1 -> 2", "work.rate: 0.5 -> 1.0"]
    swapped = differences(old, Config(mine=OpenMineConfig(), gem=PearlConfig(), gems=[RubyConfig()]))
    assert "gem.type: ruby -> pearl" in swapped and "gem.shell: (absent) -> None" in swapped


def test_schema_offers_every_part_and_is_json() -> None:
    schema = json.loads(json.dumps(json_schema(Config), allow_nan=False))
    offered = schema["$defs"]["GemConfig"]["oneOf"]
    assert offered[1:-1] == [{"$ref": "#/$defs/GemConfig.pearl"}, {"$ref": "#/$defs/GemConfig.ruby"}]
    assert offered[-1] == {"enum": ["pearl", "ruby"]}  # a name alone
    assert schema["properties"]["gem"]["$ref"] == "#/$defs/GemConfig"
    assert schema["$defs"]["GemConfig.ruby"]["properties"]["carats"]["minimum"] == 1
    assert schema["$defs"]["GemConfig.ruby"]["required"] == ["type"]
    assert "base" in schema["properties"] and "required" not in schema
    assert {"type": "number"} in schema["$defs"]["Work"]["properties"]["rate"]["anyOf"]
    text = json.dumps(schema)
    references = {word.split('"')[0] for word in text.split("#/$defs/")[1:]}
    assert references <= set(schema["$defs"]) and "x-choice" not in text


def test_configs_are_frozen_and_resolved_yaml_says_type_first() -> None:
    config, name = Config(mine=OpenMineConfig()), "far"
    with pytest.raises(ValidationError):
        setattr(config, name, 3)
    assert to_yaml(config).startswith("mine:\n  type: open\n  path: null\n")
    assert yaml.safe_load(to_yaml(config))["gem"] == {"type": "ruby", "carats": 1, "size": [1.0, 2.0]}


def test_config_and_schedule_do_without_torch() -> None:
    code = "import sys, utils.config.loading, utils.config.schedule; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
