"""Opens choices in a ResNet-8, emits networks for some seeds, and shows that requirements hold for all of them."""

from __future__ import annotations

import gensynth as gs

net = gs.prototype("resnet", depth=8, image=(1, 8, 8))
print(f"prototype: {gs.cost(net).params:,} params, {gs.cost(net).macs:,} MACs")

program = gs.run_pipeline(net, "offer{rewrite=separate-conv},open-width{ratios=[0.25,0.5,0.75,1.0]}")
limited = program.with_graph(program.graph.replace(requirements=("macs <= 150K", "params <= 12K")))
generator = gs.Generator(limited)
print(f"generator: {len(generator.graph.choices)} choices, entropy {generator.entropy():.1f} nats")

for seed in range(8):
    decided = generator.decide(seed)
    small = generator.generate(seed)
    cost = gs.cost(small)
    print(f"seed {seed}: {small.hash}  {cost.params:>6,} params  {cost.macs:>7,} MACs  {len(decided.repairs)} repairs")

assert all(gs.cost(generator.generate(seed)).macs <= 150_000 for seed in range(32))
