"""Patterns: several nodes of ONNX that are one op of the IR, found before anything is translated.

The node that makes the result is replaced; what it no longer reads falls away with all that nothing else reads.
"""

from __future__ import annotations

import math

from .importer_model import Branch, OnnxModel, OnnxNode, integers_of, scalar_of

__all__ = ["find_patterns"]

_INFINITE = 3.4e38


def find_patterns(model: OnnxModel) -> None:
    """Replaces, in place, the last node of each pattern found.

    sigmoid(x) x --> Swish; min(max(x + 3, 0), 6) / 6 --> HardSigmoid; that times x --> HardSwish; max(x, a x) -->
    LeakyRelu; bounds below and above --> Clip; PyTorch's steps of a local response norm --> LRN.
    """
    patterns = _Patterns(model)
    for index, node in enumerate(model.nodes):
        for match in (_bounds, _hard_sigmoid, _gated, _leaky, _local_norm):
            found = match(patterns, node)
            if found is not None:
                found.name, found.outputs, found.scope = node.name, node.outputs, node.scope
                found.written = node.written or node.operator
                model.nodes[index] = node = found
                patterns.enter(found)
    _drop_unread(model)


def _drop_unread(model: OnnxModel) -> None:
    wanted = set(model.outputs)
    kept = []
    for node in reversed(model.nodes):
        if any(name in wanted for name in node.outputs):
            kept.append(node)
            wanted.update(node.reads)
    model.nodes = kept[::-1]


class _Patterns:
    """Looks upwards from a node: who made a value, and which number a constant is."""

    def __init__(self, model: OnnxModel) -> None:
        self._model = model
        self._makers: dict[str, OnnxNode] = {}
        for node in model.nodes:
            self.enter(node)

    def enter(self, node: OnnxNode) -> None:
        self._makers.update((name, node) for name in node.outputs)

    def maker(self, name: str, *operators: str) -> OnnxNode | None:
        """Returns the node that makes a value, where it has one of these operators and may be part of a pattern."""
        node = self._makers.get(name)
        if node is None or node.operator not in operators or (self._model.is_own and "/" not in node.label):
            return None
        return node

    def number(self, name: str) -> float | None:
        array = self._model.constants.get(name)
        return None if array is None else scalar_of(array)

    def integers(self, name: str) -> tuple[int, ...] | None:
        array = self._model.constants.get(name)
        return None if array is None else integers_of(array)

    def pads(self, node: OnnxNode) -> tuple[int, ...] | None:
        """Returns the pads of a Pad, where they are constant."""
        given = node.attributes.get("pads")
        if isinstance(given, list) and all(isinstance(item, int) for item in given):
            return tuple(given)
        return self.integers(node.inputs[1]) if len(node.inputs) > 1 else None

    def with_number(self, node: OnnxNode | None) -> tuple[str, float] | None:
        """Returns (the other input, the number) of a node of two inputs, one of them a number."""
        if node is None or len(node.inputs) != 2:
            return None
        for one, other in (node.inputs, node.inputs[::-1]):
            number = self.number(other)
            if number is not None and self.number(one) is None and (node.operator != "Div" or other == node.inputs[1]):
                return one, number
        return None


def _new(operator: str, *inputs: str, **attributes: object) -> OnnxNode:
    return OnnxNode("", operator, list(inputs), [], attributes)


def _range(p: _Patterns, node: OnnxNode) -> tuple[str, float, float] | None:
    """Returns (operand, low, high) of a node that bounds its operand by numbers."""
    if node.operator == "Relu":
        return node.inputs[0], 0.0, math.inf
    if node.operator in ("Min", "Max"):
        found = p.with_number(node)
        if found is None:
            return None
        operand, number = found
        return (operand, -math.inf, number) if node.operator == "Min" else (operand, number, math.inf)
    if node.operator != "Clip" or not node.inputs:
        return None
    bounds = []
    for index, (name, free) in enumerate((("min", -math.inf), ("max", math.inf)), start=1):
        given = node.inputs[index] if index < len(node.inputs) else ""
        bound = p.number(given) if given else node.attributes.get(name, free)
        if not isinstance(bound, (int, float)):
            return None
        bounds.append(float(bound) if abs(bound) < _INFINITE else math.copysign(math.inf, bound))
    return node.inputs[0], bounds[0], bounds[1]


def _bounds(p: _Patterns, node: OnnxNode) -> OnnxNode | None:
    found = _range(p, node)
    if found is None or node.operator == "Relu":
        return None
    operand, low, high = found
    inner = p.maker(operand, "Relu", "Clip", "Min", "Max")
    before = None if inner is None else _range(p, inner)
    if before is not None and max(low, before[1]) <= min(high, before[2]):
        operand, low, high = before[0], max(low, before[1]), min(high, before[2])
    elif node.operator == "Clip":
        return None
    return _new("Clip", operand, min=low, max=high)


def _is_about(number: float, wanted: float) -> bool:
    return abs(number - wanted) <= 1e-6 * wanted


