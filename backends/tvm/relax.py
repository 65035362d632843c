"""Networks and programs in Relax, TVM's graph language.

`to_relax` writes a network in Relax's own ops, for TVM to lower, tune and compile by its own means. `relax_of_program`
writes a program: the executor's very kernels, called by TVM's virtual machine, in memory that TVM plans. `build_relax`
compiles either for this machine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import tvm
import tvm.tirx.script.builder as T
from tvm import relax
from tvm.script.ir_builder import IRBuilder
from tvm.tirx import PrimFunc

from gensynth.ir import Array, Network, UsageError, Value, WeightsError, check_weights

from .host import host_architecture
from .objects import compile_objects, llvm_target
from .program import Placement, Pointer, Program, ProgramStep
from .relax_lowerings import Expression, RelaxNode, constant, lower, to_nchw, to_nhwc
from .targets import Target
from .toolchain import find_toolchain, host_triple

__all__ = ["build_relax", "relax_of_program", "run_vm", "time_vm", "to_relax"]

MARGIN = 16
"""Elements before and after a tensor of activations that kernels may read, as on both sides of the executor's arena."""

_OBJECTS = "external_mods"
"""TVM's name for the attribute of a module that holds compiled code which its functions call."""


# Networks.


def to_relax(network: Network, *, batch: int = 1) -> tvm.IRModule:
    """Returns a network as a Relax function `main` in Relax's high-level ops, for a fixed batch size.

    Its parameters are the network's inputs and it returns its outputs, a tuple where there are several, all as the
    network has them (NCHW). Inside, images are channels last. Weights are constants; variables have the values' names,
    with `_` for dots. Nothing is folded or fused: run passes on the network, or TVM's on the result.

    Raises:
        UsageError: open choices, an input that is not float32, a batch below 1, or an op without a lowering to Relax.
        WeightsError: the network has no weights, or they do not fit.
    """
    graph = network.graph
    if graph.is_generator:
        raise UsageError(f"@{graph.name} has open choices, so it cannot be compiled", hint="materialize it with a seed")
    if network.weights is None:
        raise WeightsError(f"@{graph.name} has no weights", hint="train it, give weights, or draw fresh ones by a seed")
    check_weights(graph, network.weights)
    if batch < 1:
        raise UsageError(f"a batch of {batch} images cannot be compiled", hint="give a positive batch")
    for value in graph.inputs:
        if value.type.dtype != "f32":
            raise UsageError(f"input '{value.name}' is {value.type}", hint="only float32 networks can be compiled")
    builder = relax.BlockBuilder()
    parameters = {value.name: relax.Var(value.name, _tensor_type(value, batch)) for value in graph.inputs}
    with builder.function("main", list(parameters.values())):
        with builder.dataflow():
            values: dict[str, Expression] = {}
            for value in graph.inputs:
                variable = parameters[value.name]
                if value.type.rank == 4:
                    variable = builder.emit(to_nhwc(variable), name_hint=f"input.{value.name}")
                values[value.name] = variable
            for node in graph.nodes:
                operands = tuple(values[value.name] for value in node.operands)
                weights = {
                    parameter.name: network.weights[f"{node.name}.{parameter.name}"]
                    for parameter in node.op.parameters(node.operand_types)
                }
                results = lower(RelaxNode(node, operands, weights, batch, builder))
                for value, result in zip(node.results, results, strict=True):
                    values[value.name] = builder.emit(result, name_hint=value.name)
            outputs = [
                builder.emit_output(
                    to_nchw(values[value.name]) if value.type.rank == 4 else values[value.name],
                    name_hint=f"output.{value.name}",
                )
                for value in graph.outputs
            ]
        builder.emit_func_output(outputs[0] if len(outputs) == 1 else relax.Tuple(outputs))
    return builder.get()


def _tensor_type(value: Value, batch: int) -> Any:
    return relax.TensorType(value.type.sizes(batch), "float32")


# Programs.


def relax_of_program(program: Program, *, threads: int = 1, code: bytes | None = None) -> tvm.IRModule:
    """Returns a program as a lowered Relax function `main`: its steps in order, on its own kernels.

    The kernels come with the module as object code, `code` where it is at hand (`compile_program`), the same as the
    executor's. Around each stands a function that divides its tasks among up to `threads` threads of TVM's pool, as the
    executor divides them. Every value of the program is a tensor, its halo included, which TVM allocates. Where the
    program takes its images in several `repeats`, these come one after another. `main` takes and returns the program's
    inputs and outputs (NCHW).

    Raises:
        UsageError: the program is for a GPU, or `threads` is below 1.
    """
    if program.target.kind != "cpu":
        raise UsageError(
            f"{program.target.name} runs kernels on a GPU, which Relax cannot call here",
            hint="lower the network for a CPU, such as --target host",
        )
    if threads < 1:
        raise UsageError(f"{threads} threads cannot run anything", hint="give a positive number")
    builder = relax.BlockBuilder()
    parameters = [relax.Var(tensor.name, relax.TensorType(tensor.shape, "float32")) for tensor in program.inputs]
    with builder.function("main", parameters, attrs={"relax.force_pure": True}):
        writer = _ProgramWriter(program, threads, builder, parameters)
        outputs = writer.write()
        builder.emit_func_output(outputs[0] if len(outputs) == 1 else relax.Tuple(outputs))
    return builder.get().with_attr(_OBJECTS, [_kernels_of(program, code)])


