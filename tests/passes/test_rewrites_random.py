"""Rules on random networks over all ops: whatever the spot, the network stays valid and exact rules stay exact."""

from __future__ import annotations

import numpy as np
import pytest
from random_graphs import random_network

from gensynth.backends.reference import run_reference
from gensynth.ir import Array, Graph, Network, check_weights, initialize, verify
from gensynth.passes import Carry, Rule, parse_pipeline

RULES = (
    "bottleneck-conv",
    "bypass-block{plain=true}",
    "collapse-block",
    "factorize-conv",
    "fold-batch-norm",
    "group-conv",
    "low-rank-conv",
    "pool-early",
    "replace-activation{to=relu6}",
    "scale-width",
    "separate-conv{normalize=true}",
    "shrink-kernel{size=2}",
    "squeeze-excite",
)


def inputs(graph: Graph) -> dict[str, Array]:
    random = np.random.default_rng(0)
    return {value.name: random.standard_normal(value.type.sizes(2)).astype(np.float32) for value in graph.inputs}


@pytest.mark.parametrize("pipeline", RULES)
def test_rules_hold_on_random_networks(pipeline: str) -> None:
    (rule,) = parse_pipeline(pipeline)
    assert isinstance(rule, Rule)
    applied = 0
    for seed in range(150):
        graph = random_network(seed)
        network = Network(graph, initialize(graph, seed))
        result = rule.run(network)
        if not result.changed:
            continue
        applied += 1
        after = result.network
        verify(after.graph)
        assert after.weights is not None
        check_weights(after.graph, after.weights)
        assert [value.type for value in after.graph.outputs] == [value.type for value in graph.outputs]
        offered = rule.offer(network).network
        verify(offered.graph)
        assert offered.weights is not None
        check_weights(offered.graph, offered.weights)
        if rule.carries is Carry.EXACT:
            for old, new in zip(
                run_reference(network, inputs(graph)), run_reference(after, inputs(graph)), strict=True
            ):
                np.testing.assert_allclose(new, old, rtol=1e-3, atol=1e-4 * max(1e-3, float(np.abs(old).max())))
    assert applied, "no random network has a spot: the test says nothing"
