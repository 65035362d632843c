"""One-node networks, many for each op: odd sizes, odd paddings, every attribute."""

from gensynth.ir import Builder, Graph, Op
from gensynth.ir.ops import (
    Add,
    AvgPool,
    BatchNorm,
    ChannelShuffle,
    Concat,
    Conv2d,
    ConvTranspose2d,
    Dense,
    Dropout,
    Flatten,
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
    Reshape,
    Resize,
    Sigmoid,
    Silu,
    Softmax,
    Split,
)

IMAGE = (4, 7, 9)

CASES: list[tuple[Op, tuple[tuple[int, ...], ...]]] = [
    (Conv2d(channels=6, kernel=3), (IMAGE,)),
    (Conv2d(channels=6, kernel=(3, 1), stride=(2, 1), padding=(2, 0), bias=True), (IMAGE,)),
    (Conv2d(channels=6, kernel=4, padding="same", bias=True), (IMAGE,)),
    (Conv2d(channels=6, kernel=3, stride=2, padding="same"), ((4, 8, 8),)),
    (Conv2d(channels=8, kernel=3, padding=(0, 1, 2, 0), groups=2, dilation=2), (IMAGE,)),
    (Conv2d(channels=8, kernel=3, padding="same", groups=4), (IMAGE,)),
    (Conv2d(channels=2, kernel=1, stride=3), (IMAGE,)),
    (ConvTranspose2d(channels=6, kernel=3), (IMAGE,)),
    (ConvTranspose2d(channels=6, kernel=4, stride=2, padding="same", bias=True, groups=2), (IMAGE,)),
    (ConvTranspose2d(channels=6, kernel=3, stride=2, padding="same", bias=True), (IMAGE,)),
    (ConvTranspose2d(channels=4, kernel=3, stride=2, padding=1, output_padding=1, groups=4), (IMAGE,)),
    (
        ConvTranspose2d(channels=4, kernel=3, stride=3, padding=(1, 0, 2, 1), output_padding=(2, 1), dilation=2),
        (IMAGE,),
    ),
    (Dense(features=5), ((7,),)),
    (Dense(features=5, bias=False), ((7,),)),
    (BatchNorm(epsilon=0.1), (IMAGE,)),
    (BatchNorm(), ((6,),)),
    (LocalResponseNorm(size=5, alpha=1.0, beta=0.5, k=0.3), ((12, 3, 4),)),
    (LocalResponseNorm(size=3), (IMAGE,)),
    (LocalResponseNorm(size=7, alpha=0.5, k=2.0), (IMAGE,)),
    (Dropout(rate=0.3), (IMAGE,)),
    (Relu(), (IMAGE,)),
    (Relu6(), (IMAGE,)),
    (LeakyRelu(slope=0.2), (IMAGE,)),
    (Silu(), (IMAGE,)),
    (Sigmoid(), (IMAGE,)),
    (HardSigmoid(), (IMAGE,)),
    (HardSwish(), (IMAGE,)),
    (Softmax(), (IMAGE,)),
    (Softmax(axis=3), (IMAGE,)),
    (Add(), (IMAGE, IMAGE)),
    (Add(), (IMAGE, (1, 7, 1))),
    (Mul(), (IMAGE, (4, 1, 1))),
    (Concat(), (IMAGE, (2, 7, 9), IMAGE)),
    (Concat(axis=2), (IMAGE, (4, 1, 9))),
    (Split(sections=2), (IMAGE,)),
    (Split(sizes=(1, 3)), (IMAGE,)),
    (Split(sizes=(2, 3, 4), axis=3), (IMAGE,)),
    (ChannelShuffle(groups=2), ((6, 3, 3),)),
    (ChannelShuffle(groups=3), ((6, 3, 2),)),
    (MaxPool(kernel=2), (IMAGE,)),
    (MaxPool(kernel=2, ceil=True), (IMAGE,)),
    (MaxPool(kernel=3, stride=2, padding=1, ceil=True), ((4, 8, 8),)),
    (MaxPool(kernel=3, stride=2, padding="same"), ((4, 8, 9),)),
    (MaxPool(kernel=3, stride=2, padding=(2, 0, 1, 2)), (IMAGE,)),
    (MaxPool(kernel=3, stride=2, padding=2), (IMAGE,)),
    (MaxPool(kernel=(1, 4), stride=(3, 1), padding=(0, 0, 0, 3), ceil=True), (IMAGE,)),
    *(
        (AvgPool(count_padding=count_padding, ceil=ceil, **window), (size,))
        for count_padding in (False, True)
        for ceil in (False, True)
        for window in (
            {"kernel": 2},
            {"kernel": 3, "stride": 2, "padding": 1},
            {"kernel": 3, "stride": 2, "padding": "same"},
            {"kernel": 4, "stride": 1, "padding": "same"},
            {"kernel": (3, 2), "stride": (2, 3), "padding": (2, 1, 0, 1)},
            {"kernel": 3, "stride": 1, "padding": 2},
        )
        for size in (IMAGE, (2, 8, 8))
    ),
    (GlobalAvgPool(), (IMAGE,)),
    (GlobalAvgPool(keep=True), (IMAGE,)),
    (Resize(scale=2), (IMAGE,)),
    (Resize(size=(5, 13)), (IMAGE,)),
    (Resize(size=(49, 61)), (IMAGE,)),
    (Resize(scale=2, mode="bilinear"), (IMAGE,)),
    (Resize(size=(3, 20), mode="bilinear"), (IMAGE,)),
    (Resize(size=(1, 20), mode="bilinear", align_corners=True), (IMAGE,)),
    (Pad(padding=(1, 0, 2, 3), value=-1.5), (IMAGE,)),
    (Pad(padding=2), (IMAGE,)),
    (Flatten(), (IMAGE,)),
    (Reshape(shape=(2, -1, 9)), (IMAGE,)),
    (Identity(), (IMAGE,)),
]


