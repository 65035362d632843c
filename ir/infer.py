"""Type inference for nodes: concrete ones directly, open ones by asking the op at every setting of the choices.

An op knows nothing of choices. A node with open attributes, or operands with open dimensions, is typed by inferring
the op with all choices at index 0, then with each choice moved alone; the differences make the `OpenDim` terms. That
reading is exact where every result dimension is a sum of contributions, one a choice, and this is checked with all
choices at their last alternative; anything else is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

from .errors import InferenceError, VerifyError, nearest
from .graph import Alternative, Choice, Graph, Node, Value
from .op import Op, infer_types
from .ops.choose import Choose
from .types import Dim, OpenDim, TensorType

__all__ = ["choose_node", "infer_open", "make_node"]


def _alternatives_of(choices: tuple[tuple[str, Choice], ...], operands: tuple[TensorType, ...]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for _, choice in choices:
        if counts.setdefault(choice.id, len(choice.values)) != len(choice.values):
            raise InferenceError(f"choice '{choice.id}' has {counts[choice.id]} and {len(choice.values)} alternatives")
    for operand in operands:
        for dim in operand.shape:
            if isinstance(dim, OpenDim):
                for identifier, offsets in dim.terms:
                    if counts.setdefault(identifier, len(offsets)) != len(offsets):
                        raise InferenceError(
                            f"choice '{identifier}' has {counts[identifier]} and {len(offsets)} alternatives"
                        )
    return counts


_inferred: dict[tuple[object, ...], tuple[TensorType, ...]] = {}


def infer_open(
    op: Op, choices: tuple[tuple[str, Choice], ...], operands: tuple[TensorType, ...]
) -> tuple[TensorType, ...]:
    """Returns the result types of an op with open attributes or open operands. Memoized.

    Raises:
        InferenceError: some setting of the choices does not fit the op, or the result is no sum over the choices.
    """
    kinds = tuple(type(value) for _, choice in choices for value in choice.values)  # for true == 1 == 1.0
    key = (op, choices, kinds, operands)
    found = _inferred.get(key)
    if found is None:
        found = _inferred[key] = _infer_open(op, choices, operands)
    return found


def _infer_open(
    op: Op, choices: tuple[tuple[str, Choice], ...], operands: tuple[TensorType, ...]
) -> tuple[TensorType, ...]:
    def at(decisions: Mapping[str, int]) -> tuple[TensorType, ...]:
        changes = {name: choice.values[decisions.get(choice.id, 0)] for name, choice in choices}
        try:
            return infer_types(
                op.with_attributes(changes) if changes else op, tuple(operand.at(decisions) for operand in operands)
            )
        except InferenceError as error:
            setting = ", ".join(
                f"'{identifier}' takes its alternative {index}" for identifier, index in decisions.items()
            )
            raise InferenceError(
                f"{error.message}, when {setting or 'every choice takes its first alternative'}",
                hint=error.hint,
                attribute=error.attribute,
            ) from None

    counts = _alternatives_of(choices, operands)
    base = at({})
    moved = {identifier: [at({identifier: index}) for index in range(count)] for identifier, count in counts.items()}
    last = at({identifier: count - 1 for identifier, count in counts.items()})
    results: list[TensorType] = []
    for position, first in enumerate(base):
        shape: list[Dim] = []
        for axis, start in enumerate(first.shape):
            if isinstance(start, str):
                shape.append(start)
                continue
            assert isinstance(start, int)
            terms = []
            for identifier, variants in sorted(moved.items()):
                offsets = []
                for variant in variants:
                    if len(variant) != len(base) or variant[position].rank != first.rank:
                        raise InferenceError(f"{op.name}: choice '{identifier}' changes how many axes the result has")
                    dim = variant[position].shape[axis]
                    assert isinstance(dim, int)
                    offsets.append(dim - start)
                if any(offsets):
                    terms.append((identifier, tuple(offsets)))
            dim_at_last = start + sum(offsets[-1] for _, offsets in terms)
            if dim_at_last != last[position].shape[axis]:
                raise InferenceError(
                    f"{op.name}: the result's size is no sum over the choices {', '.join(sorted(counts))}",
                    hint="open only one of them, or let them share one choice id",
                )
            shape.append(OpenDim(start, tuple(terms)) if terms else start)
        results.append(TensorType(first.dtype, tuple(shape)))
    return tuple(results)


def _normal(op: Op, choices: tuple[tuple[str, Choice], ...]) -> tuple[tuple[str, Choice], ...]:
    """Returns open attributes in the op's order with every value in the normal form of its attribute.

    Raises:
        InferenceError: the op lacks the attribute, has it twice, or cannot take a value.
    """
    given = dict(choices)
    for name in given:
        if name not in op.attributes:
            raise InferenceError(
                f"{op.name} has no attribute '{name}'", hint=nearest(name, op.attributes, what="its attributes")
            )
    if len(given) != len(choices):
        raise InferenceError(f"{op.name}: an attribute is left open twice")
    normal = []
    for name, spec in op.attributes.items():
        if name in given:
            try:
                values = tuple(spec.kind.normalize(value) for value in given[name].values)
            except ValueError as error:
                raise InferenceError(f"{op.name}: {name}: {error}", attribute=name) from None
            normal.append((name, Choice(given[name].id, values)))
    return tuple(normal)


def make_node(
    op: Op,
    operands: tuple[Value, ...],
    names: tuple[str, ...],
    *,
    choices: tuple[tuple[str, Choice], ...] = (),
    origin: str = "",
) -> Node:
    """Returns a node with inferred result types. With `choices`, the op's open attributes take their first values.

    Raises:
        InferenceError: the operands do not fit the op.
        VerifyError: the number of names is not the number of results.
    """
    types = tuple([value.type for value in operands])
    if choices:
        choices = _normal(op, choices)
        op = op.with_attributes({name: choice.values[0] for name, choice in choices})
    if choices or any([type.is_open for type in types]):
        results = infer_open(op, choices, types)
    else:
        results = infer_types(op, types)
    if len(results) != len(names):
        raise VerifyError(f"{op.name} has {len(results)} results, {len(names)} named: {', '.join(names)}")
    values = tuple([Value(name, type) for name, type in zip(names, results, strict=True)])
    return Node(op, operands, values, choices, (), origin)


def choose_node(
    choice: str,
    operands: tuple[Value, ...],
    names: tuple[str, ...],
    alternatives: tuple[Alternative, ...],
    *,
    origin: str = "",
) -> Node:
    """Returns a `choose` node whose result types are those that every alternative yields.

    Raises:
        VerifyError: no alternatives, equal labels, or bodies that disagree on operands or results.
    """
    if not alternatives:
        raise VerifyError(f"choose<{choice}> has no alternatives")
    labels = [alternative.label for alternative in alternatives]
    if len(set(labels)) != len(labels):
        raise VerifyError(f"choose<{choice}> has two alternatives of one label: {', '.join(labels)}")
    types = tuple(value.type for value in alternatives[0].body.outputs)
    wanted = tuple(value.type for value in operands)
    for alternative in alternatives:
        body: Graph = alternative.body
        takes = tuple(value.type for value in body.inputs)
        if takes != wanted:
            raise VerifyError(
                f"choose<{choice}>: alternative '{alternative.label}' takes ({', '.join(map(str, takes))}),"
                f" the operands are ({', '.join(map(str, wanted))})"
            )
        yields = tuple(value.type for value in body.outputs)
        if yields != types:
            raise VerifyError(
                f"choose<{choice}>: alternative '{alternative.label}' yields ({', '.join(map(str, yields))}),"
                f" '{labels[0]}' yields ({', '.join(map(str, types))})",
                hint="every alternative must yield the same types",
            )
    if len(types) != len(names):
        raise VerifyError(f"choose<{choice}> has {len(types)} results, {len(names)} named: {', '.join(names)}")
    results = tuple(Value(name, type) for name, type in zip(names, types, strict=True))
    return Node(Choose(choice=choice), operands, results, (), alternatives, origin)
