"""The bodies of the kernels as other machines run them, compiled for this one: the same results.

One point per thread is the form of a GPU; what is left for a GPU to show is what the machine adds, threads at once and
sums by atomic addition. Registers without AVX-512's own instructions are the form of other processors.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import models.kernels
from models.kernels.encodings import factors, hash_encode, permutohedral, tree, variation
from models.kernels.networks import color_inputs, mlp, optimizers, softplus
from models.kernels.pixels import ncc, systematic
from models.kernels.rays import logistic, march, packed, trace
from models.kernels.runtime import lanes
from models.kernels.runtime import launch as runtime
from models.kernels.runtime.launch import Compiled, as_warp, launch
from tests.models.kernels.encodings.test_factors import KINDS, several
from tests.models.kernels.encodings.test_factors import made as made_factors
from tests.models.kernels.encodings.test_tree import made as made_tree
from tests.models.kernels.encodings.test_tree import on as in_voxels
from tests.models.kernels.test_mlp_kernel import made
from tests.models.kernels.test_ncc import by_kernel, cameras
from tests.models.kernels.test_ncc import inputs as planes

FOLDER = Path(models.kernels.__file__).parent
MODULES = (
    "runtime.lanes",
    *(f"encodings.{name}" for name in ("factor_blocks", "factors", "hash_blocks", "hash_encode", "level_blocks")),
    *(f"encodings.{name}" for name in ("permutohedral", "permutohedral_blocks", "table_gradients")),
    *(f"encodings.{name}" for name in ("tree_blocks", "tree", "variation")),
    *(f"networks.{name}" for name in ("block_layers", "color_inputs", "layers", "mlp", "optimizers", "products")),
    "networks.softplus",
    *(f"pixels.{name}" for name in ("ncc", "order", "store", "systematic")),
    *(f"rays.{name}" for name in ("logistic", "march", "packed", "trace")),
)
# A block of threads is one.
ALONE = """
    struct { int x; } threadIdx = {0}, blockDim = {1};
    const int warpSize = 32;
    auto __syncthreads = []() {};
    #undef __shared__
    #define __shared__
"""
# A block of two threads that take turns: between two barriers one does all of its work before the other begins. What is
# missing a barrier comes out wrong, every time, in one of the two orders. static: what threads share. Of a loop over
# pairs they share the inner one or, one below the other, the outer one.
TURNS = """
    struct { int x; } threadIdx = {strip % 2}, blockDim = {2};
    const int warpSize = WARP;
    static int turn, turns[2];
    const int order = ORDER ? 1 - threadIdx.x : threadIdx.x;
    auto wait = [&]() {
        for (long spins = 0; __atomic_load_n(&turn, __ATOMIC_ACQUIRE) != 2 * turns[threadIdx.x] + order; ++spins)
            if (spins > 100000000000) __builtin_trap();
    };
    auto __syncthreads = [&]() {
        ++turns[threadIdx.x];
        __atomic_add_fetch(&turn, 1, __ATOMIC_RELEASE);
        wait();
    };
    struct Over { int* own; ~Over() { ++*own; __atomic_add_fetch(&turn, 1, __ATOMIC_RELEASE); } };
    Over over = {turns + threadIdx.x};
    wait();
    #undef __shared__
    #define __shared__ static
"""
# What CUDA has and a CPU's compiler has not.
SHIMS = """
    struct float2 { float x, y; };
    auto make_float2 = [](float a, float b) { return float2{a, b}; };
    struct alignas(16) float4 { float x, y, z, w; };
    auto make_float4 = [](float a, float b, float c, float d) { return float4{a, b, c, d}; };
    auto atomicAdd = [](float* at, float v) { *at += v; };
    #define fabsf __builtin_fabsf
    #define fmaf __builtin_fmaf
    #define floorf __builtin_floorf
    #define ceilf __builtin_ceilf
    #define sqrtf __builtin_sqrtf
    #define exp2f __builtin_exp2f
    #define logf __builtin_logf
    #define __popc __builtin_popcount
