"""From a generator and decisions to a network: choices are replaced by what was decided."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from gensynth.ir import Graph, Node, Op, Value, VerifyError, infer_types
from gensynth.ir.ops import Choose

__all__ = ["Body", "Inliner", "Step"]


def _names(graph: Graph) -> Counter[str]:
    """Counts how many values of a name one network could hold; exclusive alternatives count once."""
    counts: Counter[str] = Counter()
    for node in graph.nodes:
        inside: Counter[str] = Counter()
        for alternative in node.alternatives:
            body = _names(alternative.body)
            made = alternative.body.producers
            for value in alternative.body.outputs:
                if value.name in made:  # it takes the name of the choose's result
                    body[value.name] -= 1
            inside |= body
        counts += inside
        counts.update(value.name for value in node.results)
    return counts


class Step:
    """One node, ready to be decided: its choice ids, and its ops by decided indices."""

    __slots__ = ("branches", "choice", "identifiers", "node", "operands", "results", "variants")

    def __init__(self, node: Node, ambiguous: frozenset[str]) -> None:
        self.node = node
        self.operands = tuple(value.name for value in node.operands)
        self.results = tuple(value.name for value in node.results)
        self.identifiers = tuple(dict.fromkeys(choice.id for _, choice in node.choices))
        self.variants: dict[tuple[int, ...], Op] = {}
        self.choice = node.op.choice if isinstance(node.op, Choose) else ""
        self.branches = tuple(Body(alternative.body, ambiguous) for alternative in node.alternatives)


class Body:
    """The body of an alternative, ready to be inlined."""

    __slots__ = ("arguments", "label", "outputs", "renamed", "steps")

    def __init__(self, graph: Graph, ambiguous: frozenset[str]) -> None:
        self.label = graph.name
        self.arguments = tuple(value.name for value in graph.inputs)
        self.outputs = tuple(value.name for value in graph.outputs)
        self.steps = tuple(Step(node, ambiguous) for node in graph.nodes)
        self.renamed = frozenset(value.name for node in graph.nodes for value in node.results) & ambiguous

    def local_names(self, results: Sequence[str]) -> dict[str, str]:
        """Returns the new names of values that change theirs, for a choose with these results."""
        names = {name: f"{results[0]}.{name.rpartition('.')[2]}" for name in self.renamed}
        taken: set[str] = set()
        for yielded, result in zip(self.outputs, results, strict=True):
            if yielded not in self.arguments and yielded not in taken:
                names[yielded] = result
                taken.add(yielded)
        return names


class Inliner:
    """A generator made ready for many decisions.

    A value inside an alternative keeps its name, but where another part of the generator uses the same name it gets
    the choose's name in front; the yielded values take the names of the choose's results. Names so depend on the
    generator alone, not on what other choices decide.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        ambiguous = frozenset(name for name, count in _names(graph).items() if count > 1)
        self.steps = tuple(Step(node, ambiguous) for node in graph.nodes)

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
            self._emit(self.steps, values, nodes, decisions, "", None, sources, reached)
        except KeyError as error:
            raise VerifyError(f"choice {error} of @{self.graph.name} is not decided") from None
        outputs = tuple([values[value.name] for value in self.graph.outputs])
        return Graph(self.graph.name, self.graph.inputs, tuple(nodes), outputs)

    def _emit(
        self,
        steps: tuple[Step, ...],
        values: dict[str, Value],
        nodes: list[Node],
        decisions: Mapping[str, int],
        prefix: str,
        names: dict[str, str] | None,
        sources: dict[str, str] | None,
        reached: dict[str, int] | None,
    ) -> None:
        for step in steps:
            node = step.node
            if step.branches:
                index = decisions[step.choice]
                if reached is not None:
                    reached[step.choice] = index
                self._branch(step, step.branches[index], values, nodes, decisions, prefix, names, sources, reached)
                continue
            op = node.op
            if step.identifiers:
                indices = tuple([decisions[identifier] for identifier in step.identifiers])
                if reached is not None:
                    reached.update(zip(step.identifiers, indices, strict=True))
                found = step.variants.get(indices)
                if found is None:
                    found = node.op_at(dict(zip(step.identifiers, indices, strict=True)))
                    step.variants[indices] = found
                op = found
            operands = tuple([values[name] for name in step.operands])
            if names is None and operands == node.operands and op is node.op and not step.identifiers:
                made = node
                for value in node.results:
                    values[value.name] = value
            else:
                types = infer_types(op, tuple([value.type for value in operands]))
                if names is None:
                    results = tuple([Value(name, type) for name, type in zip(step.results, types, strict=True)])
                else:
                    results = tuple(
                        [Value(names.get(name, name), type) for name, type in zip(step.results, types, strict=True)]
                    )
                for name, value in zip(step.results, results, strict=True):
                    values[name] = value
                made = Node(op, operands, results, (), (), node.origin)
            nodes.append(made)
            if sources is not None:
                sources[made.name] = prefix + node.name

    def _branch(
        self,
        step: Step,
        body: Body,
        values: dict[str, Value],
        nodes: list[Node],
        decisions: Mapping[str, int],
        prefix: str,
        names: dict[str, str] | None,
        sources: dict[str, str] | None,
        reached: dict[str, int] | None,
    ) -> None:
        outer = names or {}
        results = [outer.get(name, name) for name in step.results]
        inner = body.local_names(results)
        local = {
            argument: values[operand] for argument, operand in zip(body.arguments, step.operands, strict=True)
        }
        inside = f"{prefix}{step.node.name}[{step.node.alternatives[decisions[step.choice]].label}]/"
        self._emit(body.steps, local, nodes, decisions, inside, inner, sources, reached)
        for name, yielded in zip(step.results, body.outputs, strict=True):
            values[name] = local[yielded]
