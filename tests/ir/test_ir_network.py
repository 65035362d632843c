"""Networks in files: weights beside the text, and every fault they can have."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from gensynth.ir import (
    GenSynthError,
    Network,
    UsageError,
    WeightsError,
    check_weights,
    initialize,
    load_network,
    load_weights,
    parameters_of,
    parse,
    save_network,
    save_weights,
)

TEXT = """gensynth 1
network @net(%image: f32[N, 3, 8, 8]) -> f32[N, 10] {
  %stem.conv = conv2d(%image) {channels=4, kernel=3, padding=same, bias=true}
  %stem.norm = batch_norm(%stem.conv)
  %pool = global_avg_pool(%stem.norm)
  %logits = dense(%pool) {features=10}
  return %logits
}
"""

GENERATOR = (
    TEXT.replace("channels=4", "channels=choice<w>[4, 8]")
    .replace(
        "  %pool",
        "  %c = choose<c>(%stem.norm) { one(%a) { yield %a } two(%a) {"
        " %b = conv2d(%a) {channels=choice<w>, kernel=1} yield %b } }\n  %pool",
    )
    .replace("global_avg_pool(%stem.norm)", "global_avg_pool(%c)")
)


@pytest.fixture
def network():
    graph = parse(TEXT)
    return Network(graph, initialize(graph, seed=1))


def test_parameters_carry_names_shapes_and_whether_they_train(network):
    assert {name: parameter.shape for name, parameter in parameters_of(network.graph)} == {
        "stem.conv.weight": (4, 3, 3, 3),
        "stem.conv.bias": (4,),
        "stem.norm.scale": (4,),
        "stem.norm.bias": (4,),
        "stem.norm.mean": (4,),
        "stem.norm.variance": (4,),
        "logits.weight": (10, 4),
        "logits.bias": (10,),
    }
    assert not dict(parameters_of(network.graph))["stem.norm.mean"].trainable


def test_a_generator_has_the_weights_of_every_alternative_at_its_largest():
    shapes = {name: parameter.shape for name, parameter in parameters_of(parse(GENERATOR))}
    assert shapes["stem.conv.weight"] == (8, 3, 3, 3)
    assert shapes["c[two]/b.weight"] == (8, 8, 1, 1)
    assert shapes["logits.weight"] == (10, 8)


def test_a_weight_is_drawn_from_the_seed_and_its_own_name(network):
    again = initialize(network.graph, seed=1)
    assert all((again[name] == array).all() for name, array in network.weights.items())
    longer = initialize(parse(TEXT.replace("  %pool", "  %act = relu(%stem.norm)\n  %pool")), seed=1)
    assert (longer["stem.conv.weight"] == network.weights["stem.conv.weight"]).all()
    assert (initialize(network.graph, seed=2)["stem.conv.weight"] != network.weights["stem.conv.weight"]).any()


def test_a_network_comes_back_from_its_files(network, tmp_path):
    save_network(network, tmp_path / "net.gsir")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.gsir", "net.safetensors"]
    again = load_network(tmp_path / "net.gsir")
    assert again.graph == network.graph
    assert again.hash == network.hash
    assert all((again.weights[name] == array).all() for name, array in network.weights.items())


def test_a_network_without_weights_has_only_its_text(network, tmp_path):
    save_network(Network(network.graph), tmp_path / "net.gsir")
    assert [path.name for path in tmp_path.iterdir()] == ["net.gsir"]
    assert load_network(tmp_path / "net.gsir").weights is None


def test_weights_of_another_network_are_not_left_beside_a_text(network, tmp_path):
    save_network(network, tmp_path / "net.gsir")
    with pytest.raises(GenSynthError, match="weights of another network"):
        save_network(Network(network.graph), tmp_path / "net.gsir")


def test_a_text_is_saved_under_gsir_only(network, tmp_path):
    with pytest.raises(UsageError, match=r"does not end in \.gsir"):
        save_network(network, tmp_path / "net.txt")


FAULTS = {
    "stem.conv.bias is missing": lambda weights: weights.pop("stem.conv.bias"),
    "logits.weight has shape [10, 5], the graph wants [10, 4]": lambda weights: weights.update(
        {"logits.weight": np.zeros((10, 5), np.float32)}
    ),
    "logits.bias is float64, the graph wants float32": lambda weights: weights.update({"logits.bias": np.zeros(10)}),
    "logits.biass is no weight of @net (did you mean 'logits.bias'?)": lambda weights: weights.update(
        {"logits.biass": np.zeros(10, np.float32)}
    ),
}


@pytest.mark.parametrize("message", FAULTS)
def test_weights_that_do_not_fit_are_named(network, tmp_path, message):
    weights = dict(network.weights)
    FAULTS[message](weights)
    with pytest.raises(WeightsError) as caught:
        check_weights(network.graph, weights)
    assert message in str(caught.value)
    save_file({name: np.ascontiguousarray(array) for name, array in weights.items()}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError) as caught:
        load_weights(tmp_path / "w.safetensors", network.graph)
    assert message in str(caught.value)
    assert "w.safetensors" in str(caught.value)
    with pytest.raises(WeightsError):
        save_network(Network(network.graph, weights), tmp_path / "net.gsir")
    assert not (tmp_path / "net.gsir").exists()


def test_many_faults_are_counted_not_listed(network):
    with pytest.raises(WeightsError, match="and 3 more"):
        check_weights(network.graph, {})


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: content[:4],
        lambda content: b"",
        lambda content: b"\xff" * 8 + content[8:],
        lambda content: content[:8] + b"{" * 40 + content[48:],
        lambda content: content + b"more",
    ],
)
def test_a_damaged_weights_file_is_refused(network, tmp_path, damage):
    path = tmp_path / "w.safetensors"
    save_weights(network.weights, path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(WeightsError, match="no safetensors file"):
        load_weights(path, network.graph)


def test_weights_in_bfloat16_are_refused_with_a_message_of_ours(network, tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file as save_torch

    save_torch(
        {name: torch.from_numpy(array).bfloat16() for name, array in network.weights.items()},
        tmp_path / "w.safetensors",
    )
    with pytest.raises(WeightsError):
        load_weights(tmp_path / "w.safetensors", network.graph)


def test_missing_and_unreadable_files_are_named(network, tmp_path):
    with pytest.raises(UsageError, match="cannot read"):
        load_network(tmp_path / "none.gsir")
    with pytest.raises(UsageError, match="cannot read"):
        load_network(tmp_path)
    (tmp_path / "bytes.gsir").write_bytes(b"gensynth 1\n\xff\xfe")
    with pytest.raises(UsageError, match="byte 11 is not UTF-8"):
        load_network(tmp_path / "bytes.gsir")
    (tmp_path / "net.gsir").write_text(TEXT)
    with pytest.raises(WeightsError, match="cannot read weights"):
        load_network(tmp_path / "net.gsir", tmp_path / "none.safetensors")