"""


def in_form(name: str, text: str, *, one_point: bool, block: str = ALONE) -> str:
    """The module `name` of the kernels as a processor without AVX-512 has it, or a GPU, where a block is a point.

    block: what makes a block of threads, where they share work.
    """
    text = text.replace("defined(__AVX512DQ__)", "0")
    if one_point:
        text = text.replace("defined(__CUDA_ARCH__)", "1")
    if one_point and name == "launch":
        text = text.replace('if device.type == "cpu" else 1', "if False else 1")
    if one_point and name == "lanes":
        text += f"\nTYPES = {SHIMS!r} + TYPES\n"
    if one_point and name == "block_layers":
        text += f"\nOUTPUT, GRADIENTS = {block!r} + OUTPUT, {block!r} + GRADIENTS\n"
    if one_point and name == "systematic":
        text = text.replace("@native_kernel(_CHOOSE)", f"@native_kernel({block!r} + _CHOOSE)")
    return text


@pytest.fixture(scope="module", params=["one point", "any processor"])
def other(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Copies of the modules in which a block is a point, or is filled number by number."""
    yield from copies(tmp_path_factory, one_point=request.param == "one point")


@pytest.fixture(scope="module", params=[(order, warp) for order in "01" for warp in "12"])
def two_threads(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SimpleNamespace]:
    """Copies in which a block is two threads, in one order or the other, side by side or one below the other."""
    order, warp = request.param
    block = TURNS.replace("ORDER", order).replace("WARP", warp)
    yield from copies(tmp_path_factory, one_point=True, block=block)


def launch_in_form(form: str, *, one_point: bool) -> str:
    """How the copies are launched: by the usual function, on blocks of their own."""
    helpers = runtime.lanes, runtime.at_once, runtime.launch_blocks
    used = "".join(inspect.getsource(helper) for helper in helpers)
    used = in_form("launch", used, one_point=one_point)
    return f"from models.kernels.runtime.launch import *\nfrom {form}.lanes import LANES\n{used}"


def copies(factory: pytest.TempPathFactory, *, one_point: bool, block: str = ALONE) -> Iterator[SimpleNamespace]:
    """All modules in the form of `in_form`."""
    folder = factory.mktemp("kernels")
    form = f"form_{folder.name}"  # several may be there at once
    (folder / form).mkdir()
    (folder / form / "__init__.py").touch()
    short = {module: module.rpartition(".")[2] for module in MODULES}
    for module, name in short.items():
        text = (FOLDER / f"{module.replace('.', '/')}.py").read_text("utf-8")
        for other, its_name in short.items():
            text = text.replace(f"models.kernels.{other} ", f"{form}.{its_name} ")
        text = text.replace("models.kernels.runtime.launch ", f"{form}.launch ")
        (folder / form / f"{name}.py").write_text(in_form(name, text, one_point=one_point, block=block), "utf-8")
    (folder / form / "launch.py").write_text(launch_in_form(form, one_point=one_point), "utf-8")
    sys.path.insert(0, str(folder))
    names = ("launch", *short.values())
    yield SimpleNamespace(**{name: importlib.import_module(f"{form}.{name}") for name in names})
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.split(".")[0] == form]:
        del sys.modules[name]


def rays(count: int) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    origins = 2 * torch.nn.functional.normalize(torch.randn(count, 3), dim=-1)
    return origins, torch.nn.functional.normalize(torch.rand(count, 3) * 1.6 - 0.8 - origins, dim=-1)


def test_it_is_another_form(other: SimpleNamespace) -> None:
    assert other.launch.lanes(torch.device("cpu")) in (1, 16) and other.lanes.TYPES != lanes.TYPES
    assert other.march.launch is launch and other.march.lanes is other.launch.lanes