@dataclass(frozen=True)
class _Argument:
    """A kernel's argument: which of its wrapper's tensors, from which element on, and how far on for each repeat."""

    tensor: int
    element: int
    stride: int = 0


@dataclass(frozen=True)
class _Wrapper:
    """What tells the functions around kernels apart; `shapes` are those of their tensors."""

    kernel: int
    shapes: tuple[tuple[int, ...], ...]
    arguments: tuple[_Argument, ...]
    threads: int


class _ProgramWriter:
    """Writes a program's steps with a block builder, in whose function it stands."""

    def __init__(self, program: Program, threads: int, builder: Any, parameters: Sequence[Expression]) -> None:
        self.program, self.threads, self.builder = program, threads, builder
        self.parameters = parameters
        self.outputs = [self._allocate(tensor.shape, f"output.{tensor.name}") for tensor in program.outputs]
        blob = np.frombuffer(program.weights, np.float32)
        self.weights = constant(blob) if blob.size else None
        self.weights_shape = (int(blob.size),)
        self.wrappers: dict[_Wrapper, Expression] = {}

    def write(self) -> list[Expression]:
        for repeat in range(self.program.repeats):
            activations: dict[Placement, Expression] = {}
            phase = 0
            for step in self.program.steps:
                phase += step.barrier
                self._call(step, phase, repeat, activations)
        return self.outputs

    def _allocate(self, shape: tuple[int, ...], name: str) -> Expression:
        return self.builder.emit(relax.op.builtin.alloc_tensor(relax.ShapeExpr(shape), "float32", 0), name_hint=name)

    def _call(self, step: ProgramStep, phase: int, repeat: int, activations: dict[Placement, Expression]) -> None:
        tensors: dict[object, tuple[Expression, tuple[int, ...]]] = {}
        arguments = []
        for pointer in step.arguments:
            key, element, stride = self._place(pointer, phase)
            if key not in tensors:
                tensors[key] = self._tensor(key, activations)
            arguments.append(_Argument(list(tensors).index(key), element, stride))
        shapes = tuple(shape for _, shape in tensors.values())
        threads = min(step.threads, self.threads, self.program.kernels[step.kernel].emitted.tasks)
        wrapper = _Wrapper(step.kernel, shapes, tuple(arguments), max(1, threads))
        if wrapper not in self.wrappers:
            name = f"step{len(self.wrappers)}_{self.program.kernels[step.kernel].name}"
            self.wrappers[wrapper] = self.builder.add_func(_wrap(wrapper, self.program, name), name)
        operands = [tensor for tensor, _ in tensors.values()]
        if any(argument.stride for argument in arguments):
            operands.append(tvm.tirx.IntImm("int64", repeat))
        self.builder.emit(relax.Call(self.wrappers[wrapper], operands))

    def _place(self, pointer: Pointer, phase: int) -> tuple[object, int, int]:
        """Returns which tensor a pointer points into, at which element, and how far it moves on for each repeat."""
        if pointer.space == "arena":
            home = _placement_at(self.program, pointer.offset, phase)
            return home, MARGIN + (pointer.offset - home.offset) // 4, 0
        if pointer.space == "weights":
            return pointer.space, pointer.offset // 4, 0
        tensor = (self.program.inputs if pointer.space == "input" else self.program.outputs)[pointer.index]
        stride = int(np.prod(tensor.shape)) // self.program.repeats if self.program.repeats > 1 else 0
        return (pointer.space, pointer.index), pointer.offset // 4, stride

    def _tensor(self, key: object, activations: dict[Placement, Expression]) -> tuple[Expression, tuple[int, ...]]:
        if isinstance(key, Placement):
            shape = (key.size // 4 + 2 * MARGIN,)
            if key not in activations:
                activations[key] = self._allocate(shape, key.value)
            return activations[key], shape
        if isinstance(key, tuple):
            space, index = key
            if space == "input":
                return self.parameters[index], self.program.inputs[index].shape
            return self.outputs[index], self.program.outputs[index].shape
        return self.weights, self.weights_shape


def _placement_at(program: Program, offset: int, phase: int) -> Placement:
    """Returns the value that lies at an offset of the arena in a phase."""
    for placement in program.placements:
        if placement.first <= phase <= placement.last and 0 <= offset - placement.offset < placement.size:
            return placement
    raise UsageError(
        f"the program of @{program.name} does not say what lies at byte {offset} of its arena in phase {phase}",
        hint="lower the network again: its `placements` are incomplete",
    )


def _wrap(wrapper: _Wrapper, program: Program, name: str) -> PrimFunc:
    """Returns the function that the virtual machine calls for a step: it has tensors, and the kernel pointers."""
    kernel = program.kernels[wrapper.kernel]
    tasks = kernel.emitted.tasks
    with IRBuilder() as builder, T.prim_func():
        T.func_name(name)
        T.func_attr({"global_symbol": name})
        buffers = [T.arg(f"tensor{number}", T.buffer(shape, "float32")) for number, shape in enumerate(wrapper.shapes)]
        repeat = T.arg("repeat", T.int64()) if any(argument.stride for argument in wrapper.arguments) else 0
        flat = [
            T.decl_buffer((int(np.prod(shape)),), "float32", data=buffer.data)
            for buffer, shape in zip(buffers, wrapper.shapes, strict=True)
        ]

        def call(begin: Expression, end: Expression) -> None:
            pointers = [
                T.address_of(flat[argument.tensor][argument.element + repeat * argument.stride])
                for argument in wrapper.arguments
            ]
            T.evaluate(T.call_extern("void", kernel.name, *pointers, begin, end))

        if wrapper.threads == 1:
            call(T.int32(0), T.int32(tasks))
        else:
            with T.parallel(0, wrapper.threads) as part:
                call(part * tasks // wrapper.threads, (part + 1) * tasks // wrapper.threads)
    return builder.get()


def _kernels_of(program: Program, code: bytes | None) -> tvm.runtime.Module:
    """Returns a program's kernels as object code that TVM links."""
    functions = {kernel.name: kernel.emitted.function for kernel in program.kernels}
    with tempfile.TemporaryDirectory(prefix="gensynth-") as folder:
        path = Path(folder) / "kernels.o"
        path.write_bytes(compile_objects(functions, program.target) if code is None else code)
        return tvm.runtime.load_static_library(str(path), list(functions))


# Running.


def build_relax(
    module: tvm.IRModule, target: Target, *, exec_mode: Literal["bytecode", "compiled"] = "bytecode"
) -> relax.VirtualMachine:
    """Returns a virtual machine that runs a module of `to_relax` or `relax_of_program` on this machine's CPU.

    High-level ops become TVM's default kernels, fused, not tuned (`relax.get_pipeline("zero")`); within a
    `tvm.s_tir.meta_schedule` database, tuned where the database has them. With `compiled` the calls of kernels become
    machine code too, instead of bytecode: TVM's fastest way for small networks. TVM's pool has as many threads as the
    environment variable TVM_NUM_THREADS says.

    Raises:
        UsageError: the target is no CPU of this machine's architecture, or there is no C compiler to link kernels with.
    """
    if target.kind != "cpu" or target.architecture != host_architecture():
        raise UsageError(
            f"what is compiled for {target.name} does not run here (this is {host_architecture()})",
            hint="build for the target host",
        )
    llvm = llvm_target(target)
    if not (module.attrs and _OBJECTS in module.attrs):
        with llvm:
            module = relax.get_pipeline("zero")(module)
    executable = relax.build(module, llvm, exec_mode=exec_mode)
    return relax.VirtualMachine(executable.jit(fcompile=_link), tvm.cpu())


def _link(library: str, objects: Sequence[str], **_: object) -> None:
    find_toolchain(host_triple(), portable=False).link([Path(path) for path in objects], Path(library), "-shared")


def run_vm(vm: relax.VirtualMachine, inputs: Array | Mapping[str, Array]) -> tuple[Array, ...]:
    """Returns the outputs of `main`; `inputs` is one array for one input, else a mapping by input name.

    Raises:
        UsageError: an input is missing, or there is none of that name.
        RuntimeError: TVM says that an input has another shape than it was compiled for.
    """
    names = [vm.module["get_function_param_name"]("main", n) for n in range(vm.module["get_function_arity"]("main"))]
    given = {names[0]: inputs} if isinstance(inputs, np.ndarray) else dict(inputs)
    if set(given) != set(names):
        raise UsageError(f"inputs {', '.join(given)} were given", hint=f"give {', '.join(names)}")
    found = vm["main"](*_tensors([given[name] for name in names]))
    outputs = (found,) if isinstance(found, tvm.runtime.Tensor) else tuple(found)
    return tuple(tensor.numpy() for tensor in outputs)


def time_vm(vm: relax.VirtualMachine, inputs: Sequence[Array], repeats: int) -> npt.NDArray[np.float64]:
    """Returns the seconds that each of `repeats` runs of `main` took, timed inside TVM, after as many that warm up.

    Allocating the outputs, from TVM's pool, is part of a run; making tensors of `inputs` is not.
    """
    evaluator = vm.time_evaluator("main", tvm.cpu(), number=1, repeat=repeats)
    tensors = _tensors(inputs)
    evaluator(*tensors)
    return np.asarray(evaluator(*tensors).results, np.float64)


def _tensors(arrays: Sequence[Array]) -> list[Any]:
    return [tvm.runtime.tensor(np.ascontiguousarray(array, np.float32)) for array in arrays]
