"""Uses every plug-in of this folder as GenSynth finds it when the package is installed: by name."""

from __future__ import annotations

import numpy as np
import torch

import gensynth as gs
from gensynth.backends.onnx import run_onnx, to_onnx
from gensynth.backends.reference import run_reference
from gensynth.backends.tvm import load_target
from gensynth.ir import Network
from gensynth.synth.performance import Outcome, performance_function

torch.set_num_threads(1)

net = gs.prototype("plain", depth=2, width=8, classes=2)
net = Network(net.graph, gs.initialize(net.graph, 0))
changed = gs.run_pipeline(net, "relu-to-hard-tanh{limit=0.5,where=[act1]},drop-dropout")
assert "hard_tanh" in gs.to_text(changed) and gs.parse(gs.to_text(changed)).graph == changed.graph
assert gs.cost(changed).macs == gs.cost(net).macs

images = gs.task("stripes", noise=0.25).split("validation").inputs[:4]
expected = run_reference(changed, images)[0]
found = gs.to_torch(changed)(torch.from_numpy(images)).detach().numpy()
assert np.allclose(found, expected, atol=1e-5)
assert np.allclose(run_onnx(to_onnx(changed), images)[0], expected, atol=1e-5)

generator = gs.Generator(gs.run_pipeline(net, "offer{rewrite=relu-to-hard-tanh},open-width{ratios=[0.5,1.0]}"))
texts = {gs.to_text(generator.generate(seed)) for seed in range(8)}
assert len(texts) > 1 and any("hard_tanh" in text for text in texts)

assert performance_function("accuracy_per_mac")(Outcome(90.0, 1000, 1000)) == 60.0

task = gs.task("stripes")
recipe = gs.Recipe(epochs=3, learning_rate=0.05)
trained = gs.train(changed, task.split("train"), task.split("validation"), recipe)
assert trained.accuracy is not None and trained.accuracy > 60.0

target = load_target("jetson-nano-gpu")
assert target.cuda is not None and target.cuda.arch == "sm_53"

report = gs.cost(changed, device="jetson-nano-gpu:fp16:5W")
assert report.latency.low < report.latency_ms < report.latency.high and report.energy_mj > 0.0
assert report.latency_ms > gs.cost(changed, device="jetson-nano-gpu:fp16").latency_ms

print("all plug-ins work")
