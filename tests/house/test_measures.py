"""Measures that only move one way: import circles, folders, lengths, shapes in docstrings, repeated lines, words."""

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from tests.house.test_architecture import docstring_lines
from tests.support.sources import ROOT, imports, module_name, package_of, parse, product_files

MOST_FILES = 20  # of one kind in one folder
MOST_LINES = {0.5: 6, 0.9: 18, 1.0: 50}  # of functions, by quantile; docstrings not counted
LEAST_WITH_SHAPES = 0.9  # of the public functions of tensors or arrays
MOST_REPEATED = 25  # pairs of places that share a run of lines
RUN = 6  # lines
ARRAYS = re.compile(r"\b(Tensor|NDArray|ndarray|Float32|Float64|Floats|UInt8|Picture)\b")
SHAPE = re.compile(r"\[(\*?[A-Z0-9][^\[\]]*)?\]")
BAD_SHAPE = re.compile(r"\[[A-Z*][A-Za-z0-9*]*(,[A-Za-z0-9*]+)+\]")
# Words that were the project's own, where the field has one; in code, in docstrings and in documents.
OLD_WORDS = re.compile(
    r"\b(class Rooms|Rooms\(|models/rooms|lacking=|class Light|Light\(|class Matter|MatterConfig|Probed|pullback|"
    r"tolerant\(|class Health|Skipping|pretend_gpu|pretend_graph|sculpture|bellied|idol|looker|look-outs?|hears?\b|"
    r"steps? that nobody waits for|leaves? word in memory|rays_at_once|is told|are told)",
)


def library_files() -> list[Path]:
    """The product without benchmarks."""
    return [path for path in product_files() if path.relative_to(ROOT).parts[0] != "benchmarks"]


def functions(path: Path) -> Iterator[tuple[ast.FunctionDef, bool, str]]:
    """Each function of a file, whether it is public, and the class that it belongs to."""

    def inside(node: ast.AST, public: bool, owner: str) -> Iterator[tuple[ast.FunctionDef, bool, str]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef):
                yield child, public and not child.name.startswith("_"), owner
                yield from inside(child, False, owner)
            elif isinstance(child, ast.ClassDef):
                yield from inside(child, public and not child.name.startswith("_"), child.name)
            else:
                yield from inside(child, public, owner)

    yield from inside(parse(path), True, "")


def graph() -> dict[str, set[str]]:
    """Module -> modules of ours that it imports, those for annotations included."""
    names = {module_name(path) for path in product_files()}
    found: dict[str, set[str]] = {}
    for path in product_files():
        targets = (name for name, _, _ in imports(parse(path), package_of(path)))
        known = {name if name in names else name.rpartition(".")[0] for name in targets}
        found[module_name(path)] = {name for name in known & names if not name.endswith("__init__")}
    return found


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules each of which reaches all others of its group, by Tarjan's algorithm."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in sorted(edges.get(name, ())):
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            group = [stack.pop()]
            while group[-1] != name:
                group.append(stack.pop())
            if len(group) > 1 or name in edges.get(name, ()):
                found.append(sorted(group))

    for name in sorted(edges):
        if name not in index:
            visit(name)
    return found


def test_no_circles_of_imports_with_annotations() -> None:
    assert circles(graph()) == []


