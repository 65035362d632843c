"""The built-in ops, a file for each family."""

from .activation import HardSigmoid, HardSwish, LeakyRelu, Relu, Relu6, Sigmoid, Silu, Softmax
from .choose import Choose
from .convolution import Conv2d, ConvTranspose2d
from .elementwise import Add, Mul
from .linear import Dense
from .normalization import BatchNorm, Dropout, LocalResponseNorm
from .pooling import AvgPool, GlobalAvgPool, MaxPool
from .shape import ChannelShuffle, Concat, Flatten, Identity, Pad, Reshape, Resize, Split

__all__ = [
    "Add",
    "AvgPool",
    "BatchNorm",
    "ChannelShuffle",
    "Choose",
    "Concat",
    "Conv2d",
    "ConvTranspose2d",
    "Dense",
    "Dropout",
    "Flatten",
    "GlobalAvgPool",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "LocalResponseNorm",
    "MaxPool",
    "Mul",
    "Pad",
    "Relu",
    "Relu6",
    "Reshape",
    "Resize",
    "Sigmoid",
    "Silu",
    "Softmax",
    "Split",
]
