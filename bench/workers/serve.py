"""A worker of bench/compile_speed.py: a process that holds one network ready in one runtime, and runs it when told to.

Requests come on stdin and answers go to stdout, one JSON object a line:

    {"do": "open", "runtime": "onnxruntime", "network": "net.gsir", "batch": 1, "threads": 1, "outputs": "out.npz"}
    {"do": "burst", "seconds": 0.15, "least": 3}     how long one run takes: median and quartiles, in seconds
    {"do": "compile", "network": "net.gsir", "out": "artifact", ...}
    {"do": "start", "artifact": "artifact", "how": "load_artifact"}

It ends when stdin does. Between requests it sleeps.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

Arrays = list[np.ndarray]
Request = Mapping[str, Any]


class Runtime(Protocol):
    """A network that is ready to run on inputs that stay the same."""

    def outputs(self) -> Arrays:
        """Runs once and returns the outputs, NCHW."""

    def times(self, seconds: float, least: int) -> list[float]:
        """Runs for so many seconds, and so many times at least, and returns the seconds of each run."""

    def close(self) -> None:
        """Frees what Python does not."""


class Called:
    """A runtime that is a function of nothing, timed around each call."""

    def __init__(
        self,
        call: Callable[[], object],
        outputs: Callable[[], Arrays],
        close: Callable[[], object] = lambda: None,
    ) -> None:
        self._call, self.outputs, self.close = call, outputs, close

    def times(self, seconds: float, least: int) -> list[float]:
        call, clock = self._call, time.perf_counter_ns
        warm = clock() + int(seconds * 1e8)
        call()
        while clock() < warm:
            call()
        found: list[int] = []
        end = clock() + int(seconds * 1e9)
        gc.collect()
        gc.disable()
        try:
            while True:
                before = clock()
                call()
                after = clock()
                found.append(after - before)
                if after > end and len(found) >= least:
                    return [1e-9 * each for each in found]
        finally:
            gc.enable()


def inputs_of(shapes: list[tuple[int, ...]]) -> Arrays:
    """Returns the inputs that every runtime gets."""
    random = np.random.default_rng(0)
    return [random.standard_normal(shape, dtype=np.float32) for shape in shapes]


# Runtimes.


def gensynth(request: Request) -> Runtime:
    """The executor in C of an artifact, called as gensynth.h says, with arrays that stay."""
    folder = Path(request["artifact"])
    manifest = json.loads((folder / "manifest.json").read_text())
    library = ctypes.CDLL(str(folder / "libnetwork.so"))
    library.gs_open.restype = ctypes.c_void_p
    pointers = ctypes.POINTER(ctypes.c_void_p)
    library.gs_run.argtypes = [ctypes.c_void_p, pointers, ctypes.c_void_p, pointers, ctypes.c_void_p]
    message = ctypes.create_string_buffer(1024)
    handle = library.gs_open(os.fsencode(folder), request["threads"], message, len(message))
    if not handle:
        raise RuntimeError(message.value.decode())
    given = inputs_of([tuple(item["shape"]) for item in manifest["inputs"]])
    taken = [np.zeros(item["shape"], np.float32) for item in manifest["outputs"]]
    sources = (ctypes.c_void_p * len(given))(*(array.ctypes.data for array in given))
    targets = (ctypes.c_void_p * len(taken))(*(array.ctypes.data for array in taken))
    run = library.gs_run

    def call(_kept: object = (given, taken)) -> None:
        run(handle, sources, None, targets, None)

    def outputs() -> Arrays:
        status = run(handle, sources, None, targets, None)
        if status:
            raise RuntimeError(f"gs_run returned {status}")
        return [array.copy() for array in taken]

    library.gs_close.argtypes = [ctypes.c_void_p]
    return Called(call, outputs, lambda: library.gs_close(handle))


def onnxruntime(request: Request) -> Runtime:
    """ONNX Runtime on the exported network, its batch fixed, inputs and outputs bound to arrays that stay."""
    import onnxruntime as ort

    from gensynth.backends.onnx import to_onnx
    from gensynth.ir import load_network

    network = load_network(request["network"])
    options = ort.SessionOptions()
    options.intra_op_num_threads = request["threads"]
    options.log_severity_level = 3
    model = to_onnx(network, batch=request["batch"]).SerializeToString()
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    given = inputs_of([tuple(item.shape) for item in session.get_inputs()])
    binding = session.io_binding()
    values = [ort.OrtValue.ortvalue_from_numpy(array) for array in given]
    for item, value in zip(session.get_inputs(), values, strict=True):
        binding.bind_ortvalue_input(item.name, value)
    taken = [ort.OrtValue.ortvalue_from_numpy(np.zeros(item.shape, np.float32)) for item in session.get_outputs()]
    for item, value in zip(session.get_outputs(), taken, strict=True):
        binding.bind_ortvalue_output(item.name, value)
    # the bound method beneath run_with_iobinding: without what Python checks before each run
    run, bound = session._sess.run_with_iobinding, binding._iobinding

    def call(_kept: object = (session, binding, values)) -> None:
        run(bound, None)

    def outputs() -> Arrays:
        run(bound, None)
        return [value.numpy().copy() for value in taken]

    return Called(call, outputs)


def _torch(request: Request, *, inductor: bool) -> Runtime:
    import torch

    from gensynth.backends.torch import to_torch
    from gensynth.ir import load_network

    network = load_network(request["network"])
    torch.set_num_threads(request["threads"])
    torch.set_grad_enabled(False)
    shapes = [value.type.sizes(request["batch"]) for value in network.graph.inputs]
    given = [torch.from_numpy(array) for array in inputs_of(shapes)]
    module: Callable[..., Any] = to_torch(network).eval()
    if inductor:
        import torch._dynamo
        import torch._inductor.config

        torch._dynamo.reset()
        torch._inductor.config.freezing = True
        module = torch.compile(module)

    def call() -> object:
        with torch.inference_mode():
            return module(*given)

    def outputs() -> Arrays:
        found = call()
        return [item.numpy().copy() for item in (found if isinstance(found, tuple) else (found,))]  # type: ignore[attr-defined]

    return Called(call, outputs)


def torch_eager(request: Request) -> Runtime:
    """PyTorch, op by op, in inference mode."""
    return _torch(request, inductor=False)


def torch_compile(request: Request) -> Runtime:
    """PyTorch's compiler (inductor) with frozen weights, in inference mode."""
    return _torch(request, inductor=True)


