"""Trains a prototype on digits, rewrites it, trains what came out, and compares. Needs PyTorch and scikit-learn."""

from __future__ import annotations

import torch

import gensynth as gs

EPOCHS = 4

torch.set_num_threads(1)
digits = gs.task("digits")
recipe = gs.Recipe(epochs=EPOCHS, learning_rate=0.05, augmentation=digits.augmentation)

net = gs.prototype("resnet", depth=8, image=digits.image, classes=digits.classes)
trained = gs.train(net, digits.split("train"), digits.split("validation"), recipe).network
rewritten = gs.run_pipeline(trained, "scale-width{ratio=0.5},separate-conv{where=[stage2,stage3]}")
tuned = gs.train(rewritten, digits.split("train"), digits.split("validation"), recipe).network

for name, network in (("prototype", trained), ("rewritten", rewritten), ("trained on", tuned)):
    cost = gs.cost(network)
    accuracy = gs.evaluate(network, digits.split("validation")).accuracy
    print(f"{name:<10}  {accuracy:6.2f}%  {cost.params:>6,} params  {cost.macs:>7,} MACs")
