# mypy: disable-error-code="arg-type, override, assignment, method-assign, misc, attr-defined, import-not-found"
"""A GPU that is not there: tensors that say they are on it, whose numbers a CPU computes. Run by test_fake_cuda.

What it finds is what first runs on a GPU fail of: an operation or a kernel that gets one tensor from each side. It also
counts what a host waits for. Kernels run in the form of a GPU, one point per thread, one thread after another.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from threading import enumerate as enumerate_threads
from types import SimpleNamespace
from typing import Any

import torch
import warp as wp
from fake_graph import Tape, is_work, recording, set_mode
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

OURS = ("models", "utils", "engine", "benchmarks")
NAME = "fakecuda"  # of the device type, where it is otherwise "cuda"
_setup_privateuseone_for_python_backend(NAME)
DEVICE = torch.device(f"{NAME}:0")
FOLDER = Path(__file__).resolve().parent

READS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select", "aten::_unique2"}
MOVES = {"aten::_to_copy", "aten::copy_"}
# Steps are compared with eager ones, and pixels that the device chooses with those that the host chooses.
RECORDED = {
    "neus_hash": ["train.pixels={type: loss, cell: 4, every: 3}"],
    "unisurf_hash": ["train.pixels={type: gradient, unbiased: true}", "train.samples=4096"],
    "reduced/neus": ["train.pixels={type: uniform}", "losses={views: {type: patch_ncc, side: 3, sources: 4}}"],
    "reduced/volsdf": ["train.pixels={type: patches, side: 4}"],
}
AMONG_RANKS = "neus_hash among ranks"
waits: Counter[str] = Counter()  # where the host waits for the GPU, and how often
starts: Counter[str] = Counter()  # what the host has the GPU do, and how often, but for what is recorded


def wait() -> None:
    """The host waits here."""
    waits[place()] += 1
    if Tape.now is not None or Tape.strict:
        raise RuntimeError(f"{place()} waits for the GPU")


class OnGpu(Tensor):
    """A tensor of the fake device around one of the CPU."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnGpu:
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset(), "dtype": inner.dtype}
        made: OnGpu = Tensor._make_wrapper_subclass(cls, inner.size(), **layout, device=DEVICE)
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(function, args, kwargs or {})

    def tolist(self) -> Any:
        wait()
        return self.inner.tolist()

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("a tensor on a GPU has no numpy array - expected .cpu() first")


