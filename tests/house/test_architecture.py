"""The shape of the house, read from the code: where imports point, how long things are, no methods named."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sources import ROOT, imports, is_in, module_name, package_of, parse, product_files

# What a module may import of ours; the first row whose name fits the module counts.
ALLOWED = {
    "models.kernels": ("models.kernels",),
    "models.inits": ("models", "utils", "dataio.shapes"),  # shapes at first that the data know
    "models": ("models", "utils", "dataio.cameras"),
    "dataio": ("dataio", "utils"),
    "utils": ("utils",),
    "engine": ("engine", "dataio", "models", "utils"),
    "benchmarks": ("benchmarks", "engine", "dataio", "models", "utils"),
    "": ("engine", "dataio", "models", "utils"),  # the scripts: anything but one another
}
# Parts that never know one another; they meet in models/volume.py.
PARTS = ("models.fields", "models.samplers", "models.opacities")
# Types that may be named in annotations, but not imported when the program runs.
TYPES_ONLY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("models.losses", "models.objective"), ("dataio.batches", "dataio.seen_points", "dataio.source_views")
    ),
    **dict.fromkeys(("models.fields", "models.inits", "models.model"), ("dataio.scene",)),
}

MOST_LINES, MOST_FUNCTION_LINES, MOST_PARAMETERS = 400, 50, 8
METHODS = {"nerf", "nerfpp", "nerf++", "nerf_pp", "neus", "volsdf", "unisurf"}

each_file = pytest.mark.parametrize("path", product_files(), ids=lambda path: str(path.relative_to(ROOT)))


def our_names() -> set[str]:
    """First parts of the dotted names that are ours."""
    return {module_name(path).split(".")[0] for path in product_files()} | {"tests"}


def forbidden_imports(module: str, tree: ast.Module, package: str) -> Iterator[str]:
    """Yield one line for every import that points the wrong way."""
    room = next(room for room in ALLOWED if not room or is_in(module, room))
    own = next((part for part in PARTS if is_in(module, part)), None)
    strangers = [part for part in PARTS if own and part != own]
    ours = our_names()
    for name, line, types_only in imports(tree, package):
        if name.split(".")[0] not in ours:
            continue
        allowed = ALLOWED[room] + (types_of(module) if types_only else ())
        if not any(is_in(name, package) for package in allowed):
            yield f"{module}:{line}: {room or 'a script'} may not import {name}"
        elif any(is_in(name, stranger) for stranger in strangers):
            yield f"{module}:{line}: {own} and {name} meet in models.volume only"


def types_of(module: str) -> tuple[str, ...]:
    """What a module may name in annotations beside what it may import."""
    return next((names for package, names in TYPES_ONLY.items() if is_in(module, package)), ())


def named_methods(tree: ast.Module) -> Iterator[str]:
    """Yield one line for every comparison with, match on, or table keyed by, the name of a method."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            places: list[ast.expr] = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            places = [node.value]
        elif isinstance(node, ast.Dict):
            places = [key for key in node.keys if key]
        else:
            continue
        for constant in (inner for place in places for inner in ast.walk(place)):
            if isinstance(constant, ast.Constant) and constant.value in METHODS:
                yield f"line {constant.lineno}: asks for the method {constant.value!r}"


def too_long(tree: ast.Module) -> Iterator[str]:
    """Yield one line for every function with too many lines (docstring not counted) or parameters."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        lines = (node.end_lineno or node.lineno) - node.lineno + 1 - docstring_lines(node)
        if lines > MOST_FUNCTION_LINES:
            yield f"line {node.lineno}: {node.name} has {lines} lines, at most {MOST_FUNCTION_LINES}"
        parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        count = len([p for p in parameters if p.arg not in ("self", "cls")])
        # A kernel takes the arrays it reads and writes: listed one by one they are easiest to check.
        if count > MOST_PARAMETERS and not is_kernel(node):
            yield f"line {node.lineno}: {node.name} takes {count} parameters, at most {MOST_PARAMETERS}"


def docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """How many lines the docstring takes."""
    first = node.body[0]
    constant = first.value if isinstance(first, ast.Expr) else None
    if not (isinstance(constant, ast.Constant) and isinstance(constant.value, str)):  # `...` is none
        return 0
    return (first.end_lineno or first.lineno) - first.lineno + 1


def is_kernel(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function is decorated as Warp device code."""
    return any(ast.unparse(d).startswith(("wp.kernel", "wp.func", "native_kernel")) for d in node.decorator_list)


