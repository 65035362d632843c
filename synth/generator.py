"""The generator G(s; theta_G): an IR program with choices left open, as a user holds it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from gensynth.ir import Graph, Network, UsageError, Weights, architecture_hash, load_network, save_network, verify
from gensynth.passes import Decided, Materializer, PassManager
from gensynth.passes.choices.inheritance import inherit_weights
from gensynth.passes.choices.recognizing import recognize

__all__ = ["Diversity", "Generator"]


@dataclass(frozen=True)
class Diversity:
    """How various a family is: how many networks were drawn and how many architectures are among them."""

    drawn: int
    different: int

    @property
    def share(self) -> float:
        """Different architectures over networks drawn."""
        return self.different / self.drawn if self.drawn else 0.0


class Generator:
    """A generator of networks. Its program is `network`; its parameters theta_G are the logits in it.

    generator = Generator.load("generator.gsir")
    network = generator.generate(seed=7)
    """

    def __init__(self, network: Network) -> None:
        """Wraps a generator program.

        Raises:
            UsageError: no choice is open in it.
        """
        if not network.graph.is_generator:
            raise UsageError(
                f"@{network.graph.name} is a network, not a generator: no choice is open in it",
                hint="open choices first: gensynth opt NET.gsir --passes 'open-width,offer{rewrite=separate-conv}'",
            )
        self.network = network

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Generator:
        """Reads a generator from `.gsir` (and the weights beside it, where there are any)."""
        return cls(load_network(path))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the generator: the text is its checkpoint."""
        save_network(self.network, path)

    @property
    def graph(self) -> Graph:
        """The program."""
        return self.network.graph

    @cached_property
    def materializer(self) -> Materializer:
        """The program made ready to emit networks fast."""
        return Materializer(self.graph)

    def decide(self, seed: int, *, repair: bool = True) -> Decided:
        """Returns the decisions and the graph of a seed, without weights.

        Raises:
            PassError: no network near this draw meets the computable requirements.
        """
        return self.materializer.materialize(seed, repair=repair)

    def generate(self, seed: int) -> Network:
        """Returns the network of a seed, verified, with weights where the generator has them.

        It meets every computable requirement of the generator; the same seed gives the same network everywhere.

        Raises:
            PassError: no network near this draw meets the computable requirements.
        """
        decided = self.decide(seed)
        verify(decided.graph)
        return Network(decided.graph, self.weights_for(decided))

    def weights_for(self, decided: Decided) -> Weights | None:
        """Returns the weights that a network inherits, or None where the generator has none."""
        return inherit_weights(self.network, self.materializer.inliner, decided.decisions, decided.graph)

    def __iter__(self) -> Iterator[Network]:
        """Yields the networks of seeds 0, 1, 2, ... without end."""
        seed = 0
        while True:
            yield self.generate(seed)
            seed += 1

    def apply(self, passes: str, *, verify: bool = True) -> Generator:
        """Returns the generator after a pipeline, e.g. of `update`, `commit`, `offer`, `drop`.

        Without `verify` it is not checked after every pass, which hundreds of updates in a loop want.
        """
        return Generator(PassManager(passes, verify=verify).run(self.network))

    # theta_G as a distribution.

    def log_probability(self, network: Network | Graph | Mapping[str, int]) -> float:
        """Returns log p of a network (or of reached decisions) under the draw: the sum over choices it depends on.

        The draw is meant before repair, which moves probability from infeasible networks to feasible ones.

        Raises:
            UsageError: the network is none of this generator's.
        """
        if isinstance(network, Mapping):
            decisions = network
        else:
            graph = network.graph if isinstance(network, Network) else network
            decisions = self.decisions_of(graph)
        total = 0.0
        for identifier, index in decisions.items():
            total += math.log(self.graph.choices[identifier].probabilities[index])
        return total

    def decisions_of(self, graph: Graph) -> dict[str, int]:
        """Returns the decisions (those it depends on) that give a network.

        Alternatives are told apart by the nodes they leave in the network; where some give the same network, the
        first is taken.

        Raises:
            UsageError: no decisions give this network.
        """
        recognized = recognize(self.materializer.inliner, graph)
        decisions = {**dict.fromkeys(self.graph.choices, 0), **recognized}
        reached: dict[str, int] = {}
        if architecture_hash(self.materializer.build(decisions, reached)) == architecture_hash(graph):
            return reached
        raise UsageError(
            f"@{graph.name} is no network of the generator @{self.graph.name}",
            hint="give a network that this very generator has emitted",
        )

    def entropy(self) -> float:
        """Returns the sum of the choices' entropies, in nats: an upper bound on the entropy of the family."""
        total = 0.0
        for info in self.graph.choices.values():
            total -= sum(p * math.log(p) for p in info.probabilities if p > 0.0)
        return total

    def diversity(self, seeds: Iterable[int] = range(64)) -> Diversity:
        """Returns how many different architectures some seeds give."""
        hashes = [architecture_hash(self.decide(seed).graph) for seed in seeds]
        return Diversity(len(hashes), len(set(hashes)))

    def distinct(self, seeds: Sequence[int]) -> list[Decided]:
        """Returns the networks of seeds, each architecture once, at its first seed."""
        found: dict[str, Decided] = {}
        for seed in seeds:
            decided = self.decide(seed)
            found.setdefault(architecture_hash(decided.graph), decided)
        return list(found.values())
