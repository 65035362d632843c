"""One ONNX model on its way into the IR: tensors as views of values, constants, and drafts of nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from gensynth.ir import Array, GenSynthError, InferenceError, Op, TensorType, UsageError, Value, infer_types
from gensynth.ir.ops import ChannelShuffle, Flatten, Reshape

from .importer_folding import FOLDED, fold
from .importer_layout import Axes, View, plain
from .importer_model import AnyArray, Branch, OnnxModel, OnnxNode, integers_of, scalar_of

OpT = TypeVar("OpT", bound=Op)

__all__ = ["DATA_DECIDES", "Constant", "Draft", "Imported", "Parts", "Translation", "Translator", "shortest"]

_SAMPLE_BATCHES = (1009, 1013)
"""Two batches that no other size is likely to be: what shapes come to under both tells what depends on the batch."""


DATA_DECIDES = (
    "control flow: which branch runs depends on the data",
    "a network runs every node: take the branch out where the model is made",
)


@dataclass(frozen=True, eq=False)
class Constant:
    """An array under each sample batch; all are the same but for shapes of computed tensors."""

    arrays: tuple[AnyArray, ...]

    @property
    def fixed(self) -> AnyArray | None:
        """The array, None where it depends on the batch."""
        first = self.arrays[0]
        same = all(array is first or np.array_equal(array, first) for array in self.arrays[1:])
        return first if same else None


@dataclass(frozen=True, eq=False)
class Parts:
    """A sequence of tensors, as ONNX's SplitToSequence makes it."""

    views: tuple[View, ...]


Imported = View | Constant | Parts


@dataclass(eq=False)
class Draft:
    """A node of the IR that can still change. `affine` marks a batch norm that stands for a scale and a shift.

    `cut` tells where a split that stands for a slice begins and ends.
    """

    op: Op
    operands: list[Value]
    results: tuple[Value, ...]
    weights: dict[str, Array]
    node: OnnxNode
    affine: bool = False
    cut: tuple[int, int] | None = None


Translator = Callable[["Translation"], "Sequence[Imported]"]
"""What an operator becomes: reads `current` by the methods of the translation, and returns the node's results."""


