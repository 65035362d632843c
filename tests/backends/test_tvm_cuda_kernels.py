"""GPU kernels, executed on the CPU and compared with the reference; and what ptxas makes of them."""

import numpy as np
import pytest
from cuda_cases import TX2, Case, errors_of, prepare, view_of
from op_cases import CASES, residual

from gensynth.backends.reference import run_reference
from gensynth.backends.tvm.cuda import cuda_source
from gensynth.backends.tvm.kernels import KernelSpec, Step, View, templates_of
from gensynth.backends.tvm.kernels.cuda.convolution import Convolution, ConvolutionSchedule
from gensynth.backends.tvm.kernels.cuda.dense import DenseLayer
from gensynth.backends.tvm.kernels.cuda.elements import ElementSchedule
from gensynth.backends.tvm.kernels.cuda.moves import ShuffleChannels
from gensynth.backends.tvm.kernels.cuda.pointwise import Pointwise
from gensynth.backends.tvm.kernels.cuda.pools import GlobalPool, GlobalPoolSchedule
from gensynth.backends.tvm.kernels.cuda.trial import compile_trials
from gensynth.backends.tvm.lowering import lower
from gensynth.backends.tvm.shim import run_program
from gensynth.ir import Builder, Network, UsageError, initialize
from gensynth.ir.ops import (
    Add,
    AvgPool,
    BatchNorm,
    ChannelShuffle,
    Conv2d,
    ConvTranspose2d,
    Dense,
    GlobalAvgPool,
    HardSigmoid,
    HardSwish,
    Identity,
    LeakyRelu,
    LocalResponseNorm,
    MaxPool,
    Mul,
    Pad,
    Relu,
    Relu6,
    Resize,
    Sigmoid,
    Silu,
    Softmax,
)

ANCHORS = (
    Conv2d,
    ConvTranspose2d,
    Dense,
    MaxPool,
    AvgPool,
    GlobalAvgPool,
    Resize,
    Softmax,
    ChannelShuffle,
    Pad,
    LocalResponseNorm,
)
TOLERANCES = {"f32": 1e-5, "f16": 4e-3}
DTYPES = pytest.mark.parametrize("dtype", ["f32", "f16"])


def check(cases, dtype, most=1, tolerance=None):
    """Asserts that kernels of some cases compute what the reference does, race in nothing, and write nowhere else."""
    tolerance = TOLERANCES[dtype] if tolerance is None else tolerance
    results = errors_of(cases, most)
    wrong = [(name, error, strayed) for name, error, strayed in results if not error <= tolerance or strayed]
    assert not wrong
    assert len(results) >= len(cases)


@DTYPES
def test_kernels_of_every_op_compute_what_the_reference_does(dtype):
    chosen = [(op, shapes[0]) for op, shapes in CASES if isinstance(op, ANCHORS)]
    chosen = [(op, shape) for op, shape in chosen if not isinstance(op, Softmax) or op.axis == 1]
    assert {type(op) for op, _ in chosen} == set(ANCHORS)
    check([Case(op, shape, batch=2, slack=3, dtype=dtype) for op, shape in chosen], dtype)


@DTYPES
def test_convolutions_take_any_number_of_channels(dtype):
    cases = [
        Case(
            Conv2d(channels=outputs, kernel=kernel, stride=stride, padding="same", bias=True),
            (inputs, 9, 7),
            (Relu(),),
            batch=batch,
            slack=slack,
            dtype=dtype,
        )
        for number, (inputs, outputs) in enumerate([(1, 58), (3, 10), (10, 17), (17, 3), (58, 1), (58, 58), (32, 64)])
        for kernel, stride in [(3, 1), (1, 1), (3, 2)]
        for batch, slack in [(1 + number % 2, number % 3)]
    ]
    check(cases, dtype)


@DTYPES
def test_every_schedule_of_a_convolution_computes_the_same(dtype):
    cases = [
        Case(Conv2d(channels=24, kernel=3, padding="same"), (19, 8, 9), (Relu(),), slack=1, dtype=dtype),
        Case(Conv2d(channels=40, kernel=1, bias=True), (72, 6, 5), batch=2, dtype=dtype),
        Case(Conv2d(channels=24, kernel=3, stride=2, padding="same", groups=24), (24, 9, 9), dtype=dtype),
        Case(ConvTranspose2d(channels=12, kernel=4, stride=2, padding="same"), (20, 5, 6), dtype=dtype),
    ]
    check(cases, dtype, most=6)


