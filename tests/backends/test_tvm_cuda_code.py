"""CUDA C, PTX and machine code of kernels, and the CPU's stand-in for CUDA."""

import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from cuda_cases import TX2, Case, prepare
from op_cases import residual

from gensynth.backends.tvm import cuda
from gensynth.backends.tvm.cuda import (
    Assembly,
    KernelResources,
    assemble,
    check_resources,
    compile_ptx,
    cuda_source,
    nvrtc_version,
    ptxas_path,
)
from gensynth.backends.tvm.kernels import templates_of
from gensynth.backends.tvm.lowering import lower
from gensynth.backends.tvm.shim import Launch, Place, build_shim
from gensynth.ir import Network, UsageError, initialize
from gensynth.ir.ops import Conv2d, ConvTranspose2d, Dense, LocalResponseNorm, MaxPool, Relu, Resize, Silu, Softmax


def _missing() -> str | None:
    try:
        nvrtc_version()
        ptxas_path()
    except UsageError as error:
        return str(error)
    return None


WHEELS = pytest.mark.skipif(_missing() is not None, reason=str(_missing()))
OTHER_PTXAS = os.environ.get("GENSYNTH_OTHER_PTXAS", "")

KERNEL = 'extern "C" __global__ void __launch_bounds__(4) {name}({parameters}) {{\n{body}\n}}\n'


def one_kernel(body: str, parameters: str = "float* __restrict__ x, float* __restrict__ y", name: str = "k") -> str:
    return cuda.PRELUDE + KERNEL.format(name=name, parameters=parameters, body=body)


def run(
    source: str, *arrays: np.ndarray, threads: int = 4, backward: bool = False, options: tuple[str, ...] = ()
) -> None:
    buffers = {f"b{number}": array for number, array in enumerate(arrays)}
    launch = Launch("k", (1, 1, 1), (threads, 1, 1), tuple(map(Place, buffers)))
    build_shim(source, options).launch([launch], buffers, backward=backward)


def every_template(dtype: str) -> dict:
    """Returns kernels of some ops by the best schedules of every template."""
    functions = {}
    for op, shape in [
        (Conv2d(channels=64, kernel=3, padding="same"), (64, 8, 8)),
        (Conv2d(channels=96, kernel=1), (33, 14, 14)),
        (Conv2d(channels=16, kernel=3, stride=2, padding="same"), (3, 32, 32)),
        (Conv2d(channels=40, kernel=5, padding="same", groups=40), (40, 9, 9)),
        (ConvTranspose2d(channels=12, kernel=3, stride=2, padding="same"), (12, 7, 7)),
        (Dense(features=100), (320,)),
        (MaxPool(kernel=3, stride=2, padding="same"), (24, 15, 15)),
        (Resize(size=(13, 13), mode="bilinear"), (24, 7, 7)),
        (Softmax(), (100,)),
        (LocalResponseNorm(size=5), (24, 7, 7)),
    ]:
        spec = prepare(Case(op, shape, (Silu(), Relu()), dtype=dtype)).spec
        for template in templates_of(spec, TX2):
            for schedule in template.schedules(spec, TX2)[:3]:
                name = f"k{len(functions)}"
                functions[name] = template.emit(spec, schedule, TX2, name).function
    return functions


@WHEELS
@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_no_template_spills(dtype):
    functions = every_template(dtype)
    ptx = compile_ptx(cuda_source(functions, TX2))
    assembly = assemble(ptx)
    assert set(assembly.kernels) == set(functions)
    assert check_resources(assembly, TX2) == []
    assert max(used.registers for used in assembly.kernels.values()) > 32
    assert b"\n.version 6.5\n" in ptx and b"\n.target sm_62\n" in ptx
    if OTHER_PTXAS:
        assert check_resources(assemble(ptx, ptxas=Path(OTHER_PTXAS)), TX2) == []


@WHEELS
@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_a_network_is_one_translation_unit_whose_kernels_keep_their_names(dtype):
    graph = residual()
    program = lower(Network(graph, initialize(graph, 0)), TX2, dtype=dtype)
    source = cuda_source({kernel.name: kernel.emitted.function for kernel in program.kernels}, TX2)
    for kernel in program.kernels:
        assert f'extern "C" __global__ void __launch_bounds__({kernel.emitted.block[0]}) {kernel.name}(' in source
    assembly = assemble(compile_ptx(source))
    assert set(assembly.kernels) == {kernel.name for kernel in program.kernels}
    assert check_resources(assembly, TX2) == []


