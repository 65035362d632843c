"""Programs whose kernels are written in C by hand: what a compiled network is to the executor, without a compiler."""

import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from gensynth.backends.tvm.building import build_runtime
from gensynth.backends.tvm.kernels import Schedule
from gensynth.backends.tvm.kernels.specification import Emitted
from gensynth.backends.tvm.program import CompiledKernel, Pointer, Program, ProgramStep, Tensor
from gensynth.backends.tvm.targets import CudaTarget, Target
from gensynth.backends.tvm.toolchain import Toolchain, find_toolchain, host_triple
from gensynth.ir import TensorType

SIZE = 64
TASKS = 8

KERNELS_C = """
#define SIZE 64
#define EACH(begin, end) for (int i = (begin) * 8; i < (end) * 8; i++)
typedef const float *from;

/* Each reads elements that other tasks wrote. */
void add(from a, from w, float *o, int begin, int end) { EACH(begin, end) o[i] = 0.5f * a[(i * 7 + 3) % SIZE] + w[i]; }
void mix(from a, from b, float *o, int begin, int end) {
    EACH(begin, end) o[i] = 0.5f * a[(i + 5) % SIZE] - 0.25f * b[(i * 3) % SIZE];
}
void scan(from a, float *o, int begin, int end) {
    float sum = 0.0f;
    (void)begin, (void)end;
    for (int i = 0; i < SIZE; i++)
        o[i] = (sum = 0.5f * sum + a[SIZE - 1 - i]);
}
void copy(from a, float *o, int begin, int end) { EACH(begin, end) o[i] = a[i]; }
void fill(float *o, int begin, int end) { EACH(begin, end) o[i] = (float)i; }
void weigh(from a, from b, from c, from d, from e, from f, from g, from h, from j, from k, from l, from m, from n, from p,
           from q, float *o, int begin, int end) {
    from all[] = {a, b, c, d, e, f, g, h, j, k, l, m, n, p, q};
    EACH(begin, end) {
        o[i] = 0.0f;
        for (int t = 0; t < 15; t++)
            o[i] += (float)(t + 1) * all[t][i];
    }
}
"""


def add(a, w):
    return np.float32(0.5) * a[(np.arange(SIZE) * 7 + 3) % SIZE] + w


def mix(a, b):
    return np.float32(0.5) * a[(np.arange(SIZE) + 5) % SIZE] - np.float32(0.25) * b[np.arange(SIZE) * 3 % SIZE]


def scan(a):
    sums, total = [], np.float32(0)
    for value in a[::-1]:
        total = np.float32(0.5) * total + value
        sums.append(total)
    return np.array(sums, np.float32)


def weigh(*values):
    total = np.zeros(SIZE, np.float32)
    for number, value in enumerate(values):
        total = total + np.float32(number + 1) * value
    return total


MEANINGS = {
    "add": add,
    "mix": mix,
    "scan": scan,
    "copy": lambda a: a,
    "fill": lambda: np.arange(SIZE, dtype=np.float32),
    "weigh": weigh,
}
ALONE = ("scan",)

HOST = Target(
    name="host",
    description="this machine",
    architecture=host_triple().partition("-")[0],
    llvm={},
    triple=f"{host_triple()}.2.27",
    lanes=4,
    registers=16,
    cores=8,
)
BOARD = replace(HOST, name="board", architecture="aarch64", triple="aarch64-linux-gnu.2.27")
GPU = replace(HOST, name="gpu", cuda=CudaTarget(arch="sm_62", multiprocessors=2))


@dataclass(frozen=True)
class Step:
    """A kernel by name, what it reads and what it writes: `in`, `out`, `wK` (weights) or `sK` (a place in the arena)."""

    kernel: str
    reads: tuple[str, ...]
    writes: str
    threads: int = 8


STEPS = (
    Step("copy", ("in",), "s0"),
    Step("fill", (), "s1"),
    Step("add", ("s0", "w0"), "s2"),
    Step("scan", ("s2",), "s3"),
    Step("scan", ("s3",), "s4"),
    Step("mix", ("s4", "s1"), "s5"),
    Step("weigh", tuple(["s0", "s1", "s2", "s3", "s4", "s5"] * 2 + ["w0", "w1", "s5"]), "s6"),
    Step("mix", ("s6", "s0"), "s1"),
    Step("add", ("s1", "w1"), "out"),
)
"""Steps that need barriers, that one thread does alone, and one with as many pointers as there may be."""