class Pretending(TorchDispatchMode):
    """Within, tensors may be made on the device, and moved."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return computed(function, args, kwargs or {})


def place() -> str:
    """The line of the product that is being run."""
    frame = sys._getframe(2)
    while frame.f_back is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(FOLDER) and not path.name.startswith("fake_"):
            return f"{path.relative_to(FOLDER)}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"


def inner(x: Any) -> Any:
    """What a CPU computes with."""
    return x.inner if isinstance(x, OnGpu) else x


def computed(function: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """An operation by the CPU, its results on the device where a GPU would have them.

    Raises RuntimeError for tensors of both sides; a single number may come from the CPU, as with CUDA.
    """
    name = function._schema.name
    tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    ours = [x for x in tensors if isinstance(x, OnGpu)]
    wanted = kwargs.get("device")
    there = bool(ours) if wanted is None else torch.device(wanted).type == NAME
    if name in MOVES:
        there = isinstance(args[0], OnGpu) if name == "aten::copy_" else there
        source = args[0] if name == "aten::_to_copy" else args[1]
        later = kwargs.get("non_blocking") or True in args[2:]
        if isinstance(source, OnGpu) != there and not (there and later):
            wait()
    elif ours:
        strangers = [tuple(x.shape) for x in tensors if not isinstance(x, OnGpu) and x.ndim > 0]
        if strangers:
            raise RuntimeError(f"{name}: tensors {strangers} on the CPU among those on the GPU, {place()}")
        if name in READS:
            wait()
    plain_args, plain = pytree.tree_map(inner, (args, kwargs))
    if wanted is not None:
        plain["device"] = torch.device("cpu")
    tape = Tape.now if ours or there else None
    if tape is not None:
        tape.enter([x.inner for x in ours])
        here = {id(x) for x in tensors if not isinstance(x, OnGpu)}  # numbers, which a recorded launch keeps for good
        plain_args, plain = pytree.tree_map(lambda x: x.clone() if id(x) in here else x, (plain_args, plain))
    out = function(*plain_args, **plain)
    if tape is None and (ours or there) and is_work(function, (plain_args, plain), out):
        starts[name] += 1
    if tape is not None:
        tape.operation(function, plain_args, plain, out)
    if name == "aten::_to_copy" and out is plain_args[0]:
        out = out.clone()
    known = {id(x.inner): x for x in ours}  # an operation in place returns the tensor that it was given

    def on_its_side(x: Any) -> Any:
        if not isinstance(x, Tensor) or not there:
            return x
        return known[id(x)] if id(x) in known else OnGpu(x)

    return pytree.tree_map(on_its_side, out)


def install() -> None:
    """Let torch, Warp and the product believe in the device."""
    import utils.checkpoint as checkpoint
    from models.kernels.runtime import launch
    from models.networks import mlp

    cuda: Any = torch.cuda
    cuda.is_available, cuda.device_count = lambda: True, lambda: 1
    for name in ("set_device", "synchronize", "empty_cache", "reset_peak_memory_stats"):
        setattr(cuda, name, lambda *_: None)
    cuda.current_stream = cuda.Stream = lambda *_: SimpleNamespace(wait_stream=lambda other: None)
    cuda.set_stream, cuda.graph_pool_handle, cuda.default_generators = (lambda _: None), (lambda: (0, 1)), ()
    cuda.stream, cuda.graph, cuda.CUDAGraph = nullcontext, recording, Tape
    cuda.get_sync_debug_mode, cuda.set_sync_debug_mode = lambda: "default", set_mode
    cuda.mem_get_info, cuda.memory_reserved, cuda.memory_allocated = (lambda *_: (2**40, 2**40)), *[lambda *_: 0] * 2
    cuda.max_memory_allocated, cuda.get_device_name = lambda *_: 0, lambda *_: NAME
    submit = ThreadPoolExecutor.submit  # a mode is of one thread
    ThreadPoolExecutor.submit = lambda pool, *job: submit(pool, within, *job)
    of_cpu = torch.Generator
    torch.Generator = type("Generator", (), {"__new__": lambda cls, device="cpu": of_cpu()})
    Tensor.pin_memory = lambda self, *_: self
    save = torch.save
    torch.save = lambda state, *rest: save(pytree.tree_map(inner, state), *rest)
    checkpoint._PLAIN = frozenset({*checkpoint._PLAIN, OnGpu})
    mlp.WIDEST = mlp.NARROW  # what is made on the CPU before it is moved: kernels have the form of a GPU

    def launched(
        kernel: Any, dim: int, inputs: Any, device: Any, stream: Any = None, block_dim: int = 1, **of_cpu: Any
    ) -> Any:
        if device == "cpu":
            return wp.launch(kernel, dim=dim, inputs=inputs, device=device, **of_cpu)
        kernel.module.load("cpu")
        wp.launch(kernel, dim=dim // block_dim, inputs=inputs, device="cpu")  # a block is one thread
        return None

    names = {name: getattr(wp, name) for name in dir(wp) if not name.startswith("__")}
    streams = {"stream_from_torch": lambda _: SimpleNamespace(device=NAME), "launch": launched}
    streams["force_load"] = lambda **_: None
    launch.wp = SimpleNamespace(**{**names, **streams})
    as_warp, start = launch.as_warp, launch.launch

    def as_warp_of_both(tensor: Tensor, dtype: Any = None) -> Any:
        return as_warp(inner(tensor.detach()), dtype)

    def checked(kernel: Any, count: int, inputs: Any, *, device: torch.device, **rest: Any) -> None:
        strangers = [tuple(x.shape) for x in inputs if isinstance(x, Tensor) and x.device.type != device.type]
        if strangers:
            raise RuntimeError(f"{kernel.key}: tensors {strangers} are not on {device}, {place()}")
        if Tape.now is not None and device.type == NAME:
            Tape.now.enter([x.inner for x in inputs if isinstance(x, OnGpu)])
            Tape.now.jobs.append(lambda: start(kernel, count, inputs, device=device, **rest))
        starts[kernel.key] += device.type == NAME and Tape.now is None
        start(kernel, count, inputs, device=device, **rest)

    for module in [m for name, m in sys.modules.items() if name.split(".")[0] in OURS]:
        for mine, name in ((checked, "launch"), (as_warp_of_both, "as_warp")):
            if getattr(module, name, None) in (start, as_warp):
                setattr(module, name, mine)


def within(work: Callable[..., Any], *arguments: Any) -> Any:
    """What a thread does, on the device."""
    with Pretending():
        return work(*arguments)


def run(main: Callable[[], int], *arguments: str) -> int:
    """A script's exit code."""
    sys.argv = ["script", *arguments]
    try:
        return int(within(main))
    except SystemExit as stop:
        return int(stop.code or 0)


