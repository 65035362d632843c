"""The zoo: human-made networks to start from, each a function of typed arguments, written with the public builder."""

from . import lenet, mobilenet, nasnet, resnet, shufflenet, squeezenet  # noqa: F401  (they register themselves)
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
    "parse_arguments",
    "prototype",
    "prototypes",
    "register_prototype",
]
