"""The project's own Python files and their imports, for the tests that read code instead of running it."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("engine", "dataio", "models", "utils", "benchmarks")


@cache
def product_files() -> tuple[Path, ...]:
    """All Python files of the project but the tests: the files at the top and everything in the capacity."""
    in_rooms = (path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
    return tuple(sorted([*ROOT.glob("*.py"), *in_rooms]))


@cache
def scripts() -> tuple[Path, ...]:
    """The commands: files at the top that run when they are called."""
    return tuple(p for p in sorted(ROOT.glob("*.py")) if '__name__ == "__main__"' in p.read_text("utf-8"))


@cache
def parse(path: Path) -> ast.Module:
    """The syntax tree of a file."""
    return ast.parse(path.read_text("utf-8"), filename=str(path))


def module_name(path: Path) -> str:
    """The dotted name under which a file of the project is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_in(name: str, package: str) -> bool:
    """Whether the dotted name is the package or something in it."""
    return name == package or name.startswith(package + ".")


def imports(tree: ast.Module, package: str) -> Iterator[tuple[str, int, bool]]:
    """Yield (dotted name, line, for types only) of every import, those inside functions too.

    `from a import b` counts as `a.b`; relative imports are resolved against `package`; "for types only" means
    under `if TYPE_CHECKING:`.
    """
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [".".join(filter(None, (_base(node, package), alias.name))) for alias in node.names]
        else:
            continue
        yield from ((name, node.lineno, id(node) in typing_only) for name in names)


def _base(node: ast.ImportFrom, package: str) -> str:
    """The module of `from X import ...`, relative dots resolved."""
    if not node.level:
        return node.module or ""
    above = package.split(".")[: len(package.split(".")) - node.level + 1]
    return ".".join(filter(None, (*above, node.module)))


def package_of(path: Path) -> str:
    """The package that a file's relative imports start from."""
    return ".".join(path.relative_to(ROOT).parts[:-1])
