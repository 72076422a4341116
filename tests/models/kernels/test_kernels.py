"""All kernels: they compile for a GPU, with no GPU and no driver at hand."""

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import warp as wp

import models.kernels


def own_kernels(name: str) -> Iterator[wp.Kernel]:
    """The kernels that a module defines, not those it imports."""
    for value in vars(importlib.import_module(name)).values():
        if isinstance(value, wp.Kernel) and value.module.name == name:
            yield value


def with_kernels() -> list[str]:
    """Names of the modules that hold kernels."""
    names = [info.name for info in pkgutil.walk_packages(models.kernels.__path__, "models.kernels.")]
    return [name for name in names if any(own_kernels(name))]


@pytest.mark.parametrize("name", with_kernels())
@pytest.mark.parametrize("architecture", [75, 90])
def test_compiles_for_cuda(name: str, architecture: int, tmp_path: Path) -> None:
    module = importlib.import_module(name)
    files = wp.compile_aot_module(module, arch=architecture, module_dir=tmp_path, use_ptx=True)
    assert all(Path(file).stat().st_size > 0 for file in files)
