"""The networks of the benchmarks of compilation: from the zoo, and what the demo emitted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gensynth.ir import Network, architecture_hash, initialize, save_network
from gensynth.passes.cost import cost
from gensynth.synth.generator import Generator
from gensynth.synth.prototypes import ArgumentValue, prototype

__all__ = ["LARGE", "SMALL", "Entry", "choose", "demo_entries"]


@dataclass(frozen=True)
class Entry:
    """A network of the benchmarks: the name it has in tables, where it belongs, and where it comes from."""

    name: str
    group: str
    prototype: str = ""
    arguments: dict[str, ArgumentValue] = field(default_factory=dict)
    generator: Path | None = None
    seed: int = 0
    inductor: bool = False
    """Whether torch.compile stands beside it: that takes half a minute for each batch and number of threads."""

    def build(self) -> Network:
        """Returns the network with weights; those that it does not have are drawn from seed 0."""
        if self.generator is None:
            network = prototype(self.prototype, **self.arguments)
        else:
            network = Generator.load(self.generator).generate(self.seed)
        return Network(network.graph, network.weights or initialize(network.graph, 0))

    def write(self, folder: Path) -> tuple[Path, dict[str, object]]:
        """Writes the network to a folder and returns its file and what is told of it."""
        network = self.build()
        path = folder / "network.gsir"
        folder.mkdir(parents=True, exist_ok=True)
        save_network(network, path)
        counted = cost(network.graph)
        return path, {
            "group": self.group,
            "architecture_hash": architecture_hash(network.graph),
            "seed": self.seed if self.generator else None,
            "macs": counted.macs,
            "params": counted.params,
        }


SMALL = (
    Entry("ResNet-20", "32x32", "resnet", {"depth": 20}, inductor=True),
    Entry("MobileNet v1", "32x32", "mobilenet", {"version": 1}),
    Entry("MobileNet v2", "32x32", "mobilenet", {"version": 2}, inductor=True),
    Entry("ShuffleNet v2", "32x32", "shufflenet", {"version": 2}),
    Entry("NASNet-A", "32x32", "nasnet-a"),
    Entry("SqueezeNet", "32x32", "squeezenet", inductor=True),
)
LARGE = (
    Entry("ResNet-18 at 224", "224x224", "resnet", {"depth": 18, "dataset": "imagenet"}),
    Entry("MobileNet v2 at 224", "224x224", "mobilenet", {"version": 2, "dataset": "imagenet"}),
    Entry("SqueezeNet at 224", "224x224", "squeezenet", {"dataset": "imagenet"}),
)


def demo_entries(run: Path) -> tuple[Entry, ...]:
    """Returns the FermiNets of a run directory, emitted anew by its generator for their seeds.

    Raises:
        SystemExit: the generator does not emit what the run recorded.
    """
    summary = json.loads((run / "summary.json").read_text())
    generator = Generator.load(run / "generator.gsir")
    entries = []
    for row in summary["networks"]:
        found = architecture_hash(generator.decide(row["seed"]).graph)
        if found != row["architecture_hash"]:
            raise SystemExit(f"{run}: seed {row['seed']} gives {found}, recorded is {row['architecture_hash']}")
        name, file = f"FermiNet {row['seed']}", run / "generator.gsir"
        entries.append(Entry(name, "FermiNets", generator=file, seed=row["seed"], inductor=not entries))
    return tuple(entries)


def choose(names: Sequence[str] | None, demo: Path | None) -> tuple[Entry, ...]:
    """Returns the networks whose names contain one of these, or all; case does not matter.

    Without the demo's run directory its networks are left out, and it is said.
    """
    entries = SMALL + LARGE
    if demo is not None and (demo / "summary.json").exists():
        entries = SMALL + demo_entries(demo) + LARGE
    elif demo is not None:
        print(f"{demo} is not there, so the FermiNets are left out: make demo")
    if names is None:
        return entries
    chosen = tuple(entry for entry in entries if any(name.lower() in entry.name.lower() for name in names))
    if not chosen:
        raise SystemExit(f"no network is called {' or '.join(names)}; there are {', '.join(e.name for e in entries)}")
    return chosen
