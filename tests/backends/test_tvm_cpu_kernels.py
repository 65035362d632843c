"""Kernels for CPUs: every template computes what the reference does, inside its output, on any views and steps."""

import re
import struct
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("tvm")

import tvm.tirx.script.builder as T
from kernel_cases import (
    BROADCASTS,
    CHANNELS,
    CORTEX_A57,
    HASWELL,
    UNARY,
    Case,
    channels_last,
    copied,
    host,
    make,
    planar,
    spread,
    swapped,
)

import gensynth.backends.tvm.kernels.cpu
from gensynth.backends.tvm import objects
from gensynth.backends.tvm.kernels import KernelSpec, Step, templates_of
from gensynth.backends.tvm.kernels.cpu import arithmetic
from gensynth.backends.tvm.kernels.cpu.emitting import apply_steps, kernel_function, pieces
from gensynth.backends.tvm.kernels.cpu.trial import compile_trials
from gensynth.backends.tvm.objects import assembly, compile_objects
from gensynth.backends.tvm.targets import Target
from gensynth.ir import UsageError
from gensynth.ir.ops import (
    Add,
    AvgPool,
    ChannelShuffle,
    ConvTranspose2d,
    Dense,
    GlobalAvgPool,
    Identity,
    LocalResponseNorm,
    MaxPool,
    Mul,
    Pad,
    Relu,
    Resize,
    Sigmoid,
    Softmax,
)

IMAGES = [(channels, 7, 5) for channels in CHANNELS]

OPS = {
    "identity": [Identity()],
    "max_pool": [MaxPool(kernel=3, stride=2, padding=1, ceil=True), MaxPool(kernel=(5, 2), stride=1, padding=(2, 1))],
    "avg_pool": [
        AvgPool(kernel=3, stride=2, padding=1, ceil=True),
        AvgPool(kernel=3, stride=(1, 3), padding="same"),
        AvgPool(kernel=(3, 2), stride=2, padding=1, ceil=True, count_padding=True),
    ],
    "global_avg_pool": [GlobalAvgPool(), GlobalAvgPool(keep=True)],
    "dense": [Dense(features=features, bias=features != 17) for features in (1, 10, 17, 58)],
    "conv_transpose2d": [
        ConvTranspose2d(channels=17, kernel=2, stride=2, bias=True),
        ConvTranspose2d(channels=10, kernel=3, stride=2, padding=1, output_padding=1),
        ConvTranspose2d(channels=3, kernel=(4, 2), stride=(2, 3), dilation=(1, 3), padding=(1, 0, 2, 1), bias=True),
    ],
    "resize": [
        Resize(scale=2),
        Resize(size=(5, 8)),
        Resize(scale=2, mode="bilinear"),
        Resize(size=(3, 8), mode="bilinear", align_corners=True),
    ],
    "softmax": [Softmax()],
    "pad": [Pad(padding=1), Pad(padding=(0, 2, 3, 0), value=1.5)],
    "local_response_norm": [LocalResponseNorm(size=5, alpha=0.5, k=2.0), LocalResponseNorm(size=3, beta=0.6)],
}


def shapes_of(name: str) -> list[tuple[int, ...]]:
    if name == "dense":
        return [(channels,) for channels in CHANNELS]
    return IMAGES


def cases_of(name: str) -> list[Case]:
    if name == "channel_shuffle":
        return [
            case
            for groups in (1, 2, 3, 5)
            for case in spread(
                ChannelShuffle(groups=groups), [(groups * each, 3, 5) for each in (1, 3, 17, 29)], groups
            )
        ]
    return [case for number, op in enumerate(OPS[name]) for case in spread(op, shapes_of(name), number)]


def targets() -> list[Target]:
    here = host()
    return [here] if here.lanes == 8 or here.lanes == 4 else [here, HASWELL]


