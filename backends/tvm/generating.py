"""Programs as C: the tables from which the executor runs a network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from gensynth.ir import UsageError

from .host import FEATURES
from .program import Program, ProgramStep, Tensor
from .targets import CudaTarget, code_features

__all__ = ["MAX_POINTERS", "MAX_RANK", "checksum", "network_source", "ptx_source"]

MAX_POINTERS = 16
MAX_RANK = 8

_SPACES = {"arena": "GS_ARENA", "weights": "GS_WEIGHTS", "input": "GS_INPUT", "output": "GS_OUTPUT"}

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FILE_NAME = re.compile(r"[A-Za-z0-9_.\-]+")

_KEY = 0x9E3779B97F4A7C15
_MULTIPLIER = 0xC2B2AE3D27D4EB4F
_FINISHER = 0x165667B19E3779F9
_WORDS = 1 << 16

_PIECE = 4000


def checksum(data: bytes) -> int:
    """Returns the executor's 64-bit checksum of some bytes: `gs_checksum` of runtime/executor.c, which says how."""
    padded = data + bytes(-len(data) % 8)
    words = np.frombuffer(padded, dtype="<u8")
    total = np.uint64(0)
    with np.errstate(over="ignore"):
        for start in range(0, len(words), _WORDS):
            part = words[start : start + _WORDS]
            mixed = np.arange(start + 1, start + 1 + len(part), dtype=np.uint64)
            mixed *= np.uint64(_KEY)
            mixed ^= part
            mixed *= np.uint64(_MULTIPLIER)
            mixed = (mixed << np.uint64(29)) | (mixed >> np.uint64(35))
            mixed *= np.uint64(_KEY)
            total += mixed.sum(dtype=np.uint64)
    value = (int(total) + len(data)) % 2**64
    value = (value ^ (value >> 33)) * _FINISHER % 2**64
    return value ^ (value >> 29)


def network_source(program: Program, *, tolerance: float) -> str:
    """Returns `network.c`: a program's tables, for runtime/program.h. PTX is apart, in `ptx_source`.

    Raises:
        UsageError: the program does not fit the executor: a kernel takes more than 16 pointers, a tensor has more than
            8 dimensions, a name cannot be one of a C function or file, or a pointer points outside its space.
    """
    _check(program)
    cuda = program.target.cuda
    weights = checksum(program.weights)
    pointers = {step.kernel: len(step.arguments) for step in program.steps}
    first, calls = 0, []
    for step in program.steps:
        nodes = _string(" ".join(step.nodes))
        calls.append(f"{{{step.kernel}, {first}, {step.threads}, {int(step.barrier)}, {nodes}}}")
        first += len(step.arguments)
    kernels = [
        f"{{{_string(kernel.name)}, {'NULL' if cuda else kernel.name}, {pointers.get(number, 0)}, "
        f"{1 if cuda else kernel.emitted.tasks}, {_triple(kernel.emitted.grid)}, {_triple(kernel.emitted.block)}, "
        f"INT64_C({kernel.macs}), INT64_C({kernel.bytes})}}"
        for number, kernel in enumerate(program.kernels)
    ]
    arguments = [
        f"{{{_SPACES[pointer.space]}, {pointer.index}, UINT64_C({pointer.offset})}}"
        for step in program.steps
        for pointer in step.arguments
    ]
    lines = [
        f"/* network.c: {_comment(program.name)} for {_comment(program.target.name)}, as tables. Generated. */",
        '#include "program.h"',
        "",
    ]
    if cuda:
        lines += ["extern const char *const gs_ptx[];", ""]
    else:
        lines += [f"void {kernel.name}(void);" for kernel in program.kernels] + [""]
    lines += [
        *_table("gs_kernel", "kernels", kernels),
        *_table("gs_argument", "arguments", arguments),
        *_table("gs_call", "calls", calls),
        *_table("gs_tensor", "inputs", map(_tensor, program.inputs)),
        *_table("gs_tensor", "outputs", map(_tensor, program.outputs)),
        "const gs_program gs_the_program = {",
        "    .description = {",
        f"        .name = {_string(program.name)},",
        f"        .architecture_hash = {_string(program.architecture_hash)},",
        f"        .target = {_string(program.target.name)},",
        f"        .kind = {_string(program.target.kind)},",
        f"        .dtype = {_string(program.dtype)},",
        f"        .batch = {program.images},",
        f"        .weights_bytes = {len(program.weights)},",
        f"        .arena_bytes = {program.arena},",
        f"        .tolerance = {tolerance!r},",
        "    },",
        f"    .features = {_string(' '.join(_features(program)))},",
        f"    .weights_checksum = UINT64_C(0x{weights:016x}),",
        f"    .repeats = {program.repeats},",
        f"    .kernel_count = {len(kernels)},",
        f"    .call_count = {len(calls)},",
        f"    .argument_count = {len(arguments)},",
        f"    .input_count = {len(program.inputs)},",
        f"    .output_count = {len(program.outputs)},",
        "    .kernels = kernels,",
        "    .calls = calls,",
        "    .arguments = arguments,",
        "    .inputs = inputs,",
        "    .outputs = outputs,",
    ]
    if cuda:
        capability, version = _cuda_needs(cuda)
        lines += [
            "    .ptx = gs_ptx,",
            f"    .capability = {capability},",
            f"    .cuda_version = {version},",
        ]
    return "\n".join([*lines, "};", ""])