@each_file
def test_imports_point_one_way(path: Path) -> None:
    assert not list(forbidden_imports(module_name(path), parse(path), package_of(path)))


@each_file
def test_nothing_is_too_long(path: Path) -> None:
    assert not list(too_long(parse(path)))
    assert path.read_text("utf-8").count("\n") <= MOST_LINES


@pytest.mark.parametrize("path", sorted((ROOT / "models").rglob("*.py")), ids=lambda path: path.name)
def test_models_do_not_ask_for_a_method(path: Path) -> None:
    assert not list(named_methods(parse(path)))


@pytest.mark.parametrize(
    ("module", "code", "allowed"),
    [
        ("train", "from engine import experiment", True),
        ("train", "import render", False),
        ("engine.run", "from train import main", False),
        ("engine.experiment", "import models.volume\nfrom dataio import scene", True),
        ("dataio.formats.dtu", "from dataio.cameras import Rays\nimport utils.errors", True),
        ("dataio.formats.dtu", "def load():\n    from models import volume", False),
        ("dataio.formats.dtu", "from ...models import volume", False),
        ("utils.log", "import dataio", False),
        ("models.volume", "from dataio.cameras import Rays", True),
        ("models.volume", "from dataio import cameras", True),
        ("models.volume", "from dataio.scene import Scene", False),
        ("models.volume", "from dataio import Rays", False),
        ("models.volume", "if TYPE_CHECKING:\n    import dataio.batches", False),
        ("models.losses.losses", "if TYPE_CHECKING:\n    from dataio.batches import RayBatch", True),
        ("models.losses.losses", "from dataio.batches import RayBatch", False),
        ("models.fields.sdf", "from models.samplers import neus", False),
        ("models.fields.sdf", "import models.opacities.opacity", False),
        ("models.networks.mlp", "from models.kernels.rays import sums\nimport utils.config.parts", True),
        ("models.samplers.neus", "from .stratified import Stratified", True),
        ("models.samplers.neus", "from ..fields import mlp", False),
        ("models.opacities.opacity", "import models.samplers.neus", False),
        ("models.kernels.rays.sums", "import torch\nimport warp as wp\nfrom models.kernels import launch", True),
        ("models.kernels.rays.sums", "from utils import errors", False),
        ("models.kernels.rays.sums", "from models.samples import RaySamples", False),
        ("utils.log", "import tests.conftest", False),
    ],
)
def test_the_import_rule_sees(module: str, code: str, allowed: bool) -> None:
    package = module.rpartition(".")[0]
    assert (not list(forbidden_imports(module, ast.parse(code), package))) is allowed


@pytest.mark.parametrize(
    ("code", "caught"),
    [
        ("if name == 'neus': pass", True),
        ("if name in ('volsdf', 'x'): pass", True),
        ("match name:\n    case 'unisurf': pass", True),
        ("table = {'nerf': 1}", True),
        ("type: Literal['neus'] = 'neus'", False),
        ("if reduction == 'mean': pass", False),
    ],
)
def test_the_method_rule_sees(code: str, caught: bool) -> None:
    assert bool(list(named_methods(ast.parse(code)))) is caught


def test_the_length_rule_sees() -> None:
    body = "\n".join(["    x = 1"] * 50)
    documented = 'def f():\n    """One.\n\n    Two.\n    """\n' + "\n".join(["    x = 1"] * 49)
    assert list(too_long(ast.parse(f"def f():\n{body}")))
    assert not list(too_long(ast.parse(documented)))
    assert list(too_long(ast.parse("def f(a, b, c, d, e, f, *, g, h, i): pass")))
    assert not list(too_long(ast.parse("class C:\n    def f(self, a, b, c, d, *, e, f, g, h): pass")))
    assert not list(too_long(ast.parse("@wp.kernel\ndef f(a, b, c, d, e, f, g, h, i): pass")))