def image(seed=0):
    """Returns an input."""
    return np.random.default_rng(seed).standard_normal((1, SIZE)).astype(np.float32)


def program(steps, *, target=HOST, weights=2, name="hand_made"):
    """Returns a program of steps, with barriers where a step reads or writes what others may still be at."""
    names = list(MEANINGS)
    seed = np.random.default_rng(5)
    values = seed.standard_normal((weights, SIZE)).astype(np.float32)
    written, read = set(), set()
    made = []
    for number, step in enumerate(steps):
        barrier = bool(set(step.reads) & written) or step.writes in read | written
        if barrier:
            written, read = set(), set()
        written.add(step.writes)
        read |= set(step.reads)
        places = tuple(_pointer(place) for place in (*step.reads, step.writes))
        made.append(
            ProgramStep(names.index(step.kernel), places, (f"stage.{step.kernel}{number}",), barrier, step.threads)
        )
    slots = [int(place[1:]) for step in steps for place in (*step.reads, step.writes) if place[0] == "s"]
    compiled = tuple(_kernel(kernel) for kernel in names)
    tensor = TensorType("f32", ("N", SIZE))
    return Program(
        name=name,
        architecture_hash="0123456789abcdef",
        target=target,
        batch=1,
        dtype="f32",
        kernels=compiled,
        steps=tuple(made),
        inputs=(Tensor("image", tensor, (1, SIZE)),),
        outputs=(Tensor("logits", tensor, (1, SIZE)),),
        weights=values.tobytes(),
        arena=(max(slots, default=0) + 1) * SIZE * 4,
    )


def _pointer(place):
    if place in ("in", "out"):
        return Pointer("input" if place == "in" else "output", 0)
    return Pointer("weights" if place[0] == "w" else "arena", int(place[1:]) * SIZE * 4)


def _kernel(name):
    emitted = Emitted(cast(Any, None), 1 if name in ALONE else TASKS, (TASKS, 1, 1), (8, 1, 1))
    return CompiledKernel(name, cast(Any, None), "by_hand", Schedule(), emitted, macs=SIZE, bytes=8 * SIZE)


def expected(made, image):
    """Returns what a program computes, step by step."""
    weights = np.frombuffer(made.weights, np.float32)
    arena, out = np.zeros(made.arena // 4, np.float32), np.zeros(SIZE, np.float32)
    spaces = {"arena": arena, "weights": weights, "input": image.ravel(), "output": out}
    for step in made.steps:
        *reads, to = [spaces[pointer.space][pointer.offset // 4 :][:SIZE] for pointer in step.arguments]
        to[:] = MEANINGS[made.kernels[step.kernel].name](*reads)
    return out.reshape(1, SIZE)


def kernels_object(folder: Path, toolchain: Toolchain | None = None) -> bytes:
    """Returns the kernels' object file for a toolchain's target."""
    source, to = folder / "kernels.c", folder / "kernels.o"
    source.write_text(KERNELS_C)
    (toolchain or find_toolchain(HOST.triple)).compile(source, to, "-ffp-contract=off")
    return to.read_bytes()


def write_check(directory: Path, image: np.ndarray, logits: np.ndarray) -> None:
    """Writes check vectors as artifacts hold them."""
    (directory / "check").mkdir(exist_ok=True)
    (directory / "check/input_image.bin").write_bytes(image.astype("<f4").tobytes())
    (directory / "check/output_logits.bin").write_bytes(logits.astype("<f4").tobytes())


def run(directory: Path, *words: str, emulator: tuple[str, ...] = (), **environment: str) -> Any:
    """Runs an artifact's program."""
    return subprocess.run(
        [*emulator, str(directory / "run"), *words],
        capture_output=True,
        text=True,
        timeout=120,
        env={"PATH": "/usr/bin:/bin", **environment},
    )


def emulator(architecture: str = "aarch64") -> str | None:
    return shutil.which(f"qemu-{architecture}-static") or shutil.which(f"qemu-{architecture}")


def build_checked(directory: Path, code: bytes, made: Program) -> Path:
    """Builds an artifact with check vectors."""
    build_runtime(made, code, made.target, directory)
    write_check(directory, image(), expected(made, image()))
    return directory
