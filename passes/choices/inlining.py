"""From a generator and decisions to a network: choices are replaced by what was decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gensynth.ir import Graph, Node, Op, TensorType, Value, VerifyError, infer_types
from gensynth.ir.ops import Choose

from ..rewriting import free_name

__all__ = ["Body", "Inliner", "Step"]


class Step:
    """One node, ready to be decided: its choice ids, the names of its results in a network, the nodes it gave so far.

    `operands` and `results` are names within the body, `names` those of the results in a network, `path` the weight
    prefix and name.
    """

    __slots__ = ("branches", "choice", "identifiers", "made", "names", "node", "operands", "path", "results")

    def __init__(self, node: Node, names: tuple[str, ...], path: str, branches: tuple[Body, ...]) -> None:
        self.node = node
        self.operands = tuple([value.name for value in node.operands])
        self.results = tuple([value.name for value in node.results])
        self.names = names
        self.path = path
        self.identifiers = tuple(dict.fromkeys(choice.id for _, choice in node.choices))
        self.choice = node.op.choice if isinstance(node.op, Choose) else ""
        self.branches = branches
        self.made: dict[object, Node] = {}

    def op_at(self, indices: tuple[int, ...]) -> Op:
        """Returns the op when the choices of `identifiers` take these alternatives."""
        return self.node.op_at(dict(zip(self.identifiers, indices, strict=True)))

    def make(
        self, operands: tuple[Value, ...], indices: tuple[int, ...], shared: dict[tuple[str, TensorType], Value]
    ) -> Node:
        """Returns the node on these operands, when the choices of `identifiers` take these alternatives.

        Of equal results there is one object, which `shared` keeps.
        """
        node = self.node
        op = self.op_at(indices)
        types = infer_types(op, tuple([value.type for value in operands]))
        results = tuple(
            [shared.setdefault((name, type), Value(name, type)) for name, type in zip(self.names, types, strict=True)]
        )
        if op is node.op and operands == node.operands and results == node.results and not node.choices:
            return node
        return Node(op, operands, results, (), (), node.origin)


class Body:
    """The body of an alternative, ready to be inlined."""

    __slots__ = ("arguments", "label", "outputs", "steps")

    def __init__(self, label: str, graph: Graph, steps: tuple[Step, ...]) -> None:
        self.label = label
        self.arguments = tuple([value.name for value in graph.inputs])
        self.outputs = tuple([value.name for value in graph.outputs])
        self.steps = steps


def _steps(graph: Graph, prefix: str, scope: str, given: Mapping[str, str], taken: set[str]) -> tuple[Step, ...]:
    """Makes the steps of a body and adds the names that their results get to `taken`.

    `given` are the names of values that have got theirs from outside; `scope` goes in front of those that must change.
    """
    names = dict(given)
    for node in graph.nodes:
        for value in node.results:
            if value.name not in names:
                local = value.name.rpartition(".")[2]
                wanted = f"{scope}.{local}" if scope and value.name in taken else value.name
                names[value.name] = free_name(wanted, taken)
                taken.add(names[value.name])
    steps = []
    for node in graph.nodes:
        results = tuple([names[value.name] for value in node.results])
        branches = []
        used: set[str] = set()  # alternatives exclude each other, so each may use the names of the others
        for alternative in node.alternatives:
            made = alternative.body.producers
            yielded: dict[str, str] = {}
            for value, result in zip(alternative.body.outputs, results, strict=True):
                if value.name in made:
                    yielded.setdefault(value.name, result)
            inside = set(taken)
            path = f"{prefix}{node.name}[{alternative.label}]/"
            steps_inside = _steps(alternative.body, path, results[0], yielded, inside)
            branches.append(Body(alternative.label, alternative.body, steps_inside))
            used |= inside
        taken |= used
        steps.append(Step(node, results, prefix + node.name, tuple(branches)))
    return tuple(steps)


class Inliner:
    """A generator made ready for many decisions.

    A value inside an alternative keeps its name, unless the same name stands further out or in a choose before: then
    it gets the choose's name in front. The yielded values take the names of the choose's results. Names so depend on
    the generator alone, not on what other choices decide; nodes that come out alike are made once and shared.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        names = {value.name: value.name for node in graph.nodes for value in node.results}
        self.steps = _steps(graph, "", "", names, {*names, *(value.name for value in graph.inputs)})
        self.shared = {(value.name, value.type): value for node in graph.nodes for value in node.results}

    def run(
        self,
        decisions: Mapping[str, int],
        *,
        sources: dict[str, str] | None = None,
        reached: dict[str, int] | None = None,
    ) -> Graph:
        """Returns the network under `decisions` (choice id -> index).

        Into `sources`, where given, goes the weight prefix and name of every node, by its new name; into `reached`
        the decisions that the network depends on (those inside alternatives not taken are left out).

        Raises:
            VerifyError: a choice is not decided.
        """
        values = {value.name: value for value in self.graph.inputs}
        nodes: list[Node] = []
        try:
            _emit(self.steps, values, nodes, decisions, self.shared, sources, {} if reached is None else reached)
        except KeyError as error:
            raise VerifyError(f"choice {error} of @{self.graph.name} is not decided") from None
        outputs = tuple([values[value.name] for value in self.graph.outputs])
        return Graph(self.graph.name, self.graph.inputs, tuple(nodes), outputs)


def _emit(
    steps: Sequence[Step],
    values: dict[str, Value],
    nodes: list[Node],
    decisions: Mapping[str, int],
    shared: dict[tuple[str, TensorType], Value],
    sources: dict[str, str] | None,
    reached: dict[str, int],
) -> None:
    for step in steps:
        if step.branches:
            index = reached[step.choice] = decisions[step.choice]
            body = step.branches[index]
            inside = {name: values[operand] for name, operand in zip(body.arguments, step.operands, strict=True)}
            _emit(body.steps, inside, nodes, decisions, shared, sources, reached)
            for name, yielded in zip(step.results, body.outputs, strict=True):
                values[name] = inside[yielded]
            continue
        operands = tuple([values[name] for name in step.operands])
        indices: tuple[int, ...] = ()
        # Equal values are one object that lives as long as the inliner: its identity is a key, and a cheap one.
        key: object = tuple(map(id, operands))
        if step.identifiers:
            indices = tuple([decisions[identifier] for identifier in step.identifiers])
            key = key, indices
            for identifier, index in zip(step.identifiers, indices, strict=True):
                reached[identifier] = index
        made = step.made.get(key)
        if made is None:
            made = step.made[key] = step.make(operands, indices, shared)
        nodes.append(made)
        if len(step.results) == 1:
            values[step.results[0]] = made.results[0]
        else:
            for name, value in zip(step.results, made.results, strict=True):
                values[name] = value
        if sources is not None:
            sources[made.results[0].name] = step.path
