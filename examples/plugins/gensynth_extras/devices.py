"""A device: a machine whose latency and energy are modelled, under a name. Its file stands beside this module."""

from __future__ import annotations

from pathlib import Path

from gensynth.passes.cost import load_device, register_device

JETSON_NANO = register_device(load_device(Path(__file__).with_name("jetson-nano-gpu.toml")))
