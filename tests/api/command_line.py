"""What a command gives, and the network and generator that it is tried on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Outcome:
    """What a command gave."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]

TINY = """gensynth 1

network @tiny(%image: f32[N, 1, 8, 8]) -> f32[N, 10] {
  %conv   = conv2d(%image) {channels=8, kernel=3, padding=same}
  %norm   = batch_norm(%conv)
  %act    = relu(%norm)
  %pool   = global_avg_pool(%act)
  %logits = dense(%pool) {features=10}
  return %logits
}
"""

OPEN = """gensynth 1

network @open(%image: f32[N, 1, 8, 8]) -> f32[N, 10] {
  %conv   = conv2d(%image) {channels=choice<width>[4: 0.00, 8: 0.50], kernel=choice<kernel>[1, 3], padding=same}
  %act    = relu(%conv)
  %pool   = global_avg_pool(%act)
  %logits = dense(%pool) {features=10}
  return %logits
}
"""