def worst(cases: Iterable[Case], target: Target, *, every_schedule: bool = False) -> tuple[float, str]:
    """Returns the largest error of the cases' kernels, and which case it is of."""
    items, owners = [], []
    for case in cases:
        for template in templates_of(case.spec, target):
            schedules = template.schedules(case.spec, target)
            for schedule in schedules if every_schedule else schedules[:1]:
                items.append((case.spec, template, schedule))
                owners.append(case)
    trials = compile_trials(items, target)
    assert len(trials) >= len({id(case) for case in owners}) > 0
    errors = [(case.error(trial), f"{case} by {trial.schedule}") for case, trial in zip(owners, trials, strict=True)]
    return max(errors)


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
@pytest.mark.parametrize("name", [*OPS, "channel_shuffle"])
def test_kernels_compute_what_the_reference_does(name: str, target: Target):
    error, case = worst(cases_of(name), target)
    assert error < 1e-5, case


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_every_step_can_follow_any_number_of_channels(target: Target):
    steps = [*UNARY, *((op, kept) for op in (Add(), Mul()) for kept in BROADCASTS)]
    cases = [
        make(Identity(), (channels, 3, 4), batch=2, steps=[step, Relu(), step], more=number % 2 * 3, seed=number)
        for number, step in enumerate(steps)
        for channels in (3, 29)
    ]
    error, case = worst(cases, target)
    assert error < 1e-5, case


def test_every_schedule_computes_the_same():
    cases = [
        make(Dense(features=58), (37,), batch=5, steps=[Sigmoid()]),
        make(Dense(features=10), (64,)),
        make(MaxPool(kernel=3, stride=2, padding=1), (17, 9, 9), steps=[(Add(), (1, 1, 1))]),
        make(GlobalAvgPool(), (130, 7, 7), batch=2),
        make(ConvTranspose2d(channels=20, kernel=3, stride=2, padding=1, output_padding=1), (6, 9, 8), more=2),
        make(Identity(), (70, 9, 40), steps=[Relu()], more=1),
        make(ChannelShuffle(groups=2), (58, 3, 3)),
        make(Resize(scale=3), (40, 4, 4)),
        make(Pad(padding=2), (70, 4, 4)),
    ]
    error, case = worst(cases, host(), every_schedule=True)
    assert error < 1e-5, case


def test_transposed_convolutions_of_any_groups():
    cases = [
        make(
            ConvTranspose2d(channels=channels, groups=groups, kernel=kernel, stride=stride, padding=padding, bias=True),
            (inputs, 5, 4),
            batch=2,
            steps=[Relu()],
            more=3,
        )
        for groups, inputs, channels in ((2, 6, 34), (17, 17, 17), (3, 3, 3), (2, 8, 2))
        for kernel, stride, padding in ((4, 2, 1), (2, 3, 0), (3, 1, (2, 0, 1, 1)))
    ]
    error, case = worst(cases, host())
    assert error < 1e-5, case


def test_copies_between_any_orders_of_elements_are_exact():
    cases = []
    for channels in (1, 2, 3, 4, 8, 21):
        for height, width in ((1, 1), (9, 1), (3, 35)):
            size = channels, height, width
            views = [
                channels_last(*size),
                channels_last(*size, more=3, halo=(1, 0, 2, 1)),
                planar(*size),
                swapped(channels_last(width, height, channels)),
            ]
            cases += [copied(source, output, 2) for source in views for output in views[1:]]
    assert worst(cases, host())[0] == 0.0
    few = [case for case in cases if case.spec.output.channels in (3, 21)]
    assert worst(few, HASWELL)[0] == 0.0 if HASWELL in targets() else True


def test_a_copy_repeats_elements_of_stride_zero():
    output = channels_last(6, 4, 5)
    for source in (
        replace(output, channel=0, pixel=1, row=5, image=20),
        replace(output, row=0, image=30),
        replace(output, row=0, pixel=0, image=6),
    ):
        case = copied(source, output, 2)
        shape = tuple(
            1 if stride == 0 else size for stride, size in zip(strides(source), case.inputs[0].shape, strict=True)
        )
        x = np.random.default_rng(1).standard_normal(shape, np.float32)
        expected = np.broadcast_to(x, case.inputs[0].shape)
        assert worst([replace(case, inputs=(x,), expected=expected)], host())[0] == 0.0


def strides(view) -> tuple[int, int, int, int]:
    return view.image, view.channel, view.row, view.pixel


@pytest.mark.parametrize("axis", [2, 3])
def test_softmax_runs_over_whichever_axis_is_the_channels(axis: int):
    view = channels_last(21, 6, 9, more=2)
    turned = swapped(view)
    if axis == 2:
        turned = replace(view, channels=6, channel=view.row, height=21, row=1)
    x = np.random.default_rng(0).standard_normal((2, turned.channels, turned.height, turned.width), np.float32) * 9
    powers = np.exp(x.astype(np.float64))
    case = Case(KernelSpec(Softmax(), 2, (turned,), turned), (x,), (), {}, powers / powers.sum(axis=1, keepdims=True))
    error, described = worst([case], host(), every_schedule=True)
    assert error < 1e-6, described


