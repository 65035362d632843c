"""GPU code of kernels: scheduled functions -> CUDA C, by TVM -> PTX, by NVRTC -> machine code, by ptxas.

Nothing here needs a GPU, a driver or a CUDA installation: NVRTC and ptxas come from NVIDIA's packages on PyPI. What
ships is PTX, which the driver on the device compiles; ptxas shows here what becomes of it.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tvm
from tvm.tirx import PrimFunc, transform

from gensynth.ir import UsageError

from .targets import Target

__all__ = [
    "Assembly",
    "KernelResources",
    "assemble",
    "check_resources",
    "compile_ptx",
    "cuda_source",
    "nvrtc_version",
    "ptxas_path",
    "ptxas_version",
]

PRELUDE = """\
// Kernels of one network, written by GenSynth. Compiled by NVRTC for the device; on a CPU a header that stands for CUDA
// comes first. float16 numbers are held as the bits of unsigned integers, two of them in one of 32 bits.
#ifdef __CUDACC__
typedef unsigned int uint;
typedef unsigned short ushort;

// The float32 value of a float16 number.
static __device__ __forceinline__ float half_to_float(ushort bits) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
  return value;
}

// The float16 number nearest to a float32 value.
static __device__ __forceinline__ ushort float_to_half(float value) {
  ushort bits;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
  return bits;
}

// a * b + c of two pairs of float16 numbers, rounded once each.
static __device__ __forceinline__ uint multiply_add_halves(uint a, uint b, uint c) {
  uint result;
  asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(result) : "r"(a), "r"(b), "r"(c));
  return result;
}

static __device__ __forceinline__ float low_half(uint pair) { return half_to_float((ushort)(pair & 0xffffu)); }
static __device__ __forceinline__ float high_half(uint pair) { return half_to_float((ushort)(pair >> 16)); }
static __device__ __forceinline__ uint float_bits(float value) { return __float_as_uint(value); }
static __device__ __forceinline__ float bits_float(uint bits) { return __uint_as_float(bits); }
#endif

"""

_FIRST_KERNEL = 'extern "C" __global__'


def cuda_source(functions: Mapping[str, PrimFunc], target: Target) -> str:
    """Returns the CUDA C of these kernels as one translation unit, each under its name, `extern "C"`.

    Raises:
        UsageError: the target has no GPU.
    """
    if target.cuda is None:
        raise UsageError(f"{target.name} has no GPU", hint="compile for a target whose kind is cuda")
    cuda = tvm.target.Target({"kind": "cuda", "arch": target.cuda.arch, "max_num_threads": target.cuda.threads})
    module = tvm.IRModule(
        {
            # calling convention 2: launched on the device
            name: function.with_attr("global_symbol", name)
            .with_attr("target", cuda)
            .with_attr("calling_conv", 2)
            .with_attr("tirx.is_global_func", True)
            for name, function in functions.items()
        }
    )
    # loops to be unrolled stay loops here, under a pragma that NVRTC follows: the source stays short and readable
    for each in (
        transform.StmtSimplify(),
        transform.FlattenBuffer(),
        transform.NarrowDataType(32),
        transform.VectorizeLoop(True),
        transform.StmtSimplify(),
        transform.LowerIntrin(),
    ):
        module = each(module)
    source = str(tvm.get_global_func("target.build.cuda")(module, cuda).inspect_source())
    start = source.find(_FIRST_KERNEL)
    # TVM declares every kernel before it defines it, and repeats each constant in a comment
    body = re.sub(r"^extern \"C\" __global__ [^{;]*;\n", "", source[max(start, 0) :], flags=re.MULTILINE)
    body = re.sub(r"/\*-?[0-9.einf+-]+\*/", "", body)
    return PRELUDE + body.strip() + "\n"


# NVRTC.


def _package_file(package: str, *paths: str) -> Path | None:
    """Returns the first of some files of an installed package of NVIDIA's that is there."""
    try:
        found = find_spec(package)
    except ModuleNotFoundError:
        return None
    for folder in (found.submodule_search_locations or ()) if found else ():
        for path in paths:
            if (Path(folder) / path).exists():
                return Path(folder) / path
    return None


@cache
def _nvrtc() -> Any:
    path = _package_file("nvidia.cuda_nvrtc", "lib/libnvrtc.so.12", "bin/nvrtc64_120_0.dll")
    if path is None:
        raise UsageError(
            "NVRTC of CUDA 12, which compiles kernels for the GPU, is not installed",
            hint='install it: pip install "nvidia-cuda-nvrtc-cu12>=12.4,<13" (version 13 has no sm_62)',
        )
    library = ctypes.CDLL(str(path))
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