@DTYPES
@pytest.mark.parametrize(
    "fields",
    [
        # one thread's tile each: (pixels, channels, thread_pixels, thread_channels, depth, slices)
        (16, 8, 1, 2, 4, 1),
        (16, 8, 2, 4, 8, 4),
        (32, 64, 4, 8, 16, 1),
        (64, 32, 8, 8, 8, 2),
        (8, 4, 1, 4, 8, 8),
        (128, 16, 4, 4, 4, 1),
        (64, 64, 8, 4, 4, 1),
    ],
)
def test_any_tile_of_a_matrix_product_is_right(dtype, fields):
    case = Case(Conv2d(channels=21, kernel=3, stride=1, padding="same", bias=True), (37, 5, 7), slack=2, dtype=dtype)
    prepared = prepare(case)
    schedule = ConvolutionSchedule(*fields)
    (trial,) = compile_trials([(prepared.spec, Convolution(), schedule)], TX2)
    result = trial.run(prepared.inputs, prepared.operands, prepared.weights)
    np.testing.assert_allclose(
        result.output, prepared.expected, rtol=0, atol=TOLERANCES[dtype] * np.abs(prepared.expected).max()
    )
    assert result.strayed == 0


@DTYPES
def test_depthwise_and_grouped_convolutions_take_odd_sizes(dtype):
    cases = [
        Case(
            Conv2d(channels=channels, kernel=kernel, stride=stride, padding="same", groups=groups, dilation=dilation),
            (groups * each, 8, 11),
            (Relu6(),),
            slack=slack,
            dtype=dtype,
        )
        for channels, groups, each, kernel, stride, dilation, slack in [
            (17, 17, 1, 3, 1, 1, 0),
            (58, 58, 1, 3, 2, 1, 5),
            (10, 10, 1, 5, 1, 1, 1),
            (30, 10, 1, 3, 1, 2, 0),
            (24, 3, 4, 3, 1, 1, 0),
            (12, 2, 9, (3, 1), (1, 2), 1, 0),
            (16, 16, 1, 7, 1, 1, 0),
            (6, 6, 1, 21, 1, 1, 0),
            (64, 2, 20, 3, 1, 1, 2),
        ]
    ]
    check(cases, dtype, most=2)


@DTYPES
def test_transposed_convolutions_take_all_strides_and_dilations(dtype):
    cases = [
        Case(ConvTranspose2d(channels=10, bias=True, **options), (12, 4, 5), (Relu(),), slack=1, dtype=dtype)
        for options in [
            {"kernel": 1, "stride": 2},
            {"kernel": 3, "stride": 2, "dilation": 2},
            {"kernel": 2, "stride": 3, "padding": 1},
            {"kernel": (5, 2), "stride": (2, 4), "padding": (1, 0), "output_padding": (1, 3)},
            {"kernel": 4, "stride": 2, "padding": "same", "groups": 2},
        ]
    ]
    check(cases, dtype)


@DTYPES
def test_steps_after_an_op_are_applied_in_order(dtype):
    shape = (10, 5, 7)
    steps = [
        (LeakyRelu(slope=0.2),),
        (LeakyRelu(slope=1.5),),
        (Sigmoid(), Silu()),
        (HardSigmoid(), HardSwish()),
        (BatchNorm(), Relu6()),
        (BatchNorm(), (Add(), shape), Relu(), BatchNorm()),
        ((Mul(), (10, 1, 1)), (Add(), (1, 5, 7)), (Mul(), (10, 5, 1)), (Add(), (1, 1, 7))),
    ]
    anchors = [
        (Conv2d(channels=10, kernel=3, padding="same"), (6, 5, 7)),
        (Conv2d(channels=10, kernel=3, padding="same", groups=10), shape),
        (MaxPool(kernel=3, stride=1, padding="same"), shape),
    ]
    cases = [Case(op, size, after, slack=2, dtype=dtype) for op, size in anchors for after in steps]
    cases.append(Case(Dense(features=10), (33,), (BatchNorm(), (Add(), (10,)), Silu()), batch=2, slack=1, dtype=dtype))
    cases.append(Case(Identity(), shape, (BatchNorm(), (Mul(), shape), Sigmoid()), batch=2, slack=1, dtype=dtype))
    cases.append(Case(Softmax(), shape, (Relu(), (Mul(), (10, 1, 1))), dtype=dtype))
    cases.append(Case(GlobalAvgPool(keep=True), shape, (Sigmoid(), (Mul(), (10, 1, 1))), batch=3, dtype=dtype))
    check(cases, dtype)