@WHEELS
def test_float16_products_are_made_two_at_a_time():
    spec = prepare(Case(Conv2d(channels=32, kernel=3, padding="same"), (32, 8, 8), dtype="f16")).spec
    template = templates_of(spec, TX2)[0]
    function = template.emit(spec, template.schedules(spec, TX2)[0], TX2, "k").function
    ptx = compile_ptx(cuda_source({"k": function}, TX2)).decode()
    assert ptx.count("fma.rn.f16x2") > 16
    assert "fma.rn.f32" not in ptx


@WHEELS
def test_source_that_does_not_compile_is_told_with_the_compilers_message():
    with pytest.raises(UsageError, match='identifier "nothing" is undefined'):
        compile_ptx(one_kernel("y[0] = nothing;"))


@WHEELS
def test_an_instruction_that_older_drivers_do_not_know_is_refused():
    source = one_kernel('asm("tanh.approx.f32 %0, %1;" : "=f"(y[0]) : "f"(x[0]));')
    with pytest.raises(UsageError, match=r"need a newer PTX than 6\.5: tanh\.approx\.f32"):
        compile_ptx(source, arch="sm_75")
    assert b".version 7.0" in compile_ptx(source, arch="sm_75", ptx_version="7.0")


@WHEELS
def test_an_architecture_newer_than_its_ptx_is_refused():
    with pytest.raises(UsageError, match=r"PTX 6\.5 does not know sm_90\n.*to 7\.8 or more"):
        compile_ptx(one_kernel("y[0] = x[0];"), arch="sm_90")
    with pytest.raises(UsageError, match="cannot make PTX six for sm_62"):
        compile_ptx(one_kernel("y[0] = x[0];"), ptx_version="six")


@WHEELS
def test_ptxas_tells_what_it_refuses():
    with pytest.raises(UsageError, match="ptxas refuses the kernels for sm_62"):
        assemble(b".version 6.5\n.target sm_62\n.address_size 64\nnonsense\n")


def test_spills_and_limits_are_found():
    kernels = {
        "a": KernelResources(32, 0, 0, 0, 0),
        "b": KernelResources(255, 49152, 8, 4, 16),
        "c": KernelResources(64, 50000, 0, 0, 0),
    }
    assert check_resources(Assembly(b"", kernels), TX2) == [
        "b spills 8 bytes and loads 4",
        "c takes 50000 bytes of shared memory, tegra-x2-gpu has 49152",
    ]


def test_missing_tools_are_named_with_the_command_that_installs_them(monkeypatch):
    monkeypatch.setattr(cuda, "find_spec", lambda name: None)
    cuda._nvrtc.cache_clear()
    try:
        with pytest.raises(UsageError, match=r'pip install "nvidia-cuda-nvrtc-cu12>=12\.4,<13"'):
            compile_ptx("")
        with pytest.raises(UsageError, match=r'pip install "nvidia-cuda-nvcc-cu12>=12\.4,<13"'):
            assemble(b"")
    finally:
        cuda._nvrtc.cache_clear()


# The stand-in for CUDA.

REVERSE = """  __shared__ alignas(64) float held[4];
  held[(int)threadIdx.x] = x[(int)threadIdx.x];
  BARRIER
  y[(int)threadIdx.x] = held[3 - (int)threadIdx.x];"""


def test_threads_of_a_block_wait_for_each_other():
    x, y = np.arange(4, dtype=np.float32), np.zeros(4, np.float32)
    for backward in (False, True):
        run(one_kernel(REVERSE.replace("BARRIER", "__syncthreads();")), x, y, backward=backward)
        np.testing.assert_array_equal(y, x[::-1])


def test_a_race_shows_in_the_order_of_threads():
    x, y, z = np.arange(4, dtype=np.float32), np.zeros(4, np.float32), np.zeros(4, np.float32)
    source = one_kernel(REVERSE.replace("BARRIER", ""))
    run(source, x, y)
    run(source, x, z, backward=True)
    assert np.isnan(y).any()
    assert not np.array_equal(y, z, equal_nan=True)


def test_a_barrier_that_some_threads_miss_is_an_error():
    body = "  if ((int)threadIdx.x < 2) __syncthreads();\n  y[(int)threadIdx.x] = x[0];"
    with pytest.raises(UsageError, match="k: some threads of a block ended while others waited"):
        run(one_kernel(body), np.zeros(4, np.float32), np.zeros(4, np.float32))


def test_every_thread_of_a_grid_runs_once():
    body = """  int at = (((int)blockIdx.z * 3 + (int)blockIdx.y) * 2 + (int)blockIdx.x) * 8;
  y[at + ((int)threadIdx.z * 2 + (int)threadIdx.y) * 2 + (int)threadIdx.x] += x[0];"""
    x, y = np.ones(1, np.float32), np.zeros(96, np.float32)
    launch = Launch("k", (2, 3, 2), (2, 2, 2), (Place("x"), Place("y")))
    build_shim(one_kernel(body)).launch([launch], {"x": x, "y": y})
    np.testing.assert_array_equal(y, 1)


