"""What the code must never do with what comes from outside: run it, unpickle it, or open a door to it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sources import ROOT, parse, product_files

# A call or a name that is refused wherever it stands, and what to do instead.
REFUSED = {
    "yaml.load": "read YAML with utils.config.loading",
    "yaml.load_all": "read YAML with utils.config.loading",
    "yaml.full_load": "read YAML with utils.config.loading",
    "yaml.unsafe_load": "read YAML with utils.config.loading",
    "yaml.Loader": "derive from yaml.SafeLoader",
    "yaml.FullLoader": "derive from yaml.SafeLoader",
    "yaml.UnsafeLoader": "derive from yaml.SafeLoader",
    "cv2.imread": "read images with dataio.pictures.images: cv2 takes a truncated file for a whole one",
    "cv2.imdecode": "read images with dataio.pictures.images",
    "cv2.FileStorage": "no OpenCV storage files",
    "os.system": "call subprocess.run with a list",
    "os.popen": "call subprocess.run with a list",
    "torch.jit.load": "no TorchScript from files",
}
UNPICKLERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
# Keywords that must have this value in every call of the function.
DEMANDED = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False),
            "numpy.load": ("allow_pickle", False)}
ALL_INTERFACES = ".".join("0000")


def dangers(tree: ast.Module) -> Iterator[str]:
    """Yield one line for every dangerous thing in a file."""
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        for what in _dangers_of(node):
            yield f"line {getattr(node, 'lineno', 0)}: {what}"
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings \
                and ALL_INTERFACES in node.value:
            yield f"line {node.lineno}: {ALL_INTERFACES}: bind to 127.0.0.1"


def _dangers_of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name.split(".")[0] in UNPICKLERS)
    elif isinstance(node, ast.ImportFrom):
        names = [f"{node.module}.{alias.name}" for alias in node.names]
        yield from (f"{name}: {REFUSED[name]}" for name in names if name in REFUSED)
        yield from (name for name in names if name.split(".")[0] in UNPICKLERS)
        yield from (f"{name}: call it by its full name" for name in names if name in DEMANDED)
    elif isinstance(node, ast.Attribute) and (name := ast.unparse(node)) in REFUSED:
        yield f"{name}: {REFUSED[name]}"
    elif isinstance(node, ast.Call):
        yield from _dangers_of_call(node)


def _dangers_of_call(node: ast.Call) -> Iterator[str]:
    name = ast.unparse(node.func)
    given = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
    if name in ("eval", "exec", "builtins.eval", "builtins.exec"):
        yield f"{name}: parse instead"
    if given.get("shell"):
        yield "shell=True: hand a list to subprocess.run"
    if given.get("allow_pickle"):
        yield "allow_pickle=True: store plain arrays"
    if name in DEMANDED:
        keyword, value = DEMANDED[name]
        if given.get(keyword) is not value:
            yield f"{name} without {keyword}={value}"


@pytest.mark.parametrize("path", product_files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_dangerous_call(path: Path) -> None:
    assert not list(dangers(parse(path)))


def test_no_file_opens_every_interface() -> None:
    texts = [*(ROOT / "configs").rglob("*.yaml"), ROOT / "Makefile", *ROOT.glob("*.sh"), *ROOT.glob("*/*.sh")]
    assert not [path for path in texts if path.is_file() and ALL_INTERFACES in path.read_text("utf-8")]


@pytest.mark.parametrize("code", [
    "yaml.load(text, Loader=yaml.SafeLoader)",
    "yaml.load(text, Loader=Ours)",
    "class L(yaml.FullLoader): pass",
    "class L(yaml.Loader): pass",
    "yaml.unsafe_load(text)",
    "from yaml import FullLoader",
    "from yaml import load",
    "torch.load(path)",
    "torch.load(path, weights_only=False)",
    "torch.load(path, weights_only=flag)",
    "from torch import load",
    "np.load(path)",
    "np.load(path, allow_pickle=True)",
    "numpy.lib.format.read_array(file, allow_pickle=True)",
    "import pickle",
    "import pickle as p",
    "from pickle import loads",
    "def f():\n    import dill",
    "eval(text)",
    "exec(text)",
    "subprocess.run(line, shell=True)",
    "os.system(line)",
    "cv2.imread(path)",
    "from cv2 import imread",
    "serve(host='0.0.0.0')",
    "url = 'http://0.0.0.0:80/'",
])
def test_the_rule_sees(code: str) -> None:
    assert list(dangers(ast.parse(code)))


@pytest.mark.parametrize("code", [
    "model.eval()",
    "class L(yaml.SafeLoader): pass",
    "Ours(text).get_single_data()",
    "torch.load(path, map_location='cpu', weights_only=True)",
    "np.load(path, allow_pickle=False)",
    "subprocess.run([program, '-v'], check=True)",
    "cv2.resize(image, size)",
    "serve(host='127.0.0.1')",
    "def f():\n    '''Never bind 0.0.0.0.'''",
    "json.load(file)",
])
def test_the_rule_lets_pass(code: str) -> None:
    assert not list(dangers(ast.parse(code)))