@DTYPES
def test_dense_layers_take_one_image_or_many(dtype):
    cases = [
        Case(Dense(features=features, bias=bias), (inputs,), batch=batch, dtype=dtype)
        for inputs, features, batch, bias in [
            (7, 1, 1, True),
            (130, 10, 1, False),
            (65, 33, 3, True),
            (48, 70, 9, True),
        ]
    ]
    check(cases, dtype, most=6)


@DTYPES
def test_softmax_takes_few_places_of_many_channels_and_the_reverse(dtype):
    cases = [
        Case(Softmax(), (1000,), batch=2, dtype=dtype),
        Case(Softmax(), (21, 9, 11), dtype=dtype, slack=1),
        Case(Softmax(), (1, 3, 3), dtype=dtype),
        Case(Softmax(), (67, 1, 1), batch=3, dtype=dtype),
    ]
    check(cases, dtype, most=6)


def test_softmax_of_large_numbers_does_not_overflow():
    spec = KernelSpec(Softmax(), 1, (view_of((5,)),), view_of((5,)))
    template = templates_of(spec, TX2)[0]
    (trial,) = compile_trials([(spec, template, template.schedules(spec, TX2)[0])], TX2)
    x = np.array([1e4, 1e4, -1e4, 0.0, 9990.0], np.float32).reshape(1, 5, 1, 1)
    share = 1 / (2 + np.exp(-10.0))
    np.testing.assert_allclose(
        trial.run([x]).output.ravel(), [share, share, 0, 0, np.exp(-10.0) * share], rtol=1e-5, atol=1e-12
    )


@pytest.mark.parametrize("inner", ["f32", "f16"])
@pytest.mark.parametrize(("channels", "height", "width"), [(3, 5, 7), (17, 4, 4), (1, 3, 9)])
def test_copies_convert_between_the_callers_planes_and_channels_last(inner, channels, height, width):
    shape = (channels, height, width)
    planar, packed = view_of(shape, planar=True), view_of(shape, slack=2, dtype=inner)
    x = np.random.default_rng(1).standard_normal((2, *shape), np.float32)
    items = [
        (KernelSpec(Identity(), 2, (source,), output, dtype=inner), Pointwise(), ElementSchedule(64, each))
        for source, output in [(planar, packed), (packed, planar)]
        for each in (1, 4)
    ]
    expected = x.astype(np.float16).astype(np.float32) if inner == "f16" else x
    for trial in compile_trials(items, TX2):
        result = trial.run([x])
        np.testing.assert_array_equal(result.output, expected)
        assert result.strayed == 0


def test_a_view_without_strides_is_repeated():
    source = View(4, 3, 5, 1, 0, 0, 1)
    spec = KernelSpec(Identity(), 1, (source,), view_of((4, 3, 5)), (Step(Add(), view_of((4, 3, 5))),))
    (trial,) = compile_trials([(spec, Pointwise(), ElementSchedule(64, 1))], TX2)
    pixel = np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1)
    x = np.broadcast_to(pixel, (1, 4, 3, 5))
    other = np.random.default_rng(2).standard_normal((1, 4, 3, 5), np.float32)
    np.testing.assert_array_equal(trial.run([x], [other]).output, x + other)


def test_more_images_than_a_grid_is_high_are_pooled():
    batch, view = 66000, view_of((1, 1, 2))
    spec = KernelSpec(GlobalAvgPool(), batch, (view,), view_of((1,)))
    (trial,) = compile_trials([(spec, GlobalPool(), GlobalPoolSchedule(32, 1))], TX2)
    x = np.random.default_rng(3).standard_normal((batch, 1, 1, 2), np.float32)
    np.testing.assert_allclose(trial.run([x]).output.ravel(), x.mean(axis=(1, 2, 3)), rtol=1e-5, atol=1e-7)