def nvrtc_version() -> str:
    """Returns NVRTC's version, such as "12.9".

    Raises:
        UsageError: it is not installed.
    """
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_nvrtc().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)), "nvrtcVersion")
    return f"{major.value}.{minor.value}"


def _check(status: int, what: str) -> None:
    if status:
        raise UsageError(f"{what} failed: {_nvrtc().nvrtcGetErrorString(status).decode()}", hint="reinstall NVRTC")


def compile_ptx(source: str, arch: str = "sm_62", ptx_version: str = "6.5") -> bytes:
    """Returns the PTX of CUDA C for an architecture, in a version of PTX that older drivers read.

    NVRTC writes the newest PTX it knows. Its header is rewritten to `ptx_version` after a check that no instruction is
    newer; PTX 6.5 is what drivers of CUDA 10.2, the last for the Tegra X2, take.

    Raises:
        UsageError: NVRTC is not installed, the source has errors, or the architecture or an instruction is newer than
            `ptx_version`.
    """
    library = _nvrtc()
    program = ctypes.c_void_p()
    _check(library.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernels.cu", 0, None, None), "NVRTC")
    try:
        options = [f"--gpu-architecture={arch.replace('sm_', 'compute_')}", "--std=c++17"]
        array = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        if library.nvrtcCompileProgram(program, len(options), array):
            log = _text(library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog, program)
            raise UsageError(
                f"NVRTC {nvrtc_version()} cannot compile the kernels for {arch}: {log.strip()[:2000]}",
                hint="if it says that the architecture is unknown, use another version of nvidia-cuda-nvrtc-cu12",
            )
        ptx = _text(library.nvrtcGetPTXSize, library.nvrtcGetPTX, program)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))
    return _at_version(ptx, ptx_version, arch).encode()