def test_the_circle_rule_sees() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
    assert circles({"a": {"a"}}) == [["a"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []
    assert len(graph()) > 150 and "dataio.cameras" in graph()["models.rendering.frames"]


def test_folders_are_not_full() -> None:
    paths = [*product_files(), *(ROOT / "tests").rglob("*.py")]
    counts = Counter(path.parent.relative_to(ROOT) for path in paths if path.name != "__init__.py")
    assert {str(folder): count for folder, count in counts.items() if count > MOST_FILES} == {}


def test_tests_mirror_the_product() -> None:
    folders = {path.parent.relative_to(ROOT / "tests") for path in (ROOT / "tests").rglob("test_*.py")}
    assert all((ROOT / folder).is_dir() for folder in folders if str(folder) not in ("house", "scripts"))


def test_functions_stay_short() -> None:
    lengths = []
    for path in library_files():
        for node, _, _ in functions(path):
            lengths.append((node.end_lineno or 0) - node.lineno + 1 - docstring_lines(node))
    lengths.sort()
    for share, most in MOST_LINES.items():
        found = lengths[int(share * (len(lengths) - 1))]
        assert found <= most, f"{share:.0%} of the functions have up to {found} lines: expected {most}"
    assert median(lengths) > 1


def takes_arrays(node: ast.FunctionDef) -> bool:
    """Whether a function's signature has tensors or arrays."""
    found = [a.annotation for a in (*node.args.args, *node.args.kwonlyargs) if a.annotation] + [node.returns]
    return any(ARRAYS.search(ast.unparse(annotation)) for annotation in found if annotation)


def test_docstrings_state_shapes() -> None:
    total, without = 0, []
    for path in library_files():
        for node, public, owner in functions(path):
            if public and takes_arrays(node):
                total += 1
                if not SHAPE.search(ast.get_docstring(node) or ""):
                    without.append(f"{path.relative_to(ROOT)}:{node.lineno} {owner}.{node.name}".replace(" .", " "))
    assert total > 200
    assert 1 - len(without) / total >= LEAST_WITH_SHAPES, "\n".join(without)


@pytest.mark.parametrize("path", product_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_one_dialect_of_shapes_and_annotations(path: Path) -> None:
    text, tree = path.read_text("utf-8"), parse(path)
    assert not [match.group() for match in BAD_SHAPE.finditer("\n".join(_documentation(text, tree)))]
    defines = any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.walk(tree))
    assert not defines or "from __future__ import annotations" in text


def _documentation(text: str, tree: ast.Module) -> Iterator[str]:
    """Docstrings and comments of a file."""
    owners = (ast.FunctionDef, ast.ClassDef, ast.Module)
    yield from (ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, owners))
    yield from (line.partition("#")[2] for line in text.splitlines() if line.lstrip().startswith("#"))


def repeated(paths: list[Path]) -> set[tuple[str, str]]:
    """Pairs of places that share `RUN` lines to the letter; imports, blanks and comments do not count."""
    places: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for path in paths:
        kept = []
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            text = line.strip()
            if len(text) > 3 and not text.startswith(("import ", "from ", "#", '"""')):
                kept.append((number, text))
        for i in range(len(kept) - RUN + 1):
            run = tuple(text for _, text in kept[i : i + RUN])
            places[run].append(f"{path.relative_to(ROOT)}:{kept[i][0]}")
    pairs = {(a, b) for found in places.values() for a in found for b in found if a < b}
    # Of a long run count the first place alone.
    following = {(_after(a), _after(b)) for a, b in pairs}
    return {pair for pair in pairs if pair not in following}


def _after(place: str) -> str:
    name, _, line = place.rpartition(":")
    return f"{name}:{int(line) + 1}"


def test_little_is_written_twice() -> None:
    pairs = repeated(library_files())
    assert len(pairs) <= MOST_REPEATED, "\n".join(" ~ ".join(pair) for pair in sorted(pairs))


def test_the_rule_of_repetition_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.house.test_measures.ROOT", tmp_path)
    lines = [f"value_{i} = compute({i})" for i in range(9)]
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text("\n".join([f"{name[0]} = 1 + 2", *lines]), "utf-8")
    assert len(repeated([tmp_path / "a.py", tmp_path / "b.py"])) == 1
    assert not repeated([tmp_path / "a.py"])


def documents() -> list[Path]:
    """What a reader reads: code, tests, pages; not the history and not results of a day."""
    found = [*product_files(), *(ROOT / "tests").rglob("*.py"), *(ROOT / "docs").rglob("*.md")]
    found += [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "configs").rglob("*.yaml")]
    named = ("engine/renames.py", "docs/configs.md", "tests/engine/test_inheritance.py")  # the old keys of a config
    renames = {Path(__file__), *(ROOT / name for name in named)}
    return sorted(set(found) - renames)


@pytest.mark.parametrize("path", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_old_words_are_gone(path: Path) -> None:
    assert sorted({match.group() for match in OLD_WORDS.finditer(path.read_text("utf-8"))}) == []


def test_the_quantity_has_its_name() -> None:
    for name in ("models/model.py", "models/samples.py", "models/kernels/rays/sums.py", "docs/design.md"):
        assert "transmittance" in (ROOT / name).read_text("utf-8"), name
