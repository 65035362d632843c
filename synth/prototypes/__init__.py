"""The zoo: human-made networks to start from, each a function of typed arguments, written with the public builder."""

from . import (  # noqa: F401  (they register themselves)
    alexnet,
    detectnet,
    fbnet,
    googlenet,
    inception,
    lenet,
    mobilenet,
    nas_bench_201,
    nasnet,
    refinenet,
    resnet,
    shufflenet,
    squeezenet,
    vgg,
)
from .fbnet import fbnet_generator
from .nas_bench_201 import nas_bench_201_generator
from .registry import (
    ArgumentSpec,
    ArgumentValue,
    Image,
    Prototype,
    parse_arguments,
    prototype,
    prototypes,
    register_prototype,
)

__all__ = [
    "ArgumentSpec",
    "ArgumentValue",
    "Image",
    "Prototype",
    "fbnet_generator",
    "nas_bench_201_generator",
    "parse_arguments",
    "prototype",
    "prototypes",
    "register_prototype",
]