def test_wrong_launches_are_refused():
    shim = build_shim(one_kernel("  y[0] = x[0];"))
    buffers = {"x": np.zeros(4, np.float32)}
    one = (1, 1, 1)
    for launch, message in [
        (Launch("other", one, one, ()), "there is no kernel other\n  there are k"),
        (Launch("k", one, one, (Place("x"),)), "k takes 2 pointers, not 1"),
        (Launch("k", one, one, (Place("x"), Place("y"))), "there is no buffer 'y'\n  there are x"),
        (Launch("k", one, one, (Place("x"), Place("x", 17))), "byte 17 is not in buffer 'x' of 16 bytes"),
    ]:
        with pytest.raises(UsageError, match=message):
            shim.launch([launch], buffers)
    with pytest.raises(UsageError, match="'int n' is no pointer"):
        build_shim(one_kernel("", parameters="int n"))
    with pytest.raises(UsageError, match="cannot compile the kernels"):
        build_shim(one_kernel("nonsense"))


HALVES = """  for (int i = 0; i < 65536; i++) {
    y[i] = half_to_float((ushort)i);
    z[i] = float_to_half(x[i]);
  }"""

PRODUCTS = """  for (int i = 0; i < 65536; i++) w[i] = multiply_add_halves(x[i], y[i], z[i]);"""


# by the CPU's instructions where it has them, and without
@pytest.mark.parametrize("options", [(), ("-mno-f16c", "-mno-avx512f")])
def test_float16_conversions_round_as_ieee_754_says(options):
    random = np.random.default_rng(0)
    # every float16 number, ties between two, neighbours of ties, subnormals, overflow, and arbitrary bits
    halves = np.arange(65536, dtype=np.uint16).view(np.float16)
    finite = halves[np.isfinite(halves)].astype(np.float32)
    ties = ((finite[:-1] + finite[1:]) / 2).astype(np.float32)
    numbers = np.concatenate([finite, ties, np.nextafter(ties, np.float32(np.inf)), np.nextafter(ties, np.float32(0))])
    numbers = np.concatenate([numbers, random.integers(0, 1 << 32, 65536, np.uint32).view(np.float32)])
    numbers = np.concatenate(
        [numbers, np.float32([65504, 65519.996, 65520, 1e9, -1e9, np.inf, -np.inf, 1e-9, 2.0**-25])]
    )
    parameters = "float* __restrict__ x, float* __restrict__ y, ushort* __restrict__ z"
    source = one_kernel(HALVES, parameters)
    for start in range(0, len(numbers), 65536):
        x = np.resize(numbers[start : start + 65536], 65536).astype(np.float32)
        y, z = np.zeros(65536, np.float32), np.zeros(65536, np.uint16)
        run(source, x, y, z, threads=1, options=options)
        np.testing.assert_array_equal(y, halves.astype(np.float32))
        with np.errstate(over="ignore"):
            expected = x.astype(np.float16)
        np.testing.assert_array_equal(z.view(np.float16), expected)


@pytest.mark.parametrize("options", [(), ("-mno-f16c", "-mno-avx512f")])
def test_float16_multiply_adds_round_once(options):
    random = np.random.default_rng(1)
    bits = random.integers(0, 1 << 16, (3, 131072), np.uint16)
    # half of them with sums that nearly cancel, or are near a tie
    with np.errstate(over="ignore", invalid="ignore"):
        product = bits[0, ::2].view(np.float16) * bits[1, ::2].view(np.float16)
    bits[2, ::2] = (-product).view(np.uint16) ^ np.uint16(3)
    a, b, c = (np.ascontiguousarray(row).view(np.uint32) for row in bits)
    found = np.zeros(65536, np.uint32)
    pointers = ", ".join(f"uint* __restrict__ {name}" for name in "xyzw")
    run(one_kernel(PRODUCTS, pointers), a, b, c, found, threads=1, options=options)
    # a float64 holds a product exactly, and all that matters of the sum but where it is next to a tie
    with np.errstate(over="ignore", invalid="ignore"):
        x, y, z = (row.view(np.float16).astype(np.float64) for row in bits)
        expected = (x * y + z).astype(np.float16)
    result = found.view(np.float16)
    usual = np.isfinite(expected) & np.isfinite(x) & np.isfinite(y) & np.isfinite(z)
    assert usual.sum() > 50000
    for at in np.flatnonzero(usual & (result != expected)):
        exact = Fraction(x[at]) * Fraction(y[at]) + Fraction(z[at])
        errors = [abs(Fraction(float(value)) - exact) for value in (result[at], expected[at])]
        assert errors[0] < errors[1]
