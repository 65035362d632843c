"""How fast are networks emitted and counted, against building the same ones as torch modules and counting those?

    python bench/materialize.py --networks 100 --repetitions 7 --json out.json

Every candidate makes as many networks of one generator and counts their MACs. `new seeds`: for seeds that the
generator has never met, draws decisions, inlines, canonicalizes, verifies, counts exactly. `readied each time`: the
same, with the time to make the generator ready, for the seeds that the torch candidates build; `same seeds again`: for
those, by a generator that has met them. `to_torch`: from
the emitted graphs to modules by `gensynth.backends.torch`. `plain modules`: hand-written building of the same layers
with torch's default initialization; `on meta`: the same without storage or initialization. The torch candidates count
by `FlopCounterMode` over one forward pass (halved: it counts 2 a MAC), all but `built only`, which leaves counting to
gensynth. All counts are compared before the clock starts. Torch runs on one thread.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterable

import torch
from harness import measure, print_table, write_json
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from gensynth.backends.torch import to_torch
from gensynth.ir import Graph, Network, initialize, pair, verify
from gensynth.ir.ops import Add, BatchNorm, Conv2d, Dense, GlobalAvgPool, Relu
from gensynth.ir.ops.windows import resolve_padding
from gensynth.passes import Materializer, run_pipeline
from gensynth.passes.cost import totals
from gensynth.synth.prototypes import prototype

PIPELINE = "open-depth,offer{rewrite=separate-conv},open-width"


class PlainNetwork(nn.Module):
    """The layers of a graph as anyone would write them: a list, and a loop over it."""

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.layers = nn.ModuleList()
        self.steps: list[tuple[int, tuple[str, ...], str]] = []
        self.input, self.output = graph.inputs[0].name, graph.outputs[0].name
        for node in graph.nodes:
            layer = -1
            if not isinstance(node.op, Add):
                layer = len(self.layers)
                self.layers.append(plain_layer(node.op, node.operands[0].type.sizes()))
            self.steps.append((layer, tuple(value.name for value in node.operands), node.name))

    def forward(self, image: Tensor) -> Tensor:
        """Runs the layers in order."""
        values = {self.input: image}
        for layer, operands, name in self.steps:
            if layer < 0:
                values[name] = values[operands[0]] + values[operands[1]]
            else:
                values[name] = self.layers[layer](values[operands[0]])
        return values[self.output]


def plain_layer(op: object, sizes: tuple[int, ...]) -> nn.Module:
    """Returns the torch layer of an op on an operand of these sizes."""
    if isinstance(op, Conv2d):
        top, bottom, left, right = resolve_padding(op.padding, (sizes[2], sizes[3]), op.kernel, op.stride, op.dilation)
        even = top == bottom and left == right
        layer = nn.Conv2d(
            sizes[1],
            op.channels,
            pair(op.kernel),
            pair(op.stride),
            (top, left) if even else 0,
            groups=op.groups,
            bias=op.bias,
        )
        return layer if even else nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), layer)
    if isinstance(op, BatchNorm):
        return nn.BatchNorm2d(sizes[1])
    if isinstance(op, Relu):
        return nn.ReLU()
    if isinstance(op, GlobalAvgPool):
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    if isinstance(op, Dense):
        return nn.Linear(sizes[1], op.features, bias=op.bias)
    raise TypeError(f"{type(op).__name__} has no plain layer here")


def count(module: nn.Module, image: Tensor) -> int:
    """Returns the MACs of one forward pass as torch counts them."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(image)
    return int(counter.get_total_flops()) // 2


def candidates(network: Network, seeds: range) -> dict[str, Callable[[], list[int]]]:
    """Returns what is compared; each returns the MACs of the networks of all seeds."""
    materializer = Materializer(network.graph)
    graphs = [materializer.materialize(seed).graph for seed in seeds]
    shape = network.graph.inputs[0].type.sizes(1)
    image, shadow = torch.zeros(shape), torch.zeros(shape, device="meta")

    ready = Materializer(network.graph)
    unseen = itertools.count(1_000_000)

    def emitted(source: Materializer, seeds: Iterable[int]) -> list[int]:
        found = []
        for seed in seeds:
            decided = source.materialize(seed)
            verify(decided.graph)
            found.append(decided.totals.macs)
        return found

    def emitted_anew() -> list[int]:
        emitted(ready, itertools.islice(unseen, len(seeds)))
        return [totals(graph).macs for graph in graphs]

    def lowered() -> list[int]:
        return [count(to_torch(Network(graph, initialize(graph))), image) for graph in graphs]

    def plain() -> list[int]:
        return [count(PlainNetwork(graph), image) for graph in graphs]

    def plain_on_meta() -> list[int]:
        found = []
        for graph in graphs:
            with torch.device("meta"):
                module = PlainNetwork(graph)
            found.append(count(module, shadow))
        return found

    def plain_on_meta_uncounted() -> list[int]:
        for graph in graphs:
            with torch.device("meta"):
                PlainNetwork(graph)
        return [totals(graph).macs for graph in graphs]

    return {
        "gensynth, new seeds": emitted_anew,
        "gensynth, readied each time": lambda: emitted(Materializer(network.graph), seeds),
        "gensynth, same seeds again": lambda: emitted(materializer, seeds),
        "to_torch": lowered,
        "plain modules": plain,
        "plain modules on meta": plain_on_meta,
        "plain modules on meta, built only": plain_on_meta_uncounted,
    }


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=100, help="how many networks each candidate makes in a run")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--depths", type=int, nargs="+", default=[8, 20], help="depths of the ResNet prototypes")
    parser.add_argument("--json", metavar="OUT", help="write the figures here as well")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, object] = {}
    for depth in arguments.depths:
        network = run_pipeline(prototype("resnet", depth=depth), PIPELINE)
        seeds = range(arguments.networks)
        compared = candidates(network, seeds)
        counts = {name: run() for name, run in compared.items()}
        if any(macs != counts["plain modules"] for macs in counts.values()):
            raise SystemExit(f"the counts differ: {counts}")
        found = measure(compared, arguments.repetitions)
        materializer = Materializer(network.graph)
        nodes = sum(len(materializer.materialize(seed).graph.nodes) for seed in seeds) / len(seeds)
        rows = [
            [name, f"{1e3 * item.median / len(seeds):.3f}", f"{len(seeds) / item.median:,.0f}", f"{item.ratio:,.1f} x"]
            for name, item in found.items()
        ]
        title = f"ResNet-{depth} generator: {PIPELINE} ({nodes:.0f} nodes a network)"
        print_table(title, ["", "ms a network", "networks a second", "time"], rows)
        results[f"resnet{depth}"] = {"nodes": nodes, "candidates": found}
    write_json(arguments.json, {"pipeline": PIPELINE, "networks": arguments.networks, **results})


if __name__ == "__main__":
    main()