def ptx_source(ptx: bytes) -> str:
    """Returns `kernels.c`: PTX as pieces of text, none longer than C99 promises to take (4095), and NULL."""
    lines = [line + "\n" for line in ptx.rstrip(b"\0").decode().splitlines()]
    rows: list[str] = []
    length = 0
    for part in (line[start : start + _PIECE] for line in lines for start in range(0, len(line), _PIECE)):
        size = len(part.encode())
        if rows and length + size > _PIECE:
            rows[-1] += ","
            length = 0
        rows.append(f"    {_string(part)}")
        length += size
    return "\n".join(
        [
            "/* kernels.c: the kernels, in PTX; kernels.ptx is the same. Generated. */",
            "#include <stddef.h>",
            "",
            "extern const char *const gs_ptx[];",
            "const char *const gs_ptx[] = {",
            *rows,
            "    , NULL," if rows else "    NULL,",
            "};",
            "",
        ]
    )


def _check(program: Program) -> None:
    sizes = {"arena": program.arena, "weights": len(program.weights)}
    for kernel in program.kernels:
        if not _IDENTIFIER.fullmatch(kernel.name) or kernel.name.startswith("gs_") or kernel.name == "main":
            raise UsageError(
                f"a kernel is called {kernel.name!r}, which cannot be the name of its C function",
                hint="begin it with a letter, and not with gs_; use letters, digits and _",
            )
    for tensor in (*program.inputs, *program.outputs):
        if not _FILE_NAME.fullmatch(tensor.name):
            raise UsageError(
                f"an input or output is called {tensor.name!r}, which cannot be part of a file's name",
                hint="rename it: letters, digits, _, - and .",
            )
        if len(tensor.shape) > MAX_RANK:
            raise UsageError(
                f"%{tensor.name} has {len(tensor.shape)} dimensions, the executor takes {MAX_RANK}",
                hint="reshape it in the network",
            )
    for number, step in enumerate(program.steps):
        _check_step(program, number, step, sizes)


def _check_step(program: Program, number: int, step: ProgramStep, sizes: dict[str, int]) -> None:
    where = f"step {number} ({program.kernels[step.kernel].name})"
    if not 1 <= len(step.arguments) <= MAX_POINTERS:
        raise UsageError(
            f"{where} takes {len(step.arguments)} pointers, the executor calls kernels of 1 to {MAX_POINTERS}",
            hint="fuse fewer steps into the kernel",
        )
    tensors: dict[str, Sequence[Tensor]] = {"input": program.inputs, "output": program.outputs}
    for pointer in step.arguments:
        if pointer.space in tensors:
            fits = 0 <= pointer.index < len(tensors[pointer.space])
            size = _bytes(tensors[pointer.space][pointer.index]) if fits else 0
        else:
            size = sizes[pointer.space]
        if not 0 <= pointer.offset < size:
            raise UsageError(
                f"{where} has a pointer to byte {pointer.offset} of {pointer.space} {pointer.index}, which has {size}",
                hint="this is a mistake of the lowering",
            )


def _features(program: Program) -> list[str]:
    """Returns what the kernels need of the processor, by the operating system's names."""
    if program.target.kind != "cpu":
        return []
    needed = code_features(program.target)
    return [name for name, llvm in FEATURES.items() if llvm in needed]


def _bytes(tensor: Tensor) -> int:
    return 4 * int(np.prod(tensor.shape, dtype=np.int64))


def _tensor(tensor: Tensor) -> str:
    shape = ", ".join(map(str, tensor.shape))
    return f'{{{_string(tensor.name)}, "f32", {len(tensor.shape)}, {{{shape}}}, {_bytes(tensor)}}}'


def _table(kind: str, name: str, rows: Iterable[str]) -> list[str]:
    # C has no empty arrays.
    return [f"static const {kind} {name}[] = {{", *(f"    {row}," for row in list(rows) or ["{0}"]), "};", ""]


def _triple(sizes: tuple[int, int, int]) -> str:
    return f"{{{sizes[0]}, {sizes[1]}, {sizes[2]}}}"


def _string(text: str) -> str:
    """Returns a C string literal: what is not printable ASCII, and what C gives a meaning, as escapes."""
    plain = {byte: chr(byte) for byte in set(range(0x20, 0x7F)) - set(b'"\\?')} | {0x09: r"\t", 0x0A: r"\n"}
    return '"' + "".join(plain.get(byte) or f"\\{byte:03o}" for byte in text.encode()) + '"'


def _comment(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.\-]", "_", text)


def _cuda_needs(cuda: CudaTarget) -> tuple[int, int]:
    """Returns the least compute capability (62) and the least CUDA version (10020) that take a target's PTX.

    From the release history in NVIDIA's "PTX ISA" reference: 6.0 came with CUDA 9.0, 6.3 with 10.0, 7.0 with 11.0, 8.0
    with 12.0, 8.6 with 12.7, 9.0 with 13.0; between these, each minor version came with the next one of CUDA.
    """
    match = re.fullmatch(r"(?:sm|compute)_(\d+)[a-z]?", cuda.arch)
    version = re.fullmatch(r"(\d+)\.(\d+)", cuda.ptx_version)
    if match is None or version is None:
        raise UsageError(
            f"the target's GPU is {cuda.arch!r} with PTX {cuda.ptx_version!r}", hint="write them like 'sm_62' and '6.5'"
        )
    major, minor = int(version[1]), int(version[2])
    if major == 6:
        toolkit = (9, minor) if minor < 3 else (10, minor - 3)
    else:
        toolkit = (
            major + 4,
            {(8, 3): 3, (8, 4): 4, (8, 5): 5, (8, 6): 7, (8, 7): 8, (8, 8): 9}.get((major, minor), minor),
        )
    return int(match[1]), toolkit[0] * 1000 + toolkit[1] * 10