def _gate(p: _Patterns, name: str) -> str | None:
    """Returns x where a value is min(max(x + 3, 0), 6)."""
    node = p.maker(name, "Clip")
    found = None if node is None else _range(p, node)
    if found is None or found[1:] != (0, 6):
        return None
    shifted = p.with_number(p.maker(found[0], "Add"))
    return shifted[0] if shifted is not None and shifted[1] == 3 else None


def _sixth(p: _Patterns, node: OnnxNode) -> str | None:
    """Returns what a node divides by 6."""
    found = p.with_number(node) if node.operator in ("Div", "Mul") else None
    if found is None or not _is_about(found[1], 6.0 if node.operator == "Div" else 1 / 6):
        return None
    return found[0]


def _hard_sigmoid(p: _Patterns, node: OnnxNode) -> OnnxNode | None:
    divided = _sixth(p, node)
    if divided is None:
        return None
    operand = _gate(p, divided)
    if operand is not None:
        return _new("HardSigmoid", operand, alpha=1 / 6, beta=0.5)
    product = p.maker(divided, "Mul")
    if product is None or len(product.inputs) != 2:
        return None
    for one, other in (product.inputs, product.inputs[::-1]):
        if _gate(p, other) == one:
            return _new("HardSwish", one)
    return None


def _gated(p: _Patterns, node: OnnxNode) -> OnnxNode | None:
    """X sigmoid(x), and x hard_sigmoid(x)."""
    if node.operator != "Mul" or len(node.inputs) != 2:
        return None
    for one, other in (node.inputs, node.inputs[::-1]):
        gate = p.maker(other, "Sigmoid", "HardSigmoid")
        if gate is None or gate.inputs[:1] != [one]:
            continue
        if gate.operator == "Sigmoid":
            return _new("Swish", one)
        alpha, beta = gate.attributes.get("alpha", 0.2), gate.attributes.get("beta", 0.5)
        if isinstance(alpha, float) and _is_about(alpha, 1 / 6) and beta == 0.5:
            return _new("HardSwish", one)
    return None


def _leaky(p: _Patterns, node: OnnxNode) -> OnnxNode | None:
    if node.operator != "Max" or len(node.inputs) != 2:
        return None
    for one, other in (node.inputs, node.inputs[::-1]):
        scaled = p.with_number(p.maker(other, "Mul"))
        if scaled is not None and scaled[0] == one and 0 <= scaled[1] < 1:
            return _new("LeakyRelu", one, alpha=scaled[1])
    return None


_MOVES = ("If", "Pad", "Reshape", "Squeeze", "Unsqueeze")


def _local_norm(p: _Patterns, node: OnnxNode) -> OnnxNode | None:
    """X / (alpha mean(x^2 of neighbouring channels) + k)^beta, the mean by a padded pool over volumes or planes."""
    if node.operator != "Div" or len(node.inputs) != 2:
        return None
    x, name = node.inputs
    beta, k, alpha = 1.0, 0.0, 1.0
    for step in ("Pow", "Add", "Mul"):
        found = p.with_number(p.maker(name, step))
        if found is None:
            return None
        name = found[0]
        beta, k, alpha = {"Pow": (found[1], k, alpha), "Add": (beta, found[1], alpha), "Mul": (beta, k, found[1])}[step]
    name = _unmoved(p, name)
    pool = p.maker(name, "AveragePool")
    if pool is None:
        return None
    kernel = pool.attributes.get("kernel_shape")
    strides = pool.attributes.get("strides", [1])
    own_pads = pool.attributes.get("pads", [0])
    if not isinstance(kernel, list) or not isinstance(strides, list) or not isinstance(own_pads, list):
        return None
    size = kernel[0]
    name = _unmoved(p, pool.inputs[0])
    pad = p.maker(name, "Pad")
    pads: object = own_pads
    if pad is not None:
        pads = p.pads(pad)
        name = _unmoved(p, pad.inputs[0])
    if not isinstance(pads, (list, tuple)) or not isinstance(size, int):
        return None
    around = [item for item in pads if item]
    square = p.maker(name, "Mul", "Pow")
    fits = (
        square is not None
        and square.inputs[0] == x
        and (square.inputs[1] == x if square.operator == "Mul" else p.number(square.inputs[1]) == 2)
        and size % 2 == 1
        and around == [size // 2, size // 2]
        and all(item == 1 for item in (*kernel[1:], *strides))
        and (pad is None or not any(own_pads))
        and (pad is not None or pool.attributes.get("count_include_pad", 0) == 1)
    )
    return _new("LRN", x, size=size, alpha=alpha, beta=beta, bias=k) if fits else None


def _unmoved(p: _Patterns, name: str) -> str:
    """Returns what a value is before reshapes; an If that squeezes or does not, by the shape, is one of them."""
    while (node := p.maker(name, *_MOVES)) is not None:
        if node.operator == "Pad" and any(p.pads(node) or (1,)):
            return name
        if node.operator == "If":
            branches = [item for item in node.attributes.values() if isinstance(item, Branch)]
            steps = [step for branch in branches for step in branch.nodes]
            sources = {step.inputs[0] for step in steps if step.operator in ("Squeeze", "Identity")}
            if len(sources) != 1 or len(steps) != len(branches):
                return name
            name = sources.pop()
        else:
            name = node.inputs[0]
    return name