def one_node(op: Op, shapes: tuple[tuple[int, ...], ...]) -> Graph:
    """Returns the graph of one op on inputs of `shapes`."""
    builder = Builder("one")
    inputs = [builder.input(f"x{index}", shape) for index, shape in enumerate(shapes)]
    count = len(op.infer([value.type for value in inputs]))
    results = builder.emit_all(op, *inputs, names=[f"stage1.y{index}" for index in range(count)])
    builder.output(*results)
    return builder.build()


def residual(channels: int = 8, size: int = 8, classes: int = 10) -> Graph:
    """Returns a small residual classifier: strided blocks, squeeze-and-excitation, dropout."""
    builder = Builder("residual")
    x = builder.input("image", (1, size, size))

    def convolve(x, width, stride, name, kernel=3):
        x = builder.emit(Conv2d(channels=width, kernel=kernel, stride=stride, padding="same"), x, name=f"{name}.conv")
        return builder.emit(BatchNorm(), x, name=f"{name}.norm")

    x = builder.emit(Relu(), convolve(x, channels, 1, "stem"), name="stem.act")
    for index, (width, stride) in enumerate([(channels, 1), (2 * channels, 2)]):
        with builder.scope(f"block{index}"):
            y = builder.emit(Relu(), convolve(x, width, stride, "first"), name="act")
            y = convolve(y, width, 1, "second")
            gate = builder.emit(GlobalAvgPool(keep=True), y, name="squeeze")
            gate = builder.emit(Conv2d(channels=width, kernel=1, bias=True), gate, name="excite")
            y = builder.emit(Mul(), y, builder.emit(HardSigmoid(), gate, name="gate"), name="scale")
            x = convolve(x, width, stride, "short", 1) if stride > 1 else x
            x = builder.emit(Relu(), builder.emit(Add(), x, y, name="sum"), name="out")
    x = builder.emit(Dropout(rate=0.1), builder.emit(GlobalAvgPool(), x, name="pool"), name="drop")
    builder.output(builder.emit(Dense(features=classes), x, name="logits"))
    return builder.build()
