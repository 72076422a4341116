"""What the scripts' command lines share: kinds of arguments, and mistakes as one line that says what to write."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from utils.config.mistakes import did_you_mean
from utils.config.text import DEVICE
from utils.errors import InputError
from utils.files import check_file, check_folder

Keys = Callable[[], Sequence[str]]
SHOWN = 60  # characters of what was written


class Parser(argparse.ArgumentParser):
    """A script's command line. What cannot be used raises InputError, which `run_script` prints as one line.

    examples: shown below the help. keys: of a config, `train.steps`, where the script takes `key.sub=value`: who
    writes one as an option finds how it is written.
    """

    def __init__(self, about: str | None, examples: str, *, keys: Keys = lambda: ()) -> None:
        super().__init__(description=about, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.keys = keys

    def parse(self, words: Sequence[str] | None = None) -> argparse.Namespace:
        """The arguments, options and others in any order, of the command line or of `words`. Raises InputError."""
        words = sys.argv[1:] if words is None else words
        self.add_argument("--debug", action="store_true", help="show tracebacks of user errors")
        args, unknown = self.parse_known_intermixed_args(words)
        if unknown:
            raise InputError("\n".join(self._unknown(option, words) for option in unknown if option.startswith("-")))
        return args

    def error(self, message: str) -> NoReturn:
        """Raise InputError."""
        raise InputError(f"{message.removeprefix('argument ')} - --help shows examples")

    def _unknown(self, option: str, words: Sequence[str]) -> str:
        name, equals, value = option.partition("=")
        after = words[words.index(option) + 1 :] if option in words else ()
        if not equals:
            value = after[0] if after and not after[0].startswith("-") else "VALUE"
        key = self._key_meant(name.lstrip("-").replace("-", "_"))
        if key:
            return f"{name}: no such option - write {key}={value}"
        return f"{name}: no such option{did_you_mean(name, self._option_string_actions)} - --help shows all"

    def _key_meant(self, name: str) -> str | None:
        """The key of a config that an option called `name` stands for: `name.path`, itself, or one that ends so."""
        known = self.keys()
        ends = [key for key in known if key.endswith(f".{name}")]
        close = [key for key in known if "." in name and did_you_mean(name, [key])]
        return next((key for key in (f"{name}.path", name, *ends, *close) if key in known), None)


def override(text: str) -> str:
    """An argument's type: `key.sub=value`. Who names data without their key is shown how it is written."""
    key, equals, value = text.partition("=")
    path = value if key == "data" else text
    if (not equals or key == "data") and Path(path).exists():
        raise argparse.ArgumentTypeError(f"got {text!r} - expected key.sub=value, as data.path={path}")
    return text


def device(text: str) -> str:
    """An argument's type: the name of a device."""
    if not DEVICE.fits(text):
        raise argparse.ArgumentTypeError(f"got {text[:SHOWN]!r} - expected {DEVICE.expected}")
    return text


def number(kind: type[int] | type[float], least: float, most: float) -> Callable[[str], Any]:
    """An argument's type: a number from `least` to `most`, a whole one where `kind` is int."""
    name = "a whole number" if kind is int else "a number"

    def parse(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = kind(least) - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"got {text[:SHOWN]!r} - expected {name} from {least} to {most}")
        return value

    return parse


def output_file(*suffixes: str) -> Callable[[str], Path]:
    """An argument's type: a file to write, which ends in one of `suffixes`, in upper case or not; see `check_file`."""

    def parse(text: str) -> Path:
        path = Path(text).expanduser()
        if path.suffix.lower() not in suffixes:
            raise argparse.ArgumentTypeError(f"got {text!r} - expected a file that ends in {' or '.join(suffixes)}")
        return _checked(check_file, path)

    return parse


def output_place(*suffixes: str) -> Callable[[str], Path]:
    """An argument's type: a file to write, which ends in one of `suffixes`, or, without a suffix, a folder."""

    def parse(text: str) -> Path:
        path = Path(text).expanduser()
        if not path.suffix or path.is_dir():
            return _checked(check_folder, path)
        if path.suffix.lower() not in suffixes:
            expected = f"{', '.join(suffixes)}, or a folder"
            raise argparse.ArgumentTypeError(f"got {text!r} - expected a file that ends in {expected}")
        return _checked(check_file, path)

    return parse


def size(most: int) -> Callable[[str], tuple[int, int]]:
    """An argument's type: width and height in pixels, as 1920x1080, each from 1 to `most`."""

    def parse(text: str) -> tuple[int, int]:
        sides = text.lower().split("x")
        found = [int(side) for side in sides if side.isascii() and side.isdigit() and len(side) < 10]
        if len(sides) != 2 or len(found) != 2 or not all(1 <= side <= most for side in found):
            raise argparse.ArgumentTypeError(f"got {text[:SHOWN]!r} - expected WxH, as 1920x1080, up to {most}")
        return found[0], found[1]

    return parse


def output_folder(text: str) -> Path:
    """An argument's type: a folder to write into; see `check_folder`."""
    return _checked(check_folder, Path(text).expanduser())


def input_file(what: str, *suffixes: str) -> Callable[[str], Path]:
    """An argument's type: a file that is there, `what` it holds, and ends in one of `suffixes`, if any are named."""

    def parse(text: str) -> Path:
        path = Path(text).expanduser()
        if not path.is_file():
            near = did_you_mean(path.name, _names_beside(path))
            raise argparse.ArgumentTypeError(f"{text}: no such file{near} - expected {what}")
        if suffixes and path.suffix.lower() not in suffixes:
            raise argparse.ArgumentTypeError(f"got {text!r} - expected {what}, a file in {', '.join(suffixes)}")
        return path

    return parse


def input_path(what: str) -> Callable[[str], Path]:
    """An argument's type: a file or folder that is there, `what` it holds."""

    def parse(text: str) -> Path:
        path = Path(text).expanduser()
        return path if path.is_dir() else input_file(what)(text)

    return parse


def input_folder(what: str) -> Callable[[str], Path]:
    """An argument's type: a folder that is there, `what` it holds."""

    def parse(text: str) -> Path:
        path = Path(text).expanduser()
        if not path.is_dir():
            near = did_you_mean(path.name, _names_beside(path))
            raise argparse.ArgumentTypeError(f"{text}: no such folder{near} - expected {what}")
        return path

    return parse


def _names_beside(path: Path) -> list[str]:
    return [entry.name for entry in sorted(path.parent.iterdir())] if path.parent.is_dir() else []


def _checked(check: Callable[[Path], None], path: Path) -> Path:
    try:
        check(path)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return path