def test_chains_of_float16_sums_end_before_they_lose_much():
    # one sum of 4608 products; in float16 alone its rounding errors would pile up to several times the tolerance
    case = Case(Conv2d(channels=8, kernel=3, padding="same"), (512, 4, 4), dtype="f16")
    check([case], "f16", tolerance=1.5e-3)


def test_weights_beyond_float16_are_refused():
    prepared = prepare(Case(Dense(features=3), (4,), dtype="f16"))
    template = DenseLayer()
    schedule = template.schedules(prepared.spec, TX2)[0]
    weights = {**prepared.weights, "weight": np.full((3, 4), 1e5, np.float32)}
    with pytest.raises(UsageError, match=r"a weight of 1e\+05 is beyond float16's 65504"):
        template.pack(prepared.spec, schedule, weights, TX2)


def test_a_value_of_more_elements_than_int32_counts_is_refused():
    view = view_of((64, 1024, 1024))
    spec = KernelSpec(ChannelShuffle(groups=2), 64, (view,), view)
    with pytest.raises(UsageError, match="more elements than a kernel can count"):
        ShuffleChannels().emit(spec, ElementSchedule(64, 1), TX2, "k")


@DTYPES
def test_a_tuning_record_gives_back_every_schedule(dtype):
    specs = [
        prepare(Case(op, shape, dtype=dtype)).spec
        for op, shape in [
            (Conv2d(channels=8, kernel=3), (8, 6, 6)),
            (Conv2d(channels=8, kernel=3, groups=8), (8, 6, 6)),
            (Dense(features=5), (9,)),
            (GlobalAvgPool(), (8, 4, 4)),
            (Softmax(), (10,)),
            (MaxPool(kernel=2), (8, 4, 4)),
        ]
    ]
    for spec in specs:
        for template in templates_of(spec, TX2):
            schedules = template.schedules(spec, TX2)
            assert len(set(schedules)) == len(schedules) <= 6
            costs = [template.cost(spec, schedule, TX2) for schedule in schedules]
            assert costs == sorted(costs)
            assert all(template.schedule(schedule.as_dict()) == schedule for schedule in schedules)


def _image_network() -> Network:
    builder = Builder("mixed")
    x = builder.input("image", (3, 13, 15))
    x = builder.emit(Conv2d(channels=12, kernel=3, stride=2, padding="same", bias=True), x)
    x = builder.emit(HardSwish(), x)
    left, right = builder.emit(Conv2d(channels=7, kernel=1), x), builder.emit(MaxPool(kernel=3, stride=1, padding=1), x)
    from gensynth.ir.ops import Concat

    x = builder.emit(Concat(), left, right)
    x = builder.emit(ConvTranspose2d(channels=6, kernel=3, stride=2, padding="same"), x)
    x = builder.emit(Resize(size=(9, 11), mode="bilinear"), x)
    x = builder.emit(LocalResponseNorm(size=3), x)
    y = builder.emit(Softmax(axis=3), x)
    builder.output(builder.emit(Softmax(), x), y)
    graph = builder.build()
    return Network(graph, initialize(graph, 1))


@pytest.mark.parametrize(("dtype", "tolerance"), [("f32", 1e-5), ("f16", 1e-2)])
@pytest.mark.parametrize("name", ["residual", "mixed"])
def test_whole_programs_compute_what_the_reference_does(name, dtype, tolerance):
    graph = residual()
    network = Network(graph, initialize(graph, 0)) if name == "residual" else _image_network()
    program = lower(network, TX2, batch=2, dtype=dtype)
    x = np.random.default_rng(4).standard_normal(program.inputs[0].shape).astype(np.float32)
    found, expected = run_program(program, [x]), run_reference(network, x)
    assert len(found) == len(expected)
    for y, z in zip(found, expected, strict=True):
        np.testing.assert_allclose(y, z, rtol=0, atol=tolerance * np.abs(z).max())


def test_sources_are_for_gpus_alone():
    from dataclasses import replace

    with pytest.raises(UsageError, match="tegra-x2-gpu has no GPU"):
        cuda_source({}, replace(TX2, cuda=None))
