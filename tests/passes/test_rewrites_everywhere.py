"""Every rule on small forms of every prototype: run, and offered as a choice."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest

from gensynth.backends.reference import run_reference
from gensynth.ir import Array, Network, check_weights, initialize, verify
from gensynth.passes import Carry, Rule, all_passes, parse_pipeline, run_pipeline
from gensynth.synth.prototypes import ArgumentValue, prototype, prototypes

RULES = (
    "bottleneck-conv",
    "bypass-block",
    "bypass-block{plain=true}",
    "collapse-block",
    "factorize-conv",
    "fold-batch-norm",
    "group-conv",
    "low-rank-conv",
    "pool-early",
    "replace-activation{to=hard_swish}",
    "scale-width",
    "separate-conv",
    "separate-conv{normalize=true}",
    "shrink-kernel{size=1}",
    "squeeze-excite",
)
SMALL: dict[str, tuple[str, dict[str, ArgumentValue]]] = {
    "lenet": ("lenet", {}),
    "resnet": ("resnet", {"depth": 14, "width": 4, "image": (1, 8, 8)}),
    "resnet with padded shortcuts": ("resnet", {"depth": 8, "width": 4, "shortcut": "pad", "image": (3, 16, 16)}),
    "mobilenet 1": ("mobilenet", {"version": 1, "width": 0.25}),
    "mobilenet 2": ("mobilenet", {"width": 0.25, "image": (1, 16, 16)}),
    "shufflenet 1": ("shufflenet", {"version": 1, "groups": 3, "width": 0.25, "image": (1, 16, 16)}),
    "shufflenet 2": ("shufflenet", {"width": 0.5, "image": (1, 16, 16)}),
    "squeezenet": ("squeezenet", {"image": (1, 16, 16)}),
    "nasnet": ("nasnet-a", {"cells": 1, "filters": 48, "image": (1, 16, 16)}),
    "alexnet": ("alexnet", {"width": 0.1, "image": (1, 67, 67)}),
    "vgg": ("vgg", {"depth": 11, "width": 0.05, "image": (1, 32, 32)}),
    "googlenet": ("googlenet", {"width": 0.1, "image": (1, 32, 32)}),
    "detectnet": ("detectnet", {"width": 0.1, "image": (1, 32, 32)}),
    "refinenet": ("refinenet", {"depth": 18, "width": 4, "features": 4, "image": (1, 13, 17)}),
    "inception": ("inception", {"width": 0.1, "image": (1, 75, 75)}),
    "fbnet": ("fbnet", {"arch": "8123456783765432106140", "image": (1, 8, 8)}),
    "nas-bench-201": (
        "nas-bench-201",
        {
            "arch": "|nor_conv_3x3~0|+|none~0|avg_pool_3x3~1|+|skip_connect~0|none~1|nor_conv_1x1~2|",
            "cells": 1,
            "channels": 4,
            "image": (1, 8, 8),
        },
    ),
}


@cache
def network_of(key: str) -> Network:
    name, arguments = SMALL[key]
    graph = prototype(name, **arguments).graph
    return Network(graph, initialize(graph))


@cache
def answer_of(key: str) -> tuple[Array, tuple[Array, ...]]:
    network = network_of(key)
    x = np.random.default_rng(0).standard_normal(network.graph.inputs[0].type.sizes(1)).astype(np.float32)
    return x, run_reference(network, x)


def test_every_prototype_and_every_rule_is_walked() -> None:
    assert {name for name, _ in SMALL.values()} == {item.name for item in prototypes()}
    built_in = {cls.name for cls in all_passes() if issubclass(cls, Rule) and cls.__module__.startswith("gensynth.")}
    assert {rule.partition("{")[0] for rule in RULES} == built_in


@pytest.mark.parametrize("pipeline", RULES)
@pytest.mark.parametrize("key", SMALL)
def test_a_rule_leaves_a_valid_network_wherever_it_applies(key: str, pipeline: str) -> None:
    network = network_of(key)
    (rule,) = parse_pipeline(pipeline)
    assert isinstance(rule, Rule)
    result = rule.run(network)
    fit = [verdict for verdict in rule.why(network) if verdict.reason is None]
    assert result.changed == bool(fit)
    if not result.changed:
        return
    verify(result.network.graph)
    assert result.network.weights is not None
    check_weights(result.network.graph, result.network.weights)
    assert [value.type for value in result.network.graph.outputs] == [value.type for value in network.graph.outputs]
    if rule.carries is Carry.EXACT:
        x, answers = answer_of(key)
        for found, wanted in zip(run_reference(result.network, x), answers, strict=True):
            assert np.abs(found - wanted).max() < 1e-4 * np.abs(wanted).max()


@pytest.mark.parametrize("pipeline", RULES)
def test_an_offered_rule_gives_either_the_original_or_the_rewritten(pipeline: str) -> None:
    network = network_of("resnet")
    (rule,) = parse_pipeline(pipeline)
    assert isinstance(rule, Rule)
    if not any(verdict.reason is None for verdict in rule.why(network)):
        assert not rule.offer(network).changed
        return
    applied = rule.run(network).network
    for logit, expected in ((-40.0, network), (40.0, applied)):
        generator = rule.offer(network, logit=logit).network
        verify(generator.graph)
        assert generator.weights is not None
        check_weights(generator.graph, generator.weights)
        assert run_pipeline(generator, "materialize{seed=3}").hash == run_pipeline(expected, "canonicalize").hash


@pytest.mark.parametrize("pipeline", RULES)
@pytest.mark.parametrize("key", ["resnet", "mobilenet 2"])
def test_pytorch_computes_what_the_reference_does_after_a_rule(key: str, pipeline: str) -> None:
    import torch

    from gensynth.backends.torch import to_torch

    (rule,) = parse_pipeline(pipeline)
    network = rule.run(network_of(key)).network
    x, _ = answer_of(key)
    torch.set_num_threads(1)
    with torch.no_grad():
        found = to_torch(network).eval()(torch.from_numpy(x)).numpy()
    (wanted,) = run_reference(network, x)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * float(np.abs(wanted).max()))