def step_waits(config: str, overrides: list[str], steps: int) -> tuple[float, dict[str, int]]:
    """The error of the first step, and where the host waits in the last but one; in the last one it prints."""
    from benchmarks.train_step import running, short_run

    read = short_run(config, overrides, steps, log_every=1000)
    errors, found = [], {}
    with Pretending(), running(read) as training:
        training.sampler.learn = lambda error: errors.append(error.mean())
        training.line.every = float("inf")
        for _ in range(steps):
            found = dict(waits)
            waits.clear()
            training.step_once()
        assert {x.device.type for x in training.objective.parameters()} == {read.device.split(":")[0]}
    return float(errors[0]), found


def among_ranks(training: Any) -> None:
    """Let a run believe in other ranks, which have counted a quarter more, and have its gradients."""
    import models.losses.base
    from engine.gradients import Gradients

    models.losses.base.several_ranks = lambda: True
    models.losses.base.mean_across_ranks = lambda count: 1.125 * count
    objective, train, share = training.objective, training.config.train, training.ray_count.share
    training.gradients = Gradients(
        objective, train, share, device=training.ranks.device, exchange=lambda: None, warn=print
    )


def recorded(config: str, overrides: list[str], steps: int, *, ranks: bool = False) -> dict[str, Any]:
    """A run with steps recorded where they can be and pixels on the device, against one without, and on the host.

    ranks: both as one of several. difference: of what the parameters went, relative. graphs: how many were recorded.
    waits, starts: of the last step but one, the latter without what is recorded. nodes: of the last recording. threads:
    that gather pixels. rays: of the steps.
    """
    from benchmarks.train_step import running, short_run

    ends: list[Tensor] = []
    found: dict[str, Any] = {}
    for on in (False, True):
        place = [f"train.cuda_graph={on}", f"data.device={'auto' if on else 'host'}"]
        read = short_run(config, [*overrides, *place], steps, log_every=1000)
        with Pretending(), running(read) as training:
            if ranks:
                among_ranks(training)
            parameters, before = list(training.objective.parameters()), Tape.made
            training.line.every = float("inf")  # by the clock, the screen asks for numbers
            start, rays = [inner(x).clone() for x in parameters], []
            for _ in range(steps):
                found = {"waits": dict(waits), "graphs": Tape.made - before, "starts": sum(starts.values())}
                waits.clear()
                starts.clear()
                training.step_once()
                rays.append(training.ray_count.rays)
            found |= {"rays": rays}
            found |= {"nodes": Tape.nodes, "threads": sum(x.name == "pixel-prefetch" for x in enumerate_threads())}
            with torch.no_grad():
                ends.append(torch.cat([(inner(x) - y).flatten() for x, y in zip(parameters, start, strict=True)]))
    return {**found, "difference": float((ends[0] - ends[1]).norm() / ends[0].norm())}


