"""Relax: TVM computes what the reference means, and its virtual machine runs a program's kernels as the executor does."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tvm")

import tvm
from op_cases import CASES, one_node, residual
from program_runs import run_program
from random_graphs import random_generator
from random_graphs import random_network as random_graph
from test_rewrites_everywhere import SMALL, network_of
from test_torch_module import random_inputs, random_network
from tvm import relax

import gensynth as gs
from gensynth.backends.reference import run_reference
from gensynth.backends.tvm import lowering, relax_lowerings
from gensynth.backends.tvm.compiling import compile_program
from gensynth.backends.tvm.lowering import lower
from gensynth.backends.tvm.objects import compile_objects
from gensynth.backends.tvm.relax import build_relax, relax_of_program, run_vm, time_vm, to_relax
from gensynth.backends.tvm.scheduling import default_schedule
from gensynth.backends.tvm.targets import load_target
from gensynth.ir import Builder, Network, UsageError, WeightsError, all_ops, initialize
from gensynth.ir.ops import Choose, Conv2d, Identity, Relu, Split

HOST = load_target("host")
PLUGINS = Path(__file__).parents[2] / "examples" / "plugins"
BATCH = 3
RANDOM = 12


def functions_of(networks, batch=BATCH):
    """Returns one module with a function for each network, `main0` and so on: TVM compiles it in one go."""
    return tvm.IRModule(
        {
            f"main{number}": to_relax(network, batch=batch)["main"].with_attr("global_symbol", f"main{number}")
            for number, network in enumerate(networks)
        }
    )


def outputs_of(vm, name, inputs):
    found = vm[name](*(tvm.runtime.tensor(array) for array in inputs.values()))
    return [tensor.numpy() for tensor in ((found,) if isinstance(found, tvm.runtime.Tensor) else found)]


def assert_close(found, wanted, tolerance):
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        scale = np.abs(other).max() or 1.0
        np.testing.assert_allclose(one / scale, other / scale, rtol=0, atol=tolerance)


@pytest.fixture(scope="module")
def cases():
    return [random_network(one_node(op, shapes)) for op, shapes in CASES]


@pytest.fixture(scope="module")
def compiled_cases(cases):
    return build_relax(functions_of(cases), HOST)


@pytest.fixture(scope="module")
def compiled_random():
    return build_relax(functions_of([random_network(random_graph(seed)) for seed in range(RANDOM)]), HOST)


# Networks.


def test_every_op_has_a_lowering_to_relax():
    for op in all_ops():
        assert op is Choose or relax_lowerings.has_lowering(op), f"{op.name} has no lowering to Relax"


@pytest.mark.parametrize("number", range(len(CASES)), ids=[f"{i}-{op.text()}" for i, (op, _) in enumerate(CASES)])
def test_relax_computes_what_the_reference_means(number, cases, compiled_cases):
    network = cases[number]
    inputs = random_inputs(network.graph, BATCH)
    assert_close(outputs_of(compiled_cases, f"main{number}", inputs), run_reference(network, inputs), 2e-6)


@pytest.mark.parametrize("seed", range(RANDOM))
def test_a_random_network_in_relax_computes_what_the_reference_means(seed, compiled_random):
    network = random_network(random_graph(seed))
    inputs = random_inputs(network.graph, BATCH)
    assert_close(outputs_of(compiled_random, f"main{seed}", inputs), run_reference(network, inputs), 1e-4)


def test_prototypes_in_relax_compute_what_the_reference_means():
    graphs = [
        gs.prototype("lenet").graph,
        gs.prototype("resnet", depth=8, image=(3, 17, 15)).graph,
        gs.prototype("mobilenet", version=2, width=0.25, image=(3, 32, 32)).graph,
    ]
    networks = [Network(graph, initialize(graph, 0)) for graph in graphs]
    vm = build_relax(functions_of(networks, batch=1), HOST)
    for number, network in enumerate(networks):
        inputs = random_inputs(network.graph, 1)
        assert_close(outputs_of(vm, f"main{number}", inputs), run_reference(network, inputs), 1e-5)


@pytest.mark.parametrize(
    ("size", "output"), [((7, 9), (49, 61)), ((100, 3), (333, 10)), ((1, 1), (5, 7)), ((90, 90), (91, 89))]
)
def test_nearest_neighbours_are_exact_where_single_precision_would_miss_them(size, output):
    graph = one_node(gs.ops.Resize(size=output), ((2, *size),))
    network, inputs = Network(graph, {}), random_inputs(graph, 1)
    (found,) = run_vm(build_relax(to_relax(network), HOST), inputs)
    assert np.array_equal(found, run_reference(network, inputs)[0])


def test_a_transposed_convolution_may_cut_more_than_the_kernel_reaches_and_add_what_nothing_reaches():
    ops = [
        gs.ops.ConvTranspose2d(channels=2, kernel=1, stride=2, padding=(1, 2, 0, 3)),
        gs.ops.ConvTranspose2d(channels=2, kernel=2, stride=3, output_padding=(2, 1), bias=True),
        gs.ops.ConvTranspose2d(channels=2, kernel=2, stride=3, padding=(0, 4, 0, 1), output_padding=(2, 0)),
    ]
    networks = [random_network(one_node(op, ((3, 5, 6),))) for op in ops]
    vm = build_relax(functions_of(networks), HOST)
    for number, network in enumerate(networks):
        inputs = random_inputs(network.graph, BATCH)
        assert_close(outputs_of(vm, f"main{number}", inputs), run_reference(network, inputs), 2e-6)


def test_a_network_is_plain_relax_that_keeps_the_names_of_values():
    network = random_network(residual())
    function = to_relax(network, batch=4)["main"]
    names, ops = set(), set()

    def visit(expression):
        if isinstance(expression, relax.Var):
            names.add(expression.name)
        elif isinstance(expression, relax.Call):
            ops.add(expression.op.name)

    relax.analysis.post_order_visit(function, visit)
    assert {name.replace(".", "_") for name in network.graph.values} <= names
    assert {"relax.nn.conv2d", "relax.nn.batch_norm", "relax.matmul"} <= ops and "relax.call_tir" not in ops
    assert [[int(size) for size in parameter.ty.shape] for parameter in function.params] == [[4, 1, 8, 8]]
    assert [int(size) for size in function.ret_ty.shape] == [4, 10]


def test_several_inputs_and_outputs_go_by_their_names():
    build = Builder("several")
    x, y = build.input("x", (4, 3, 3)), build.input("y", (4, 3, 3))
    first, second = build.emit_all(Split(sections=2), x, names=["first", "second"])
    build.output(second, build.emit(gs.ops.Add(), x, y), first, x)
    network = Network(build.build(), {})
    inputs = random_inputs(network.graph, 1)
    turned = dict(reversed(inputs.items()))
    for vm in (build_relax(to_relax(network), HOST), build_relax(relax_of_program(lower(network, HOST)), HOST)):
        for one, other in zip(run_vm(vm, turned), run_reference(network, inputs), strict=True):
            assert np.array_equal(one, other)
        with pytest.raises(UsageError, match="x, z were given") as raised:
            run_vm(vm, {"x": inputs["x"], "z": inputs["y"]})
        assert "give x, y" in str(raised.value)


def test_a_network_that_cannot_be_written_in_relax_is_refused(monkeypatch):
    graph = one_node(Relu(), ((2, 3, 3),))
    with pytest.raises(WeightsError, match="has no weights"):
        to_relax(Network(graph))
    with pytest.raises(UsageError, match="open choices"):
        to_relax(Network(random_generator(0), {}))
    with pytest.raises(UsageError, match="a batch of 0"):
        to_relax(Network(graph, {}), batch=0)
    monkeypatch.delitem(relax_lowerings._lowerings, Relu)
    with pytest.raises(UsageError, match="%stage1.y0: relu has no lowering to Relax") as raised:
        to_relax(Network(graph, {}))
    assert "lowering(Relu)" in str(raised.value)


def test_an_op_of_a_plug_in_has_a_lowering_of_its_own():
    """In a process of its own, since ops stay registered."""
    script = """