def _text(size_of: Any, read: Any, program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    _check(size_of(program, ctypes.byref(size)), "NVRTC")
    buffer = ctypes.create_string_buffer(size.value)
    _check(read(program, buffer), "NVRTC")
    return buffer.value.decode()


_INSTRUCTIONS = frozenset(
    re.findall(
        r"\w+",
        """
        abs add addc and atom bar barrier bfe bfi bfind bra brev brkpt call clz cnot copysign cos cvt cvta div dp2a
        dp4a ex2 exit fence fma fns isspacep ld ldu lg2 lop3 mad mad24 madc match max membar min mov mul mul24 neg not
        or pmevent popc prefetch prefetchu prmt rcp red rem ret rsqrt sad selp set setp shf shfl shl shr sin slct sqrt
        st sub subc suld suq sured sust tex testp tld4 trap txq vote xor
        """,
    )
)
"""Instructions that PTX 6.5 has and drivers take, without those for matrices."""

_NEWER = re.compile(
    r"\.(bf16|tf32|e4m3|e5m2|relu|NaN|xorsign|async|cluster|mbarrier|b128|f32x2|u16x2|s16x2|L1::\w+|L2::\w+|L2)"
    r"|^(abs|ex2|max|min|neg|tanh)\.[\w.]*f16"
)
"""Modifiers that came after PTX 6.5, and arithmetic of float16 that did."""

_FIRST_VERSIONS = {75: (6, 3), 80: (7, 0), 86: (7, 1), 87: (7, 4), 89: (7, 8), 90: (7, 8), 100: (8, 6), 120: (8, 7)}
"""The first PTX that knows an architecture (PTX ISA, release history); those before sm_75 are older than PTX 6.3."""


def _at_version(ptx: str, wanted: str, arch: str) -> str:
    """Returns PTX with another version in its header."""
    # says which bytes of a load are of use; a hint, which PTX has since 8.3
    ptx = re.sub(r'^\s*\.pragma "used_bytes_mask [^"]*";\n', "", ptx, flags=re.MULTILINE)
    header = re.search(r"^\.version (\d+)\.(\d+)$", ptx, flags=re.MULTILINE)
    version = re.fullmatch(r"(\d+)\.(\d+)", wanted)
    number = re.fullmatch(r"sm_(\d+)\w?", arch)
    if header is None or version is None or number is None:
        raise UsageError(f"cannot make PTX {wanted} for {arch}", hint='write them as "6.5" and "sm_62"')
    asked = int(version[1]), int(version[2])
    first = max((known for since, known in _FIRST_VERSIONS.items() if since <= int(number[1])), default=asked)
    if asked < first:
        raise UsageError(
            f"PTX {wanted} does not know {arch}",
            hint=f"set ptx_version to {first[0]}.{first[1]} or more, or an older arch: newer GPUs run its PTX too",
        )
    if (int(header[1]), int(header[2])) <= asked:
        return ptx
    newer = next(_newer_instructions(ptx), None) if asked <= (6, 5) else None
    if newer is not None:
        raise UsageError(
            f"the kernels need a newer PTX than {wanted}: {newer}",
            hint="set ptx_version of the target to what its driver reads, such as 7.0 for CUDA 11",
        )
    return ptx[: header.start()] + f".version {wanted}" + ptx[header.end() :]


def _newer_instructions(ptx: str) -> Iterator[str]:
    """Yields lines of PTX that version 6.5 may not know."""
    for line in ptx.splitlines():
        text = re.sub(r"//.*", "", line).strip()
        text = re.sub(r"^@!?%\w+\s+", "", text)
        if not text or text[0] in ".${}()" or text.endswith(":") or not text.endswith(";"):
            continue
        opcode = text.split()[0].rstrip(";")
        if opcode.partition(".")[0] not in _INSTRUCTIONS or _NEWER.search(opcode):
            yield text


# ptxas.


@dataclass(frozen=True)
class KernelResources:
    """What one kernel takes of a multiprocessor: registers a thread, bytes of shared memory a block, bytes spilled."""

    registers: int
    shared: int
    spill_stores: int
    spill_loads: int
    stack: int


@dataclass(frozen=True)
class Assembly:
    """Machine code of kernels, and what each takes."""

    cubin: bytes
    kernels: Mapping[str, KernelResources]


def ptxas_path() -> Path:
    """Returns where ptxas of CUDA 12 is.

    Raises:
        UsageError: it is not installed.
    """
    path = _package_file("nvidia.cuda_nvcc", "bin/ptxas", "bin/ptxas.exe")
    if path is None:
        raise UsageError(
            "ptxas of CUDA 12, which shows what a GPU makes of kernels, is not installed",
            hint='install it: pip install "nvidia-cuda-nvcc-cu12>=12.4,<13"',
        )
    return path


def ptxas_version() -> str:
    """Returns the version of the package that ptxas is in, or "unknown"."""
    try:
        return version("nvidia-cuda-nvcc-cu12")
    except PackageNotFoundError:
        return "unknown"


_ENTRY = re.compile(r"Compiling entry function '([^']+)'")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


def assemble(ptx: bytes, arch: str = "sm_62", ptxas: Path | None = None) -> Assembly:
    """Returns the machine code of PTX and each kernel's registers, shared memory and spills.

    `ptxas` is another one than that of `ptxas_path`.

    Raises:
        UsageError: ptxas is not installed, or refuses the PTX.
    """
    program = ptxas or ptxas_path()
    with tempfile.TemporaryDirectory(prefix="gensynth-") as folder:
        source, result = Path(folder) / "kernels.ptx", Path(folder) / "kernels.cubin"
        source.write_bytes(ptx)
        command = [str(program), "-v", f"-arch={arch}", "-O3", str(source), "-o", str(result)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise UsageError(
                f"ptxas refuses the kernels for {arch}: {(done.stderr or done.stdout).strip()[:2000]}",
                hint="check the target's arch and ptx_version",
            )
        return Assembly(result.read_bytes(), _resources(done.stderr + done.stdout))


def _resources(report: str) -> dict[str, KernelResources]:
    found: dict[str, KernelResources] = {}
    for part in re.split(r"(?=Compiling entry function)", report):
        entry, spills, used = _ENTRY.search(part), _SPILLS.search(part), _USED.search(part)
        if entry and spills and used:
            shared = _SHARED.search(part)
            stack, stores, loads = (int(number) for number in spills.groups())
            found[entry[1]] = KernelResources(int(used[1]), int(shared[1]) if shared else 0, stores, loads, stack)
    return found


def check_resources(assembly: Assembly, target: Target) -> Sequence[str]:
    """Returns what is wrong with kernels on a target, in words: spills, too many registers, too much shared memory."""
    cuda = target.cuda
    assert cuda is not None
    found = []
    for name, used in assembly.kernels.items():
        if used.spill_loads or used.spill_stores:
            found.append(f"{name} spills {used.spill_stores} bytes and loads {used.spill_loads}")
        if used.registers > cuda.registers:
            found.append(f"{name} takes {used.registers} registers, {target.name} has {cuda.registers}")
        if used.shared > cuda.shared_bytes:
            found.append(f"{name} takes {used.shared} bytes of shared memory, {target.name} has {cuda.shared_bytes}")
    return found
