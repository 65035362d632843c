"""Convolutions on a CPU: direct, depthwise and Winograd's, by every schedule, on this machine and in NEON's code."""

from __future__ import annotations

import pytest
from kernel_cases import CORTEX_A57, HASWELL, host, make
from test_tvm_cpu_kernels import targets

from gensynth.backends.tvm.inspecting import functions_of, hot_loop
from gensynth.backends.tvm.kernels import ZeroHalo, templates_of
from gensynth.backends.tvm.kernels.cpu.trial import compile_trials
from gensynth.backends.tvm.objects import assembly
from gensynth.ir.ops import Add, BatchNorm, Conv2d, Relu, Silu

HALO = (4, 5, 4, 5)

CONVOLUTIONS = [
    (Conv2d(channels=16, kernel=3, padding="same"), (16, 8, 8)),
    (Conv2d(channels=13, kernel=3, padding=1, bias=True), (11, 9, 7)),
    (Conv2d(channels=37, kernel=3, padding="valid"), (9, 8, 11)),
    (Conv2d(channels=33, kernel=3, stride=2, padding="same"), (3, 13, 10)),
    (Conv2d(channels=5, kernel=(1, 5), stride=(2, 1), padding=(0, 2)), (7, 6, 9)),
    (Conv2d(channels=24, kernel=3, dilation=2, padding=2, bias=True), (6, 9, 9)),
    (Conv2d(channels=58, kernel=1), (10, 5, 5)),
    (Conv2d(channels=40, kernel=1, stride=2, bias=True), (17, 7, 6)),
    (Conv2d(channels=24, kernel=3, groups=3, padding="same"), (12, 6, 6)),
    (Conv2d(channels=12, kernel=3, groups=6, padding="same", bias=True), (6, 5, 5)),
    (Conv2d(channels=19, kernel=3, groups=19, padding="same", bias=True), (19, 9, 8)),
    (Conv2d(channels=32, kernel=5, groups=32, stride=2, padding="same"), (32, 11, 7)),
    (Conv2d(channels=3, kernel=7, groups=3, padding=3, dilation=1), (3, 7, 7)),
]

STEPS = [(), (BatchNorm(), Relu()), ((Add(), (1, 1, 1)), Silu())]


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
@pytest.mark.parametrize(
    ("op", "shape"), CONVOLUTIONS, ids=lambda value: value.text() if isinstance(value, Conv2d) else ""
)
def test_every_schedule_computes_what_the_reference_does(op, shape, target):
    halo = HALO if op.kernel != 1 else (0, 0, 0, 0)
    cases = [
        make(op, shape, batch=batch, steps=steps, more=more, halo=halo)
        for batch, steps, more in ((1, STEPS[0], 0), (2, STEPS[1], 3), (1, STEPS[2], 0))
    ]
    for case in cases:
        chosen = [
            (case.spec, template, schedule)
            for template in templates_of(case.spec, target)
            for schedule in list(template.schedules(case.spec, target))[::5]
        ]
        assert chosen
        for trial in compile_trials(chosen, target):
            assert case.error(trial) < 2e-5, f"{trial.schedule} on {case}"


def test_winograd_is_left_out_where_a_patch_would_overhang_the_memory():
    exact = make(Conv2d(channels=16, kernel=3, padding="same"), (16, 7, 7), halo=(1, 1, 1, 1))
    roomy = make(Conv2d(channels=16, kernel=3, padding="same"), (16, 7, 7), halo=(1, 2, 1, 2))
    names = [
        {template.name for template in templates_of(case.spec, host()) if template.schedules(case.spec, host())}
        for case in (exact, roomy)
    ]
    assert names == [{"convolution"}, {"convolution", "winograd"}]


@pytest.mark.parametrize(
    ("op", "shape"),
    [
        (Conv2d(channels=16, kernel=3, padding="same"), (16, 32, 32)),
        (Conv2d(channels=16, kernel=3, padding="same"), (3, 32, 32)),
        (Conv2d(channels=32, kernel=3, stride=2, padding="same"), (16, 32, 32)),
        (Conv2d(channels=64, kernel=3, padding="same"), (64, 8, 8)),
        (Conv2d(channels=24, kernel=1), (144, 14, 14)),
        (Conv2d(channels=58, kernel=1), (58, 28, 28)),
        (Conv2d(channels=13, kernel=3, padding="same"), (11, 8, 8)),
    ],
    ids=lambda value: value.text() if isinstance(value, Conv2d) else str(value),
)
def test_dense_convolutions_on_a_cortex_a57_keep_their_sums_in_registers(op, shape):
    spec = make(op, shape, steps=(Relu(),), halo=HALO if op.kernel != 1 else (0, 0, 0, 0)).spec
    for template in templates_of(spec, CORTEX_A57):
        for schedule in list(template.schedules(spec, CORTEX_A57))[:1]:
            function = template.emit(spec, schedule, CORTEX_A57, "kernel").function
            loop = hot_loop(functions_of(assembly({"kernel": function}, CORTEX_A57))["kernel"], "aarch64")
            assert loop is not None and loop.spills == 0
            assert loop.multiplies_per_load >= 2.5


def test_a_halo_is_zeroed_and_nothing_else_is_touched():
    case = make(Conv2d(channels=4, kernel=3, padding="same"), (5, 4, 3), halo=(1, 2, 1, 3))
    spec = type(case.spec)(ZeroHalo(), 2, (), case.spec.inputs[0])
    (template,) = templates_of(spec, HASWELL)
    emitted = template.emit(spec, template.schedules(spec, HASWELL)[0], HASWELL, "halo")
    assert emitted.tasks == 2 * (1 + 4 + 2)