class Translation:
    """Walks the nodes of a model; translators ask it for operands and attributes and give it ops."""

    def __init__(self, model: OnnxModel, batch: int | None) -> None:
        self.model = model
        self.batch = batch
        """The batch that the model is fixed to."""
        self.samples = _SAMPLE_BATCHES if batch is None else (batch,)
        self.drafts: list[Draft] = []
        self.current: OnnxNode
        self._environment: dict[str, Imported] = {name: Constant((array,)) for name, array in model.constants.items()}
        self._made: dict[tuple[str, Axes, int], Value] = {}
        self._count = 0

    def define(self, name: str, item: Imported) -> None:
        """Says what a value of the model is."""
        self._environment[name] = item

    def run(self, known: Mapping[str, Translator], why_not: Callable[[str], tuple[str, str]]) -> None:
        """Translates all nodes; `why_not` tells of an operator without translator what is wrong, and what to do."""
        self._run(self.model.nodes, known, why_not)

    def _run(
        self, nodes: Sequence[OnnxNode], known: Mapping[str, Translator], why_not: Callable[[str], tuple[str, str]]
    ) -> None:
        for node in nodes:
            self.current = node
            if node.operator == "If":
                self._decide(node, known, why_not)
                continue
            items = [self._environment[name] for name in node.inputs if name]
            if node.operator in FOLDED and items and all(isinstance(item, Constant) for item in items):
                results: Sequence[Imported] = self._folded(node)
            else:
                translate = known.get(node.operator)
                if translate is None:
                    raise self.fail(*why_not(node.operator))
                results = translate(self)
            if len(results) < sum(1 for name in node.outputs if name):
                used = [name for name in node.outputs[len(results) :] if name in self.model.readers()]
                if used or any(name in self.model.outputs for name in node.outputs[len(results) :]):
                    raise self.fail(
                        f"it makes {len(node.outputs)} results, of which the IR has {len(results)}",
                        "the others are for training, or are positions: export the model without them",
                    )
            for name, item in zip(node.outputs, results, strict=False):
                if name:
                    self._environment[name] = item

    def _decide(
        self, node: OnnxNode, known: Mapping[str, Translator], why_not: Callable[[str], tuple[str, str]]
    ) -> None:
        """Translates the branch that runs, where shapes alone decide on it."""
        condition = self.operand()
        array = condition.fixed if isinstance(condition, Constant) else None
        branch = None
        if array is not None and array.size == 1:
            branch = node.attributes.get("then_branch" if array.reshape(())[()] else "else_branch")
        if not isinstance(branch, Branch) or len(branch.outputs) != len(node.outputs):
            raise self.fail(*DATA_DECIDES)
        for name, constant in branch.constants.items():
            self._environment[name] = Constant((constant,))
        self._run(branch.nodes, known, why_not)
        for outer, inner in zip(node.outputs, branch.outputs, strict=True):
            self._environment[outer] = self._environment[inner]

    def _folded(self, node: OnnxNode) -> list[Imported]:
        constants = [self._environment[name] if name else None for name in node.inputs]
        results: list[list[AnyArray]] = []
        for sample in range(len(self.samples)):
            arrays = [
                item.arrays[sample % len(item.arrays)] if isinstance(item, Constant) else None for item in constants
            ]
            results.append(fold(self.model, node, arrays))
            if all(item is None or (isinstance(item, Constant) and len(item.arrays) == 1) for item in constants):
                break
        return [Constant(tuple(arrays)) for arrays in zip(*results, strict=True)]

    def fail(self, what: str, hint: str) -> UsageError:
        """Returns the error for something that cannot be imported at the current node."""
        return self.model.fail(self.current, what, hint)

    # Operands.

    def imported(self, name: str) -> Imported:
        """Returns what a value of the model has become."""
        return self._environment[name]

    def has(self, index: int) -> bool:
        """Returns whether the current node has an input of this number."""
        return index < len(self.current.inputs) and bool(self.current.inputs[index])

    def operand(self, index: int = 0) -> Imported:
        """Returns an input of the current node."""
        if not self.has(index):
            raise self.fail(f"its input {index} is missing", "the model is damaged: export it again")
        return self._environment[self.current.inputs[index]]

    def view(self, index: int = 0) -> View:
        """Returns an input that is computed."""
        found = self.operand(index)
        if isinstance(found, Parts):
            raise self.fail("it reads a sequence of tensors", "the IR has tensors: take them out with SequenceAt")
        if isinstance(found, Constant):
            raise self.fail(
                f"it reads the constant '{self.current.inputs[index]}' where an op of the IR has a computed value",
                "the IR has constants as weights of layers only",
            )
        return found

    def constant(self, index: int, what: str) -> AnyArray:
        """Returns an input that is constant; `what` says what it is."""
        found = self.operand(index)
        array = found.fixed if isinstance(found, Constant) else None
        if array is None:
            kind = "depends on the batch" if isinstance(found, Constant) else "is computed"
            raise self.fail(
                f"its {what} ('{self.current.inputs[index]}') {kind}",
                f"export the model with a constant {what}, in inference, and for a fixed image size",
            )
        return array

    def weight(self, index: int, what: str, rank: int | None = None) -> Array:
        """Returns a constant input as float32, of the rank wanted."""
        array = self.constant(index, what)
        if rank is not None and array.ndim != rank:
            raise self.fail(f"its {what} has shape {list(array.shape)}, not {rank} axes", "the IR has 2-d images only")
        return np.ascontiguousarray(array, np.float32) if array.ndim else array.astype(np.float32)

    def constant_integers(self, index: int, what: str) -> tuple[int, ...]:
        """Returns a constant input that is a list of integers."""
        found = integers_of(self.constant(index, what))
        if found is None:
            raise self.fail(f"its {what} is no list of integers", "the model is damaged: export it again")
        return found

    def integer_samples(self, index: int, what: str) -> list[tuple[int, ...]]:
        """Returns a constant input that is a list of integers under each sample batch."""
        found = self.operand(index)
        if not isinstance(found, Constant):
            raise self.fail(
                f"its {what} ('{self.current.inputs[index]}') is computed", "export the model for a fixed image size"
            )
        lists = [integers_of(found.arrays[sample % len(found.arrays)]) for sample in range(len(self.samples))]
        whole = [item for item in lists if item is not None]
        if len(whole) != len(lists):
            raise self.fail(f"its {what} is no list of integers", "the model is damaged: export it again")
        return whole

    def constant_number(self, index: int, what: str) -> float:
        """Returns a constant input that is one number."""
        found = scalar_of(self.constant(index, what))
        if found is None:
            raise self.fail(f"its {what} is no single number", "the IR has one number there")
        return found

    # Attributes.

    def integer(self, name: str, default: int) -> int:
        """Returns an attribute that is an integer."""
        found = self.current.attributes.get(name, default)
        if not isinstance(found, int):
            raise self._unfit(name, found)
        return found

    def number(self, name: str, default: float) -> float:
        """Returns an attribute that is a number, as the shortest decimal that means the same float32."""
        found = self.current.attributes.get(name, default)
        if not isinstance(found, (int, float)):
            raise self._unfit(name, found)
        return shortest(found)

    def word(self, name: str, default: str) -> str:
        """Returns an attribute that is a word."""
        found = self.current.attributes.get(name, default)
        if not isinstance(found, str):
            raise self._unfit(name, found)
        return found

    def integers(self, name: str) -> tuple[int, ...] | None:
        """Returns an attribute that is a list of integers, None where it is not given."""
        found = self.current.attributes.get(name)
        if found is None:
            return None
        if not isinstance(found, list) or not all(isinstance(item, int) for item in found):
            raise self._unfit(name, found)
        return tuple(found)

    def numbers(self, name: str) -> tuple[float, ...] | None:
        """Returns an attribute that is a list of numbers, None where it is not given."""
        found = self.current.attributes.get(name)
        if found is None:
            return None
        if not isinstance(found, list) or not all(isinstance(item, (int, float)) for item in found):
            raise self._unfit(name, found)
        return tuple(float(item) for item in found)

    def integers_or_input(self, name: str, index: int) -> tuple[int, ...] | None:
        """Returns integers that older opsets have as an attribute and newer ones as an input."""
        return self.constant_integers(index, name) if self.has(index) else self.integers(name)

    def _unfit(self, name: str, found: object) -> UsageError:
        return self.fail(f"attribute '{name}' is {found!r}", "the model is damaged: export it again")

    def axis(self, axis: int, rank: int) -> int:
        """Returns an axis counted from the front."""
        if not -rank <= axis < rank:
            raise self.fail(f"axis {axis} of a tensor of {rank} axes", "the model is damaged: export it again")
        return axis % rank

    # Layouts.

    def value(self, view: View) -> Value:
        """Returns a tensor as a value of the same shape; what a reshape or shuffle is in the IR is emitted for it."""
        found = self.materialized(view)
        if found is None:
            names = "".join(_letter(view, axis) for axis in range(len(view.axes)))
            raise self.fail(
                f"its operand has axes in the order {names}, made by {self._maker(view)}",
                "the IR keeps N, C, H, W; of permutations it has channel_shuffle, and those that a later one undoes",
            )
        return found

    def _maker(self, view: View) -> str:
        return f"node '{view.by.label}' ({view.by.operator})" if view.by is not None else "the model's input"

    def materialized(self, view: View) -> Value | None:
        """Returns a tensor as a value of the same shape, None where the IR cannot express how it lies."""
        shape = view.shape
        if view.is_plain:
            return view.base
        if shape[:1] != (None,):
            return None
        sizes = tuple(size for size in shape[1:] if size is not None)
        if len(sizes) != len(shape) - 1 or not sizes:
            return None
        key = (view.base.name, view.axes, len(shape))
        if key in self._made:
            return self._made[key]
        node = view.by or self.current
        if view.is_in_order:
            if (view.base.type.shape[0], *sizes) == view.base.type.shape:
                return view.base
            op: Op = Flatten() if len(sizes) == 1 else Reshape(shape=sizes)
            found = self.emit(op, view.base, node=node)[0]
        elif view.shuffled_groups:
            found = self.emit(ChannelShuffle(groups=view.shuffled_groups), view.base, node=node)[0]
        else:
            return None
        self._made[key] = found
        return found

    def arranged(self, *views: View) -> tuple[tuple[Value, ...], tuple[int, ...]]:
        """Returns tensors of one rank as values whose axes are ordered alike, and that order.

        Axis i of a tensor is axis order[i] of its value. Where nothing is permuted the order is 0, 1, 2, ...
        """
        rank = len(views[0].axes)
        if any(len(view.axes) != rank for view in views):
            shapes = " and ".join(str(_shown(view)) for view in views)
            raise self.fail(f"operands of {shapes}", "the IR combines values of one rank, the batch first")
        identity = tuple(range(rank))
        orders = [] if any(view.order not in (None, identity) for view in views) else [identity]
        for view in views:
            orders.append(view.order if view.order is not None else _inverse(view.sorted_axes()))
        orders.append(identity)
        for order in dict.fromkeys(orders):
            moved = [view.transposed(_inverse(order), view.by) for view in views]
            values = [self.materialized(view) for view in moved]
            found = tuple(value for value in values if value is not None)
            if len(found) == len(views):
                return found, order
        self.value(views[0])  # says what is wrong with it
        self.value(views[-1])
        raise self.fail("operands whose axes are in different orders", "transpose them alike before they meet")

    def tensor(self, value: Value, order: Sequence[int] | None = None) -> View:
        """Returns a value as a tensor, its axes as `arranged` has ordered them."""
        whole = plain(value)
        return whole if order is None else whole.transposed(order, self.current)

    def image(self, index: int = 0) -> Value:
        """Returns an input of the current node that is an image, [N, C, H, W]."""
        view = self.view(index)
        if len(view.axes) != 4:
            raise self.fail(f"an operand of shape {_shown(view)}", "the IR has this over images, [N, C, H, W]")
        return self.value(view)

    def shapes(self, view: View) -> list[tuple[int, ...]]:
        """Returns a tensor's shape under each sample batch."""
        return [tuple(sample if size is None else size for size in view.shape) for sample in self.samples]

    # Results.

    def emit(
        self,
        op: Op,
        *operands: Value,
        weights: Mapping[str, AnyArray] | None = None,
        node: OnnxNode | None = None,
        affine: bool = False,
    ) -> tuple[Value, ...]:
        """Adds a node of the IR with its weights and returns its results."""
        try:
            types = infer_types(op, tuple(value.type for value in operands))
        except GenSynthError as error:
            raise self.fail(error.message, error.hint or "the IR wants other operands here") from None
        results = tuple(self.fresh(type) for type in types)
        arrays = {name: np.ascontiguousarray(array, np.float32) for name, array in (weights or {}).items()}
        for parameter in op.parameters([value.type for value in operands]):
            found = arrays.get(parameter.name)
            if found is None or found.shape != parameter.shape:
                shape = "missing" if found is None else list(found.shape)
                raise self.fail(
                    f"its {parameter.name} is {shape}, {op.name} on {operands[0].type} wants {list(parameter.shape)}",
                    "the model is damaged: export it again",
                )
            if not np.isfinite(found).all():
                raise self.fail(f"its {parameter.name} holds infinity or no number", "train the model anew")
        self.drafts.append(Draft(op, list(operands), results, arrays, node or self.current, affine))
        return results

    def checked(self, make: Callable[[], OpT]) -> OpT:
        """Returns an op, made of attributes that the model has and the IR may refuse."""
        try:
            return make()
        except InferenceError as error:
            raise self.fail(error.message, error.hint or "the IR has no such attribute") from None

    def fresh(self, type: TensorType) -> Value:
        """Returns a new value, whose name is given in the end."""
        self._count += 1
        return Value(f"value_{self._count}", type)

    def unary(self, op: Op) -> list[Imported]:
        """Emits an op on single elements of the first input, however its axes are ordered."""
        view = self.view()
        if view.is_plain or self.lies_well(view):
            return [self.tensor(self.emit(op, self.value(view))[0])]
        found = self.emit(op, view.base)[0]
        return [View(found, view.axes, view.order, view.by)]

    def lies_well(self, view: View) -> bool:
        """Returns whether a tensor is a value of its own shape, and not one whose axes are merely in another order."""
        return view.order is None and self.materialized(view) is not None


def shortest(number: float) -> float:
    """Returns the shortest decimal that means the same float32."""
    return float(str(np.float32(number)))


def _inverse(order: Sequence[int]) -> tuple[int, ...]:
    inverse = [0] * len(order)
    for index, axis in enumerate(order):
        inverse[axis] = index
    return tuple(inverse)


def _shown(view: View) -> list[int | str]:
    return ["N" if size is None else size for size in view.shape]


def _letter(view: View, axis: int) -> str:
    if view.order is not None and view.base.type.rank == 4:
        return "NCHW"[view.order[axis]]
    size = view.shape[axis]
    return "N" if size is None else f"[{size}]"