import numpy as np
import gensynth_extras.relax_lowerings
from gensynth_extras.ops import HardTanh
from gensynth.backends.tvm import build_relax, load_target, run_vm, to_relax
from gensynth.ir import Builder, Network

build = Builder("one")
build.output(build.emit(HardTanh(limit=0.5), build.input("x", (3, 2, 2))))
x = np.linspace(-1, 1, 12, dtype=np.float32).reshape(1, 3, 2, 2)
(found,) = run_vm(build_relax(to_relax(Network(build.build(), {})), load_target("host")), x)
print(np.array_equal(found, np.clip(x, -0.5, 0.5)))
"""
    environment = {**os.environ, "PYTHONPATH": str(PLUGINS)}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


def test_integers_are_refused_as_inputs():
    text = "gensynth 1\nnetwork @whole(%x: i32[N, 3]) -> i32[N, 3] {\n  %y = identity(%x)\n  return %y\n}\n"
    with pytest.raises(UsageError, match="input 'x' is i32"):
        to_relax(Network(gs.parse(text).graph, {}))


# Programs.


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("batch", [1, 3])
def test_the_virtual_machine_computes_bit_for_bit_what_the_program_does(batch, threads):
    program = lower(random_network(residual(channels=24, size=16)), HOST, batch=batch)
    assert program.repeats == batch and max(step.threads for step in program.steps) > 1
    inputs = [np.random.default_rng(1).standard_normal(tensor.shape, np.float32) for tensor in program.inputs]
    wanted = run_program(program, inputs)
    vm = build_relax(relax_of_program(program, threads=threads), HOST)
    for _ in range(2):  # the second time in memory that the first one has used
        assert np.array_equal(run_vm(vm, inputs[0])[0], wanted[0])


@pytest.mark.slow
@pytest.mark.parametrize("key", SMALL)
def test_the_virtual_machine_and_untuned_tvm_agree_on_every_prototype(key):
    network = network_of(key)
    inputs = random_inputs(network.graph, 1)
    wanted = run_reference(network, inputs)
    assert_close(run_vm(build_relax(relax_of_program(lower(network, HOST), threads=2), HOST), inputs), wanted, 1e-5)
    assert_close(run_vm(build_relax(to_relax(network), HOST), inputs), wanted, 1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_the_virtual_machine_computes_bit_for_bit_what_a_random_program_does(seed):
    program = lower(random_network(random_graph(seed)), HOST, batch=2)
    inputs = [np.random.default_rng(1).standard_normal(tensor.shape, np.float32) for tensor in program.inputs]
    vm = build_relax(relax_of_program(program, threads=2), HOST, exec_mode="compiled")
    given = {tensor.name: array for tensor, array in zip(program.inputs, inputs, strict=True)}
    for one, other in zip(run_vm(vm, given), run_program(program, inputs), strict=True):
        assert np.array_equal(one, other, equal_nan=True)


def test_a_batch_at_once_is_the_same_as_image_by_image(monkeypatch):
    network = random_network(residual())
    monkeypatch.setattr(lowering, "WEIGHTS_READ_AGAIN", 0)
    program = lower(network, HOST, batch=3)
    assert (program.batch, program.repeats) == (3, 1)
    inputs = random_inputs(network.graph, 3)
    found = run_vm(build_relax(relax_of_program(program), HOST), inputs)
    assert_close(found, run_reference(network, inputs), 1e-5)


def test_the_virtual_machine_runs_the_object_code_that_it_is_given():
    graph = one_node(Relu(), ((5, 3, 3),))
    compiled = compile_program(Network(graph, {}), HOST)
    inputs = random_inputs(graph, 1)
    (found,) = run_vm(build_relax(relax_of_program(compiled.program, code=compiled.code), HOST), inputs)
    assert np.array_equal(found, np.maximum(inputs["x0"], 0))
    # kernels of the same names that lack the activation
    functions = {}
    for kernel in compiled.program.kernels:
        spec = replace(kernel.spec, steps=())
        chosen = default_schedule(spec, HOST)
        functions[kernel.name] = chosen.template.emit(spec, chosen.schedule, HOST, kernel.name).function
    code = compile_objects(functions, HOST)
    (found,) = run_vm(build_relax(relax_of_program(compiled.program, code=code), HOST), inputs)
    assert np.array_equal(found, inputs["x0"])


def test_steps_of_one_kernel_share_a_function_and_memory_is_planned_by_tvm():
    program = lower(random_network(gs.prototype("resnet", depth=20).graph), HOST)
    module = relax_of_program(program)
    functions = [name for name in module.get_global_vars() if name.name_hint != "main"]
    assert len(program.kernels) <= len(functions) < len(program.steps)
    planned = relax.transform.StaticPlanBlockMemory()(module)["main"]
    counts = {"relax.memory.alloc_storage": 0, "relax.memory.alloc_tensor": 0, "relax.builtin.alloc_tensor": 0}

    def visit(expression):
        if isinstance(expression, relax.Call) and getattr(expression.op, "name", None) in counts:
            counts[expression.op.name] += 1

    relax.analysis.post_order_visit(planned, visit)
    assert counts["relax.memory.alloc_tensor"] == len(program.placements)
    assert counts["relax.memory.alloc_storage"] < len(program.placements) / 3
    assert counts["relax.builtin.alloc_tensor"] == len(program.outputs), "what is returned is not reused"


def test_a_program_that_relax_cannot_hold_is_refused():
    network = Network(one_node(Identity(), ((2, 3, 3),)), {})
    program = lower(network, HOST)
    with pytest.raises(UsageError, match="runs kernels on a GPU"):
        relax_of_program(replace(program, target=load_target("tegra-x2-gpu")))
    with pytest.raises(UsageError, match="0 threads"):
        relax_of_program(program, threads=0)
    padded = lower(random_network(one_node(Conv2d(channels=2, kernel=3, padding="same"), ((2, 3, 3),))), HOST)
    with pytest.raises(UsageError, match="does not say what lies at byte"):
        relax_of_program(replace(padded, placements=()))


@pytest.mark.parametrize("name", ["tegra-x2-cpu", "tegra-x2-gpu"])
def test_a_module_is_built_for_this_machine_alone(name):
    if load_target(name).architecture == HOST.architecture and name.endswith("cpu"):
        pytest.skip("this machine is of that architecture")
    module = to_relax(Network(one_node(Relu(), ((2, 3, 3),)), {}))
    with pytest.raises(UsageError, match=f"compiled for {name} does not run here") as raised:
        build_relax(module, load_target(name))
    assert "target host" in str(raised.value)


def test_a_virtual_machine_is_timed_run_by_run():
    network = random_network(residual())
    vm = build_relax(relax_of_program(lower(network, HOST)), HOST)
    inputs = list(random_inputs(network.graph, 1).values())
    start = time.perf_counter()
    seconds = time_vm(vm, inputs, 50)
    wall = time.perf_counter() - start
    assert seconds.shape == (50,) and np.all(seconds > 0) and 1e-6 < seconds.sum() < wall
    large = random_network(residual(channels=64, size=32))
    slower = build_relax(relax_of_program(lower(large, HOST)), HOST)
    assert time_vm(slower, list(random_inputs(large.graph, 1).values()), 20).min() > 5 * seconds.min()
