"""The architecture IR: types, ops, graphs, text, hashes and files. Imports nothing else of GenSynth."""

from .attributes import AttributeValue, Padding, Pair, attribute, pair
from .builder import Builder
from .diff import Change, Diff, diff
from .errors import (
    DataError,
    GenSynthError,
    InferenceError,
    ParseError,
    PassError,
    Source,
    UsageError,
    VerifyError,
    WeightsError,
    nearest,
)
from .graph import Alternative, Choice, ChoiceInfo, Graph, Node, Value, scope_of
from .hashing import architecture_hash, content_hash
from .infer import choose_node, infer_open, make_node
from .network import (
    Array,
    Network,
    Weights,
    check_weights,
    initialize,
    load_network,
    load_weights,
    parameters_of,
    save_network,
    save_weights,
    write_atomically,
)
from .op import Op, Parameter, all_ops, infer_types, op_class
from .parser import parse
from .printer import format_node, to_text
from .types import BATCH, DTYPE_BYTES, Dim, OpenDim, TensorType
from .verifier import verify
from .view import to_networkx

__all__ = [
    "BATCH",
    "DTYPE_BYTES",
    "Alternative",
    "Array",
    "AttributeValue",
    "Builder",
    "Change",
    "Choice",
    "ChoiceInfo",
    "DataError",
    "Diff",
    "Dim",
    "GenSynthError",
    "Graph",
    "InferenceError",
    "Network",
    "Node",
    "Op",
    "OpenDim",
    "Padding",
    "Pair",
    "Parameter",
    "ParseError",
    "PassError",
    "Source",
    "TensorType",
    "UsageError",
    "Value",
    "VerifyError",
    "Weights",
    "WeightsError",
    "all_ops",
    "architecture_hash",
    "attribute",
    "check_weights",
    "choose_node",
    "content_hash",
    "diff",
    "format_node",
    "infer_open",
    "infer_types",
    "initialize",
    "load_network",
    "load_weights",
    "make_node",
    "nearest",
    "op_class",
    "pair",
    "parameters_of",
    "parse",
    "save_network",
    "save_weights",
    "scope_of",
    "to_networkx",
    "to_text",
    "verify",
    "write_atomically",
]