class Virtual:
    """A module in TVM's virtual machine, timed by TVM itself; TVM_NUM_THREADS says by how many threads."""

    def __init__(self, module: Any, given: Mapping[str, np.ndarray]) -> None:
        from gensynth.backends.tvm.relax import build_relax
        from gensynth.backends.tvm.targets import load_target

        self._machine = build_relax(module, load_target("host"), exec_mode="compiled")
        self._given = given

    def outputs(self) -> Arrays:
        from gensynth.backends.tvm.relax import run_vm

        return list(run_vm(self._machine, self._given))

    def close(self) -> None:
        pass  # memory goes with the machine

    def times(self, seconds: float, least: int) -> list[float]:
        from gensynth.backends.tvm.relax import time_vm

        arrays = list(self._given.values())
        (first,) = time_vm(self._machine, arrays, 1)
        # as many runs warm up as are timed: half of the time for each
        repeats = max(least, min(int(seconds / first / 2), 20_000))
        return [float(each) for each in time_vm(self._machine, arrays, repeats)]


def tvm_untuned(request: Request) -> Runtime:
    """TVM's own default kernels, fused, not tuned."""
    from gensynth.backends.tvm.relax import to_relax
    from gensynth.ir import load_network

    network = load_network(request["network"])
    inputs = network.graph.inputs
    given = inputs_of([value.type.sizes(request["batch"]) for value in inputs])
    names = [value.name for value in inputs]
    return Virtual(to_relax(network, batch=request["batch"]), dict(zip(names, given, strict=True)))


def relax_vm(request: Request) -> Runtime:
    """The kernels of the artifact itself, called by TVM's virtual machine in memory that TVM plans."""
    from gensynth.backends.tvm.lowering import lower
    from gensynth.backends.tvm.relax import relax_of_program
    from gensynth.backends.tvm.targets import load_target
    from gensynth.ir import load_network

    network = load_network(request["network"])
    program = lower(network, load_target("host"), batch=request["batch"])
    code = (Path(request["artifact"]) / "src" / "kernels.o").read_bytes()
    given = inputs_of([item.shape for item in program.inputs])
    module = relax_of_program(program, threads=request["threads"], code=code)
    return Virtual(module, {item.name: array for item, array in zip(program.inputs, given, strict=True)})


RUNTIMES = {each.__name__: each for each in (gensynth, onnxruntime, torch_eager, torch_compile, tvm_untuned, relax_vm)}


# Requests.


def compile_artifact(request: Request) -> dict[str, object]:
    """Compiles a network into an artifact, tuned if told to."""
    from gensynth.backends.tvm import compile_network
    from gensynth.ir import load_network

    network = load_network(request["network"])
    began = time.perf_counter()
    compile_network(
        network,
        "host",
        request["out"],
        batch=request["batch"],
        trials=request.get("trials", 0),
        seconds=request.get("seconds", 0),
        records=request.get("records"),
        archive=request.get("archive", True),
    )
    return {"seconds": time.perf_counter() - began}


def start_artifact(request: Request) -> dict[str, object]:
    """Opens an artifact that this process has not met, with 2 threads."""
    folder = request["artifact"]
    if request["how"] == "load_artifact":
        from gensynth.backends.tvm.loading import load_artifact

        began = time.perf_counter()
        with load_artifact(folder, threads=2):
            return {"seconds": time.perf_counter() - began}
    from gensynth.backends.tvm.runtime.gensynth_network import Network

    began = time.perf_counter()
    with Network(folder, 2):
        return {"seconds": time.perf_counter() - began}


def main() -> None:
    """Answers requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes elsewhere
    runtime: Runtime | None = None
    for line in sys.stdin:
        request = json.loads(line)
        answer: dict[str, object]
        try:
            if request["do"] == "open":
                if runtime is not None:
                    runtime.close()
                runtime = None
                gc.collect()
                runtime = RUNTIMES[request["runtime"]](request)
                np.savez(request["outputs"], *runtime.outputs())
                answer = {}
            elif request["do"] == "burst":
                assert runtime is not None
                times = runtime.times(request["seconds"], request["least"])
                low, middle, high = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
                answer = {"median": middle, "first_quartile": low, "third_quartile": high, "runs": len(times)}
            elif request["do"] == "compile":
                answer = compile_artifact(request)
            else:
                answer = start_artifact(request)
        except Exception as error:  # the parent tells what went wrong, and goes on
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
