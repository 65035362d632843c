"""Builds a network of one's own, opens choices in it, moves one by hand, and tells what changed."""

from __future__ import annotations

import gensynth as gs
from gensynth.ir.ops import Add, BatchNorm, Conv2d, Dense, GlobalAvgPool, Relu

builder = gs.Builder("mine")
value = builder.input("image", (3, 32, 32))
with builder.scope("stem"):
    value = builder.emit(Conv2d(channels=16, kernel=3, padding="same"), value, name="conv")
    value = builder.emit(Relu(), value, name="act")
for number in range(1, 4):
    with builder.scope(f"block{number}"):
        entry = value
        value = builder.emit(Conv2d(channels=16, kernel=3, padding="same"), value, name="conv")
        value = builder.emit(BatchNorm(), value, name="norm")
        value = builder.emit(Add(), value, entry, name="add")
        value = builder.emit(Relu(), value, name="act")
value = builder.emit(GlobalAvgPool(), value, name="pool")
builder.output(builder.emit(Dense(features=10), value, name="logits"))
net = gs.Network(builder.build())

generator = gs.Generator(gs.run_pipeline(net, "open-depth,open-kernel{sizes=[1,3]}"))
for choice in generator.graph.choices.values():
    print(f"{choice.id}: {dict(zip(choice.labels, choice.probabilities, strict=True))}")

moved = generator.apply("update{choice=block2,by=[-1.0,1.0]},commit{choice=stem.conv.kernel,to=3}")
print(gs.diff(generator.graph, moved.graph))
print(f"entropy {generator.entropy():.2f} -> {moved.entropy():.2f} nats; {moved.diversity(range(32))}")
