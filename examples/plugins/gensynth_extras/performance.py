"""A performance function: from what is known of a network to one number, the larger the better."""

from __future__ import annotations

import math

from gensynth.synth.performance import Outcome


def accuracy_per_mac(outcome: Outcome) -> float:
    """Accuracy [percent] less 10 for each tenfold of MACs."""
    return outcome.accuracy - 10.0 * math.log10(max(1, outcome.macs))