def test_softmax_of_large_numbers_does_not_overflow():
    case = make(Softmax(), (19, 2, 2))
    x = case.inputs[0] * 1e4
    largest = x.max(axis=1, keepdims=True)
    powers = np.exp(x.astype(np.float64) - largest)
    case = replace(case, inputs=(x,), expected=powers / powers.sum(axis=1, keepdims=True))
    assert worst([case], host())[0] < 1e-6


# Arithmetic.


def evaluate(function, x: np.ndarray, target: Target) -> np.ndarray:
    """Returns a function of vectors, element by element; x has a multiple of the lanes of elements."""
    view = channels_last(x.size, 1, 1)

    class Template:
        name = "evaluate"

        def pack(self, spec, schedule, weights, target):
            return ()

        def emit(self, spec, schedule, target, name):
            from gensynth.backends.tvm.kernels import Emitted

            with kernel_function(name, spec, target=target) as frame, T.serial(frame.begin, frame.end) as task:
                place = T.Ramp(task * target.lanes, 1, target.lanes)
                T.buffer_store(frame.output, function(frame.inputs[0][place]), [place])
            return Emitted(frame.function, x.size // target.lanes)

    (trial,) = compile_trials([(KernelSpec(Identity(), 1, (view,), view), Template(), None)], target)
    return trial.run([x.astype(np.float32).reshape(1, -1, 1, 1)]).output.ravel()


@pytest.mark.parametrize("target", targets(), ids=lambda target: target.name)
def test_the_exponential_is_good_to_the_last_bits_and_saturates(target: Target):
    x = np.concatenate([np.linspace(-87.3, 88.72, 1 << 16), np.linspace(-1, 1, 1 << 16)]).astype(np.float32)
    exact = np.exp(x.astype(np.float64))
    assert np.max(np.abs(evaluate(arithmetic.exponential, x, target) - exact) / exact) < 2e-7
    edges = np.resize([-np.inf, -1e30, -104.5, 89.0, 1e30, np.inf, 0.0, -0.0], 16)
    found = evaluate(arithmetic.exponential, edges, target)[:8]
    assert found[:3].tolist() == [0, 0, 0] and found[6:].tolist() == [1, 1]
    assert np.all(found[3:6] > 3.4e38)


def test_the_logistic_function_keeps_its_relative_error_down_to_the_smallest_floats():
    x = np.linspace(-87, 100, 1 << 14).astype(np.float32)
    exact = 1 / (1 + np.exp(-x.astype(np.float64)))
    assert np.max(np.abs(evaluate(arithmetic.logistic, x, host()) - exact) / exact) < 4e-7


@pytest.mark.parametrize("exponent", [-0.75, -0.5, -1.0, 0.25, -0.6, 1.7, 0.0])
def test_powers_are_as_exact_as_the_logarithm_they_are_made_by(exponent: float):
    x = np.geomspace(1e-4, 1e4, 1 << 12).astype(np.float32)
    exact = x.astype(np.float64) ** exponent
    found = evaluate(lambda value: arithmetic.power(value, exponent), x, host())
    assert np.all(np.abs(found - exact) / exact < 2e-7 * (1 + np.abs(np.log(exact))))


def test_vectors_cover_channels_exactly():
    assert list(pieces(13, 8)) == [(0, 8), (8, 4), (12, 1)]
    for channels in range(1, 70):
        covered = [start + lane for start, lanes in pieces(channels, 16) for lane in range(lanes)]
        assert covered == list(range(channels))


# Objects.


def undefined_symbols(code: bytes) -> set[str]:
    """Returns the names that a 64-bit little-endian ELF object wants from elsewhere."""
    (sections,) = struct.unpack_from("<Q", code, 40)
    size, count = struct.unpack_from("<HH", code, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", code, sections + number * size) for number in range(count)]
    names = set()
    for header in headers:
        if header[1] == 2:  # the symbol table; its link is the string table
            strings = headers[header[6]][4]
            for offset in range(header[4], header[4] + header[5], 24):
                name, _, _, section = struct.unpack_from("<IBBH", code, offset)
                if section == 0 and name:
                    names.add(code[strings + name : code.index(b"\0", strings + name)].decode())
    return names


@pytest.mark.parametrize("target", [*targets(), CORTEX_A57], ids=lambda target: target.name)
def test_objects_need_nothing_from_libraries(target: Target):
    functions = {}
    for name in [*OPS, "channel_shuffle"]:
        for case in cases_of(name)[-2:]:
            (template,) = templates_of(case.spec, target)
            label = f"k{len(functions)}"
            schedule = template.schedules(case.spec, target)[0]
            functions[label] = template.emit(case.spec, schedule, target, label).function
    code = compile_objects(functions, target)
    assert code[:4] == b"\x7fELF"
    assert struct.unpack_from("<H", code, 18)[0] == (183 if target is CORTEX_A57 else 62)
    assert undefined_symbols(code) <= {"memset", "memcpy"}
    assert all(f"k{number}\0".encode() in code for number in range(len(functions)))


def test_neon_multiplies_by_a_lane_in_dense_layers_without_spills():
    case = make(Dense(features=64), (64,), batch=4)
    (template,) = templates_of(case.spec, CORTEX_A57)
    text = assembly(
        {"k": template.emit(case.spec, template.schedules(case.spec, CORTEX_A57)[0], CORTEX_A57, "k").function},
        CORTEX_A57,
    )
    multiplies = [line for line in text.splitlines() if "\tfmla\t" in line]
    by_lane = [line for line in multiplies if line.rstrip().endswith("]")]
    assert multiplies and len(by_lane) == len(multiplies)
    assert not re.findall(r"\b(?:ldr|str|ldp|stp)\tq\d+.*\[sp", text)


def test_linking_without_a_compiler_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr(objects.shutil, "which", lambda name: None)
    monkeypatch.setattr(objects, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="no C compiler") as raised:
        objects.link_shared(b"", tmp_path / "k.so")
    assert "apt install gcc" in str(raised.value)


# What templates promise.


def test_schedules_come_back_from_their_fields_and_packing_is_deterministic():
    for name in [*OPS, "channel_shuffle"]:
        case = cases_of(name)[-1]
        (template,) = templates_of(case.spec, HASWELL)
        schedules = template.schedules(case.spec, HASWELL)
        assert len(set(schedules)) == len(schedules) > 0
        for schedule in schedules:
            assert template.schedule(schedule.as_dict()) == schedule
            assert template.cost(case.spec, schedule, HASWELL) > 0
        first, second = (template.pack(case.spec, schedules[0], case.weights, HASWELL) for _ in range(2))
        assert [array.tobytes() for array in first] == [array.tobytes() for array in second]


def test_a_trial_sees_what_a_kernel_writes_outside_its_output():
    case = make(Identity(), (13, 3, 3), more=4)
    (template,) = templates_of(case.spec, host())

    class Careless:
        """Writes one channel more than there is."""

        name = "careless"

        def pack(self, spec, schedule, weights, target):
            return template.pack(spec, schedule, weights, target)

        def emit(self, spec, schedule, target, name):
            wider = replace(
                spec, inputs=(replace(spec.inputs[0], channels=14),), output=replace(spec.output, channels=14)
            )
            return template.emit(wider, schedule, target, name)

    schedule = template.schedules(case.spec, host())[0]
    (trial,) = compile_trials([(case.spec, Careless(), schedule)], host())
    assert trial.run(case.inputs).strayed == 9


def test_an_op_that_cannot_follow_another_is_refused():
    view = channels_last(4, 1, 1)
    spec = KernelSpec(Identity(), 1, (view,), view, (Step(MaxPool(kernel=2)),))
    with pytest.raises(UsageError, match="no CPU code for max_pool as a step"), kernel_function("k", spec) as frame:
        apply_steps(frame, frame.inputs[0][0], 0, 0, 0, 0, 1)


def test_a_softmax_over_another_axis_than_channels_is_refused():
    view = channels_last(4, 2, 2)
    spec = KernelSpec(Softmax(axis=2), 1, (view,), view)
    (template,) = templates_of(spec, HASWELL)
    with pytest.raises(UsageError, match="axis 2"):
        template.schedules(spec, HASWELL)


def test_templates_of_every_op_are_registered_on_import():
    assert gensynth.backends.tvm.kernels.cpu.__all__ == []
    for name in [*OPS, "channel_shuffle"]:
        assert len(templates_of(cases_of(name)[0].spec, HASWELL)) == 1