def refusals() -> list[str]:
    """What an operation and a kernel say to a tensor of the other side."""
    from models.kernels.rays.sums import total

    with Pretending():
        there, here = torch.ones(3, device=DEVICE), torch.ones(3)
        said = []
        for mix in (lambda: there + here, lambda: total(there, torch.tensor([0, 3], dtype=torch.int32))):
            try:
                mix()
            except RuntimeError as error:
                said.append(str(error))
        assert (there + 1).tolist() == [2, 2, 2] and waits.total()
    return said


def main(configs: list[str]) -> None:
    import bake
    import engine.cluster.ray_count
    import evaluate
    import extract_mesh
    import models.fields.shape_fit
    import models.model
    import render
    import train
    from engine.experiment import read_config
    from models.encodings.base import EncodingConfig
    from models.encodings.hash_grid import HashGridConfig

    install()
    made = ["data.type=procedural", "data.views=6", "data.test_views=1", "data.size=40", "train.rays=48"]
    there, small = [*made, f"device={DEVICE}"], "model.foreground.field.encoding.log2_rows=12"
    # The first shape is fitted before anything is on a device, and takes time.
    models.fields.shape_fit.STEPS = models.fields.shape_fit.HULL_STEPS = 4
    models.fields.shape_fit.HULL_GRID = 16
    config, out, device = "configs/neus_hash.yaml", str(FOLDER / "out"), ("--device", str(DEVICE))
    found: dict[str, Any] = {"codes": {}, "waits": {}, "errors": {}, "recorded": {}, "refusals": refusals()}
    with redirect_stdout(sys.stderr):
        for steps in (4, 6):  # the second resumes the first
            keys = [*there, small, f"output={out}", f"train.steps={steps}", "train.validations=1"]
            found["codes"][f"train {steps}"] = run(train.main, config, *keys)
        for name, script, options in (
            ("render", render, ("--frames", "2", "--scale", "1")),
            ("render --surface", render, ("--frames", "2", "--scale", "1", "--surface")),
            ("render --baked", render, ("--frames", "1", "--scale", "1", "--surface", "--baked", "--modes", "depth")),
            ("render --renderer", render, ("--frames", "1", "--renderer", "{type: lattice, resolution: 24}")),
            ("extract_mesh", extract_mesh, ("--resolution", "24")),
            ("bake", bake, ("--resolution", "24")),
            ("render asset", render, ("--frames", "1", "--scale", "1", "--renderer", "asset")),
            ("evaluate", evaluate, ()),
        ):
            found["codes"][name] = run(script.main, out, *device, *options)
        found["codes"]["render an asset"] = run(render.main, f"{out}/asset", *device, "--frames", "1", "--scale", "1")
        for name in configs:
            path = f"configs/{name}.yaml"
            model = read_config(path, made).model
            fields = {part: getattr(model, part).field for part in ("foreground", "background") if getattr(model, part)}
            keys = []
            for part, field in fields.items():
                for key, encoding in field:
                    if isinstance(encoding, HashGridConfig):
                        keys.append(f"model.{part}.field.{key}.log2_rows=12")
                    elif isinstance(encoding, EncodingConfig) and "cells" in type(encoding).model_fields:
                        keys.append(f"model.{part}.field.{key}.cells=24")
            here, _ = step_waits(path, [*made, "device=cpu", *keys], 1)
            value, found["waits"][name] = step_waits(path, [*there, *keys], 3)
            found["errors"][name] = [here, value]
        # Steps between two choices of capacity, with which recording begins anew, and of the number of rays.
        models.model.FIT_EVERY = engine.cluster.ray_count.FIT_EVERY = 4
        for name, changes in {**RECORDED, AMONG_RANKS: RECORDED["neus_hash"]}.items():  # the last one stays so
            keys = [*([small] if "hash" in name else []), *changes]
            given = [key for key in there if key != "train.rays=48" or "train.samples=4096" not in changes]
            path = f"configs/{name.split()[0]}.yaml"
            found["recorded"][name] = recorded(path, [*given, *keys], 12, ranks=name == AMONG_RANKS)
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