@pytest.mark.parametrize("levels, cone", [(1, 0.0), (4, 0.0), (3, 0.01)])
@pytest.mark.parametrize("runs", [1, 16])
def test_march(other: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, levels: int, cone: float, runs: int) -> None:
    origins, directions = rays(333)
    occupied = (torch.rand(levels, 32, 32, 32) < 0.2).to(torch.uint8)
    occupied[:, :16, 8:] = 0
    ends = {"near": torch.rand(333), "far": torch.where(torch.rand(333) < 0.5, 2.5, torch.inf)}
    found = []
    for module in (other.march, march):
        monkeypatch.setattr(module, "KEPT_RUNS", runs)
        cells, jitter = (occupied, module.blocks(occupied)), torch.linspace(0, 0.99, 333)
        steps = torch.tensor([0.02, cone])
        found.append(module.march(origins, directions, **ends, jitter=jitter, cells=cells, steps=steps))
    assert len(found[0][0]) > 1000
    for mine, usual in zip(*found, strict=True):
        torch.testing.assert_close(mine, usual, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("beyond", [False, True])
def test_sphere(other: SimpleNamespace, beyond: bool) -> None:
    origins, directions = rays(333)
    ends = torch.rand(333), torch.where(torch.rand(333) < 0.5, 2.5, torch.inf)
    forms = [module.clipped(origins, directions, *ends, beyond=beyond) for module in (other.march, march)]
    torch.testing.assert_close(*forms, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("trust", [0.0, 0.8])
def test_trace(other: SimpleNamespace, trust: float) -> None:
    origins, directions = rays(700)
    axis = torch.linspace(-1, 1, 40)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    values = torch.stack([x, y, z]).norm(dim=0) - 0.5 + 0.05 * torch.sin(9 * x)
    ends = {"near": torch.full((700,), 0.9), "far": torch.full((700,), 3.1)}
    ends["far"][:5] = 0.5
    mine, usual = (
        module.trace(origins, directions, **ends, values=values, trust=trust, least=0.02)
        for module in (other.trace, trace)
    )
    assert torch.isfinite(usual).sum() > 200 and torch.isinf(usual).sum() > 50
    torch.testing.assert_close(mine, usual, atol=2e-5, rtol=0)


CUBES = hash_encode.HashLevels.geometric(4, base=3, top=40, log2_rows=10)
SIMPLICES = permutohedral.PermutohedralLevels.geometric(4, base=3, top=40, log2_rows=10, shift=torch.full((4, 3), 1.3))


@pytest.mark.parametrize("lead, half", [(0, False), (3, False), (3, True)])
@pytest.mark.parametrize("kind", ["hash", "permutohedral"])
def test_tables_of_levels_with_all_gradients(other: SimpleNamespace, kind: str, lead: int, half: bool) -> None:
    torch.manual_seed(1)
    levels: Any = CUBES if kind == "hash" else SIMPLICES
    inputs = [torch.rand(203, 3) * 2.2 - 1.1, torch.randn(levels.rows, 2), torch.randn(203, lead + 8)]
    forms = (other.hash_encode, hash_encode) if kind == "hash" else (other.permutohedral, permutohedral)
    found = []
    for module in forms:
        points, table, weight = (x.clone().requires_grad_() for x in inputs)
        read = table.detach().half() if half else None
        encode = getattr(module, f"{kind}_encode_with_vjp")
        value, vjp = encode(points, table, levels, active=3, lead=lead, read=read)
        pulled = vjp(weight)
        loss = value.sin().sum() + (0.01 * pulled).sin().sum()
        found.append([value, pulled, *torch.autograd.grad(loss, [points, table, weight])])
    for mine, usual in zip(*found, strict=True):
        torch.testing.assert_close(mine, usual, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", [*KINDS, "several grids"])
@pytest.mark.parametrize("width", [3, 20, 32])
def test_factors_with_all_gradients(other: SimpleNamespace, kind: str, width: int) -> None:
    layout, table = several(width, 203) if kind == "several grids" else made_factors(kind, width)
    torch.manual_seed(1)
    inputs = [torch.rand(203, 3) * 2.2 - 1.1, table, torch.randn(203, 3 + layout.terms * width)]
    found = []
    for module in (other.factors, factors):
        points, table, weight = (x.clone().requires_grad_() for x in inputs)
        value, vjp = module.factor_features_with_vjp(points, table, layout, lead=3)
        pulled, total = vjp(weight), module.factor_features(points, table, layout, summed=True)
        loss = value.sin().sum() + (0.01 * pulled).sin().sum() + (0.1 * total).sin().sum()
        found.append([value, pulled, total, *torch.autograd.grad(loss, [points, table, weight])])
    for mine, usual in zip(*found, strict=True):
        torch.testing.assert_close(mine, usual, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("width", [1, 4, 16])
def test_trees_with_all_gradients(other: SimpleNamespace, width: int) -> None:
    layout, table = made_tree(width)
    torch.manual_seed(1)
    inputs = [torch.rand(203, 3) * 2.2 - 1.1, table, torch.randn(203, 3 + width)]
    found = []
    for module in (other.tree, tree):
        points, table, weight = (x.clone().requires_grad_() for x in inputs)
        value, vjp = module.tree_features_with_vjp(points, table, in_voxels(layout, torch.device("cpu")), lead=3)
        pulled = vjp(weight)
        loss = value.sin().sum() + (0.01 * pulled).sin().sum()
        found.append([value, pulled, *torch.autograd.grad(loss, [points, table, weight])])
    for mine, usual in zip(*found, strict=True):
        torch.testing.assert_close(mine, usual, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("width", [1, 4, 16])
def test_linked_voxels_and_their_variation(other: SimpleNamespace, width: int) -> None:
    """Corners of which every other has a row: 0101... in each word."""
    layout, table = made_factors("grid", width)
    words = -(-len(table) // 32)
    links = torch.stack([torch.full((words,), 0x55555555), 16 * torch.arange(words)], 1).int()
    layout, stretch = replace(layout, links=links), (torch.tensor([7], dtype=torch.int32), 100, len(table))
    x, weight = torch.rand(203, 3, generator=torch.Generator().manual_seed(1)) * 2.2 - 1.1, torch.rand(203, width)
    found = []
    for factor_module, variation_module in ((other.factors, other.variation), (factors, variation)):
        points, rows = x.clone().requires_grad_(), table.clone().requires_grad_()
        value, vjp = factor_module.factor_features_with_vjp(points, rows, layout)
        varies = variation_module.voxel_variation(rows, layout, variation_module.Stretch(*stretch, torch.ones(3)))
        loss = value.sin().sum() + (0.01 * vjp(weight)).sin().sum() + varies
        found.append([value, varies, *torch.autograd.grad(loss, [points, rows])])
    for mine, usual in zip(*found, strict=True):
        torch.testing.assert_close(mine, usual, atol=2e-4, rtol=1e-4)


def test_harmonics_and_softplus(other: SimpleNamespace) -> None:
    torch.manual_seed(2)
    x = torch.nn.functional.normalize(torch.randn(103, 3), dim=-1)
    _, slope = softplus.softplus_forward(x, beta=100.0)
    grad = torch.randn(103, 3), torch.randn(103, 3)

    def everything(color_inputs: Any, softplus: Any) -> list[Tensor]:
        leaf = x.clone().requires_grad_()
        expanded = color_inputs.harmonics(leaf, degree=3)
        back = softplus.softplus_backward(slope, *grad, beta=100.0)
        (turned,) = torch.autograd.grad(expanded.sin().sum(), leaf)
        return [expanded, turned, *softplus.softplus_forward(x, beta=100.0), back]

    forms = everything(other.color_inputs, other.softplus), everything(color_inputs, softplus)
    for found, usual in zip(*forms, strict=True):
        torch.testing.assert_close(found, usual, atol=2e-6, rtol=1e-5)


def test_what_is_made_of_a_distance_and_its_gradient(other: SimpleNamespace) -> None:
    torch.manual_seed(4)
    ways, t = torch.nn.functional.normalize(torch.randn(203, 3), dim=-1), torch.rand(3, 203).sort(0).values
    inputs = 0.1 * torch.randn(203), torch.randn(203, 3), torch.tensor(60.0), torch.randn(203, 6)

    def everything(logistic: Any, color_inputs: Any) -> list[Tensor]:
        leaves = value, gradient, s, output = [x.clone().requires_grad_() for x in inputs]
        tau = logistic.optical_depth(value, gradient, ways, tuple(t), s, torch.tensor(0.4))
        turned, off = color_inputs.mirrored(ways, gradient), color_inputs.off_unit(gradient)
        first, features = color_inputs.split(output)
        seen = color_inputs.joined(features, [ways, turned, gradient])
        found = [tau, off, first, seen]
        grads = torch.autograd.grad(sum(x.sin().sum() for x in found), leaves)
        return [*found, *grads, logistic.estimated_optical_depth(value.detach(), value.detach().roll(1), s.detach())]

    forms = everything(other.logistic, other.color_inputs), everything(logistic, color_inputs)
    for found, usual in zip(*forms, strict=True):
        torch.testing.assert_close(found, usual, atol=1e-4, rtol=1e-4)


def test_packed_samples(other: SimpleNamespace) -> None:
    torch.manual_seed(5)
    counts = torch.randint(0, 30, (70,))
    offsets = torch.nn.functional.pad(counts.cumsum(0), (1, 0)).int()
    rays = torch.repeat_interleave(torch.arange(70), counts).int()
    t, value, mask = torch.rand(len(rays)), torch.randn(len(rays)), torch.rand(len(rays)) < 0.5
    origins, directions = torch.randn(70, 3), torch.randn(70, 3)

    def everything(packed: Any) -> list[Tensor]:
        index, kept, _ = packed.compact(mask, offsets, int(mask.sum()) + 7)
        (starts, _, _, _), of = packed.gather(index, [t, value, t, value], rays)
        met = packed.crossings(value, t, rays, index, starts - 0.1, starts + 0.1, steep=0.1)
        before, at = packed.preceding(value, rays), packed.points(origins, directions, rays, t, index)
        return [index, kept, starts, of, met, before, at, packed.points(origins, directions, rays, t)]

    for found, usual in zip(everything(other.packed), everything(packed), strict=True):
        torch.testing.assert_close(found, usual, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("count", [0, 101])
def test_patches_across_photographs(other: SimpleNamespace, count: int) -> None:
    points, normal, view = planes(count)
    found = []
    for module in (other.ncc, ncc):
        n, shift = normal.clone().requires_grad_(), torch.zeros(count).requires_grad_()
        alike, seen, deviation = by_kernel(points, n, shift, view, 7, cameras(), module.plane_ncc)
        found.append([alike, seen, deviation, *torch.autograd.grad(alike.sin().sum(), [n, shift])])
    for mine, usual in zip(*found, strict=True):
        torch.testing.assert_close(mine, usual, atol=1e-3, rtol=1e-3)


def test_adam(other: SimpleNamespace) -> None:
    torch.manual_seed(6)
    start, grad = torch.randn(203, 3), torch.randn(203, 3)
    found = []
    for module in (other.optimizers, optimizers):
        parameter, state = start.clone(), (0.1 * grad, grad.square())
        given = {"rates": (0.1, 0.3), "betas": (0.9, 0.99), "eps": 1e-8, "decay": 0.1}
        module.adam_step(parameter, grad, tuple(x.clone() for x in state), **given)
        found.append(parameter)
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("skip", [0.0, 1.0])
@pytest.mark.parametrize("lazy", [False, True])
def test_lazy_adam_and_rmsprop(other: SimpleNamespace, skip: float, lazy: bool) -> None:
    torch.manual_seed(6)
    start, grad = torch.randn(203, 3), torch.randn(203, 3)
    grad[::3] = 0
    square = torch.where(torch.rand(203, 3) < 0.5, 0.0, 0.2)
    found = []
    for module in (other.optimizers, optimizers):
        by_adam, by_rmsprop, state = start.clone(), start.clone(), [x.clone() for x in (0.1 * grad, square, square)]
        given = {"eps": 1e-8, "skipped": torch.tensor([skip])}
        rates, betas = torch.tensor([0.1, 0.3]), (0.9, 0.99)
        module.lazy_adam_step(by_adam, grad, tuple(state[:2]), rates=rates, betas=betas, decay=0.1, **given)
        module.rmsprop_step(by_rmsprop, grad, state[2], rate=0.1, beta=0.95, lazy=lazy, **given)
        found.append([by_adam, by_rmsprop, *state])
    torch.testing.assert_close(*found, atol=1e-6, rtol=1e-6)
    assert torch.equal(found[0][0], start) == torch.equal(found[0][1], start) == bool(skip)


NETWORKS = [((27, 64, 16), ()), ((30, 64, 64, 3), (2,)), ((5, 33, 100, 7, 4), (1, 3)), ((3, 2), ()), ((5, 70, 2), ())]
WAYS = [("relu", None), ("softplus", 1), ("softplus", 0)]  # activation, channel


def network_results(mlp: Any, count: int, net: tuple[Any, Any], name: str, channel: int | None) -> list[Tensor]:
    """Everything that a network says, with all gradients, or without a graph."""
    x, (weights, biases) = made(net[0], count, net[1])
    layers, given = len(weights), {"activation": name, "beta": 10.0}
    parts = [part.requires_grad_() for part in (x.clone(), *weights, *biases)]
    own = parts[1 : 1 + layers], parts[1 + layers :]
    results = [part for part in mlp.mlp(parts[0], *own, **given, channel=channel) if part is not None]
    grads = torch.autograd.grad(sum(part.sin().sum() for part in results), parts)
    alone = torch.autograd.grad(mlp.mlp(x, *own, **given)[0].sum(), parts[1:])
    with torch.no_grad():
        return [*results, *grads, *alone, mlp.mlp_forward(x, *own, **given)]


def compare_networks(found: list[Tensor], usual: list[Tensor]) -> None:
    for mine, other in zip(found, usual, strict=True):
        torch.testing.assert_close(mine, other, atol=2e-6 * float(other.detach().norm()) + 1e-5, rtol=1e-4)


@pytest.mark.parametrize("count", [0, 1, 203, 700])
@pytest.mark.parametrize("net", NETWORKS)
@pytest.mark.parametrize("name, channel", WAYS)
def test_network(other: SimpleNamespace, count: int, net: tuple[Any, Any], name: str, channel: int | None) -> None:
    found, usual = (network_results(module, count, net, name, channel) for module in (other.mlp, mlp))
    compare_networks(found, usual)


def by_two(kernel: Any, count: int, inputs: Any, **_: Any) -> None:
    """`launch` for blocks of two threads that are there at once."""
    arguments = [as_warp(x) if isinstance(x, Tensor) else x for x in inputs]
    compiled = Compiled(kernel, [0, *arguments])
    calls = [compiled.call(1, [item, *arguments]) for item in range(2 * count)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda thread: [call() for call in calls[thread::2]], range(2)))


@pytest.mark.parametrize("net", NETWORKS[:4])
@pytest.mark.parametrize("name, channel", WAYS[:2])
def test_threads_of_a_block_wait_for_one_another(
    two_threads: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    net: tuple[Any, Any],
    name: str,
    channel: int | None,
) -> None:
    monkeypatch.setattr(two_threads.mlp, "launch", by_two)
    monkeypatch.setattr(two_threads.mlp, "BLOCKS", 2)
    compare_networks(*(network_results(module, 203, net, name, channel) for module in (two_threads.mlp, mlp)))


def test_threads_of_a_block_choose_together(two_threads: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """What one thread chooses; some are certain, in two rounds, and the last piece is a short one."""
    torch.manual_seed(0)
    scores = (2**20 * torch.rand(203)).long()
    scores[::40] = 2**30
    scores[5] = 2**27
    chosen = systematic.systematic(scores, torch.tensor([7]), 50, uniform=0.3, seed=5)
    assert chosen[1].min() == chosen[1][0] == 50 / 203 and len(chosen[0].unique()) == 50
    monkeypatch.setattr(two_threads.systematic, "launch", by_two)
    found = two_threads.systematic.systematic(scores, torch.tensor([7]), 50, uniform=0.3, seed=5)
    assert all(map(torch.equal, found, chosen))
