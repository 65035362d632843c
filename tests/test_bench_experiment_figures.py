"""What docs/results.md says of an experiment: tables, goals and the plot, of whole runs and of runs in pieces."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import results
from compile_figures import Figure
from experiment_figures import experiment_about, experiment_figures
from experiment_plot import experiment_plot

Found = dict[str, Any]


def network(name: str, kind: str, accuracy: float, params: int, macs: int, **more: object) -> Found:
    return {
        "name": name,
        "kind": kind,
        "point": None,
        "seed": None,
        "learning_rate": 0.05,
        "accuracy": accuracy,
        "validation_accuracy": accuracy + 0.5,
        "metrics": {"accuracy": accuracy},
        "params": params,
        "macs": macs,
        "information_density": accuracy / (params / 1e6),
        "netscore": 100.0 - macs / 1e7,
        "latency_ms": macs / 1e7,
        "energy_mj": macs / 1e6,
        "seconds": macs / 1e5,
        **more,
    }


CONTROL = ["A from fresh weights"]


@pytest.fixture
def found() -> Found:
    """A whole experiment in which a goal of D is missed."""
    return {
        "task": "cifar10",
        "title": "CIFAR-10: classification",
        "form": "cpu",
        "about": "Everything was reduced.",
        "metric": "accuracy",
        "image": [3, 32, 32],
        "machine": {"device": "cpu"},
        "recipe": {"epochs": 2, "batch_size": 32, "augmentation": ["flip", "crop"], "examples": 0},
        "sweep": {
            "learning_rates": [0.025, 0.05, 0.1],
            "epochs": 1,
            "examples": 10_000,
            "found": [
                {"name": name, "learning_rate": rate, "accuracy": 40.0 + index}
                for name, order in (("NASNet-A", (0, 2, 1)), ("MobileNet v1", (0, 1, 2)), ("prototype", (1, 2, 0)))
                for rate, index in zip((0.025, 0.05, 0.1), order, strict=True)
            ],
        },
        "device": "tegra-x2-gpu:fp16",
        "reference": "NASNet-A",
        "rows": [
            network("FermiNet D", "ferminet", 66.0, 20_000, 10_000_000, point="D", seed=7),
            network("FermiNet A", "ferminet", 68.01, 50_000, 20_000_000, point="A", seed=12),
            network("NASNet-A (2 @ 384)", "baseline", 68.0, 1_000_000, 100_000_000),
            network("MobileNet v1", "baseline", 63.0, 3_217_226, 46_384_128),
            network(CONTROL[0], "control", 61.0, 50_000, 20_000_000, point="A"),
            network("ResNet-20", "prototype", 70.0, 269_722, 40_551_040),
        ],
        "published": [{"name": "MobileNet v1", "accuracy": 92.1, "epochs": 200, "source": "a | b"}],
        "goals": {
            "against": "best baseline",
            "points": {
                "A": {"accuracy_within": 0.0, "density": 12, "macs": 4.5, "netscore": 7.5},
                "D": {"accuracy_within": 1.5, "density": 60, "macs": None},
            },
            "inferences_per_joule": {"A": None, "D": 11},
        },
        "family": {
            "point": "A",
            "recipe": "1 epoch of 10,000 images",
            "networks": [
                {
                    "seed": 1000 + index,
                    "architecture_hash": f"{index:016x}",
                    "params": 20_000 + index,
                    "macs": 9_000_000 + 100_000 * index,
                    "accuracy": 60.0 + index % 2,
                    "feasible": True,
                }
                for index in range(16)
            ],
        },
        "sharing": {
            "recipe": "1 epoch of 20,000 images",
            "networks": [
                {"seed": 10_000 + index, "macs": 1_000 + index, "params": 10, "shared": 40.0, "alone": 50.0 + index}
                for index in range(3)
            ],
            "tau": {"tau": 0.7, "low": 0.5, "high": 0.9},
            "tau_macs": {"tau": 0.3, "low": 0.1, "high": 0.5},
        },
        "cost": {
            "prototype_seconds": 100.0,
            "shared_seconds": 150.0,
            "search_seconds": 50.0,
            "synthesis_seconds": 200.0,
            "ratio": 2.0,
        },
        "artifact": {
            "name": "A",
            "rows": [
                {
                    "target": "x86-64-v3",
                    "how": "ran natively",
                    "difference": 3e-7,
                    "tolerance": 1e-4,
                    "artifact_bytes": 131_072,
                    "verified": True,
                    "reason": None,
                }
            ],
        },
    }


def figure(found: Found, start: str) -> Figure:
    (only,) = [each for each in experiment_figures(found) if each.title.startswith(start)]
    return only


def row(figure: Figure, start: str) -> list[str]:
    (only,) = [list(cells) for cells in figure.rows if cells[0].startswith(start)]
    return only


def notes(found: Found, start: str = "networks") -> str:
    return "\n".join(figure(found, start).notes)


def at(found: Found, name: str) -> Found:
    (only,) = [each for each in found["rows"] if each["name"] == name]
    assert isinstance(only, dict)
    return only


# Whole runs.


def test_a_whole_run_has_every_table_and_nothing_unmeasured(found: Found) -> None:
    figures = experiment_figures(found)
    assert [each.title.split()[0] for each in figures] == [
        "networks",
        "learning",
        "published",
        "16",
        "weight",
        "cost",
        "FermiNet",
    ]
    for each in figures:
        assert all(len(cells) == len(each.columns) for cells in each.rows)
        assert not any("not measured yet" in note.lower() for note in each.notes)
    assert experiment_about(found) == (
        "Everything was reduced.\n\nForm `cpu`; trained on `cpu`; images 3x32x32;"
        " recipe: epochs 2, batch size 32, augmentation flip + crop, examples all."
    )


def test_networks_come_in_order_with_ratios_for_ferminets_only(found: Found) -> None:
    shown = figure(found, "networks")
    names = [cells[0] for cells in shown.rows]
    assert names == [
        "NASNet-A (2 @ 384)",
        "MobileNet v1",
        "ResNet-20",
        "FermiNet A, seed 12",
        "FermiNet D, seed 7",
        *CONTROL,
    ]
    assert row(shown, "NASNet-A")[1:] == [
        *("68.00", "1,000,000", "100,000,000", "68.00", "90.00", "10.00", "100.0", "10.00"),
        *("", "", ""),
    ]
    assert row(shown, "FermiNet D")[-3:] == ["48.53x", "1/10.00", "+9.00"]


def test_goals_are_told_with_what_was_measured(found: Found) -> None:
    told = figure(found, "networks").notes
    best = "the best baseline (NASNet-A (2 @ 384), 68.00%)"
    assert list(told[:7]) == [
        f"yes: FermiNet A: accuracy 68.01%, 0.01 points above {best}; not below it",
        "yes: FermiNet A: 20.00 times the information density of NASNet-A (2 @ 384), at least 12",
        "yes: FermiNet A: 5.00 times fewer MACs than NASNet-A (2 @ 384), at least 4.5",
        "yes: FermiNet A: NetScore +8.00 against NASNet-A (2 @ 384), at least +7.5",
        f"NO: FermiNet D: accuracy 66.00%, 2.00 points below {best}; at most 1.5 below",
        "NO: FermiNet D: 48.53 times the information density of NASNet-A (2 @ 384), at least 60",
        "NO: FermiNet D: 10.00 times the inferences a joule of NASNet-A (2 @ 384), at least 11",
    ]
    assert not any(note.startswith(("yes", "NO")) for note in told[7:])


def test_accuracy_may_be_held_against_the_reference(found: Found) -> None:
    at(found, "MobileNet v1")["accuracy"] = 80.0
    assert "NO: FermiNet A: accuracy" in notes(found)
    found["goals"]["against"] = "reference"
    assert "yes: FermiNet A: accuracy" in notes(found) and "above the reference (NASNet-A (2 @ 384)" in notes(found)


def test_learning_rates_show_the_best_and_whether_it_is_at_an_edge(found: Found) -> None:
    shown = figure(found, "learning rates: validation accuracy [%] after 1 epoch of 10,000 images")
    assert row(shown, "NASNet-A (2 @ 384)") == [
        *("NASNet-A (2 @ 384)", "40.00", "**42.00**", "41.00"),
        *("0.05", "68.50", "1,000"),
    ]
    assert row(shown, "ResNet-20")[1:4] == ["41.00", "**42.00**", "40.00"], "the sweep calls it the prototype"
    assert row(shown, "FermiNet A")[1:] == ["", "", "", "0.05", "68.51", "200.0"]
    assert "Best at the edge of what was tried: MobileNet v1 (0.1)." in shown.notes


def test_published_figures_stand_beside_ours(found: Found) -> None:
    assert figure(found, "published").rows == [["MobileNet v1", "63.00", "2", "92.10", "200", "a \\| b"]]


def test_a_family_tells_its_spread_and_what_is_amiss(found: Found) -> None:
    title = "16 fresh seeds under the requirements of A: 1 epoch of 10,000 images"
    assert figure(found, title).notes == [
        "yes: 16 of 16 meet the requirements",
        "yes: 16 different architectures of 16",
        "Validation accuracy [%]: mean 60.50, standard deviation 0.52, least 60.00, most 61.00.",
    ]
    networks = found["family"]["networks"]
    networks[3]["feasible"] = False
    networks[4]["architecture_hash"] = networks[5]["architecture_hash"]
    assert "NO: 15 of 16 meet" in notes(found, "16") and "NO: 15 different" in notes(found, "16")
    assert row(figure(found, "16"), "1003")[4] == "NO"


def test_tau_and_cost_are_held_against_their_goals(found: Found) -> None:
    assert notes(found, "weight sharing") == (
        "yes: Kendall's tau of shared and stand-alone accuracy 0.70 (95% by bootstrap 0.50 to 0.90), at least 0.6;"
        " of MACs and stand-alone accuracy 0.30"
    )
    assert notes(found, "cost") == "yes: synthesis: 2.00 trainings of the prototype, at most 3"
    assert row(figure(found, "cost"), "training the shared")[1:] == ["150.0", "1.50"]
    found["sharing"]["tau"]["tau"] = 0.59
    found["cost"]["timed"] = {
        "images": 192,
        "repetitions": 5,
        "prototype": {"seconds_per_image": 0.02, "images": 4_000, "start_seconds": 0.5, "starts": 1},
        "shared": {"seconds_per_image": 0.0105, "images": 12_000, "start_seconds": 2.0, "starts": 16},
        "teacher": {"seconds_per_image": 0.0015, "images": 4_000},
    }
    assert "1.50 ms an image for the prototype's look at each of 4,000" in notes(found, "cost")
    assert "10.50 ms an image and 2.00 s a start for the shared weights, times 12,000 and 16" in notes(found, "cost")
    del found["cost"]["timed"]
    found["cost"]["ratio"] = 3.01
    assert notes(found, "weight sharing").startswith("NO: ")
    assert notes(found, "cost") == "NO: synthesis: 3.01 trainings of the prototype, at most 3"


def test_longer_trainings_have_a_column_and_a_tau_of_their_own(found: Found) -> None:
    found["alone"] = {
        "recipe": "2 epochs of all images",
        "seeds": 3,
        "networks": [{"seed": 10_000 + index, "alone": 60.0 + index} for index in range(3)],
        "tau": {"tau": 0.5, "low": 0.4, "high": 0.6},
        "tau_macs": {"tau": 0.2, "low": 0.1, "high": 0.3},
        "tau_alone": 0.65,
        "tau_shorter": {"tau": 0.8, "low": 0.7, "high": 0.9},
    }
    assert "by itself: 1 epoch of 20,000 images; longer: 2 epochs of all images" in figure(found, "weight").title
    assert row(figure(found, "weight"), "10002")[-2:] == ["52.00", "62.00"]
    told = notes(found, "weight")
    assert "yes: Kendall's tau of shared and stand-alone accuracy 0.70" in told
    assert "NO: trained longer: Kendall's tau of shared and stand-alone accuracy 0.50" in told
    assert "Longer: the mean of 3 trainings" in told and "training and another 0.65" in told
    assert "Kendall's tau of what a network reaches by itself and longer 0.80." in told


def test_other_shared_weights_have_a_column_and_a_tau_of_their_own(found: Found) -> None:
    found["ranking"] = {
        "epochs": 12,
        "networks": [{"seed": 10_000 + index, "shared": 70.0 + index} for index in range(3)],
        "tau": {"tau": 0.61, "low": 0.4, "high": 0.8},
        "tau_loss": {"tau": 0.64, "low": 0.4, "high": 0.8},
    }
    assert figure(found, "weight").title.endswith("; other shared weights: 12 epochs for no requirements")
    assert figure(found, "weight").columns[-1] == "other shared weights"
    assert row(figure(found, "weight"), "10002")[-2:] == ["52.00", "72.00"]
    told = notes(found, "weight")
    assert "yes: other shared weights: Kendall's tau of shared and stand-alone accuracy 0.61 (95%" in told
    assert "at least 0.6; of shared loss and stand-alone accuracy 0.64" in told
    assert "trained longer" not in told
    found["ranking"]["longer"] = {
        "tau": {"tau": 0.59, "low": 0.4, "high": 0.8},
        "tau_loss": {"tau": 0.62, "low": 0.4, "high": 0.8},
    }
    told = notes(found, "weight")
    assert "NO: the same, trained longer: Kendall's tau" in told and "shared loss and stand-alone accuracy 0.62" in told


def test_an_artifact_is_verified_or_not_or_was_not_run(found: Found) -> None:
    rows = found["artifact"]["rows"]
    assert notes(found, "FermiNet A") == "yes: 1 of 1 targets verified"
    assert figure(found, "FermiNet A").rows[0][:5] == ["`x86-64-v3`", "ran natively", "3.0e-07", "1e-04", "131,072"]
    more = {"dtype": "float32", "difference": None, "verified": False}
    rows.append({**rows[0], **more, "target": "tegra-x2-cpu", "how": "only compiled", "reason": "no\nQEMU"})
    told = notes(found, "FermiNet A")
    assert "not measured yet: 1 of 2 targets verified" in told and "Not run: tegra-x2-cpu float32." in told
    assert figure(found, "FermiNet A").rows[1][-2:] == ["–", "no QEMU"]
    rows.append({**rows[0], **more, "target": "onnxruntime", "how": "failed to run", "error": 0.2})
    assert "NO: 1 of 3 targets verified; not: onnxruntime float32" in notes(found, "FermiNet A")
    assert "error" in figure(found, "FermiNet A").columns


def test_other_metrics_have_columns_and_the_main_one_is_not_shown_twice(found: Found) -> None:
    for each in found["rows"]:
        each["metrics"] = {"pixel_accuracy": each["accuracy"], "mean_iou": each["accuracy"] - 20.0}
    del found["metric"]
    assert list(figure(found, "networks").columns[:4]) == ["network", "test pixel accuracy %", "mean IoU %", "params"]
    assert row(figure(found, "networks"), "NASNet-A")[1:3] == ["68.00", "48.00"]
    found["metric"] = "overall accuracy"
    assert list(figure(found, "networks").columns[:3]) == ["network", "test overall accuracy %", "mean IoU %"]


# Runs in pieces.


@pytest.mark.parametrize("part", ["sweep", "published", "family", "sharing", "cost", "artifact", "goals", "recipe"])
@pytest.mark.parametrize("how", ["missing", "null", "empty"])
def test_a_part_that_was_not_run_is_left_out_and_told(found: Found, part: str, how: str) -> None:
    whole = [each.title for each in experiment_figures(found)]
    kept = {key: value for key, value in found.items() if key != part}
    kept |= {"null": {part: None}, "empty": {part: type(found[part])()}}.get(how, {})
    left = [each.title for each in experiment_figures(kept)]
    tables = {"sweep", "published", "family", "sharing", "cost", "artifact"}
    assert len(whole) - len(left) == (part in tables) and set(left) <= set(whole)
    assert ("Not measured yet: " in notes(kept)) == (part in tables - {"published"})


def test_no_rows_at_all_is_told(found: Found, tmp_path: Path) -> None:
    started = {"task": "persons", "reference": "SSD", "goals": found["goals"]}
    (only,) = experiment_figures(started)
    assert only.rows == [["not measured yet", *[""] * (len(only.columns) - 1)]]
    assert "not measured yet: FermiNet D: how many times the information density of SSD, at least 60" in only.notes
    assert (
        "Not measured yet: the baselines; the prototype; the FermiNets; one of them from fresh weights; learning rates;"
        in only.notes[-1]
    )
    assert not experiment_plot(started, tmp_path / "plot.svg") and not list(tmp_path.iterdir())
    assert experiment_about({"task": "persons"}) == ""


def test_networks_without_test_figures_are_told(found: Found) -> None:
    for name in ("MobileNet v1", "FermiNet A"):
        for key in ("accuracy", "metrics", "information_density", "netscore", "latency_ms", "energy_mj"):
            at(found, name)[key] = None
    del at(found, "FermiNet A")["params"], at(found, "FermiNet A")["macs"]
    told = notes(found)
    assert row(figure(found, "networks"), "FermiNet A")[1:] == ["–"] * 11
    assert "not measured yet: FermiNet A: accuracy against the best baseline; not below it" in told
    assert "not measured yet: FermiNet A: NetScore against NASNet-A (2 @ 384), at least +7.5" in told
    assert "2.00 points below the best baseline so far (NASNet-A" in told
    assert "Not measured yet: test accuracy of MobileNet v1, FermiNet A." in told and "–: not measured yet." in told


def test_operating_points_and_a_reference_that_are_not_there_are_told(found: Found) -> None:
    found["rows"] = [each for each in found["rows"] if each["name"] not in ("FermiNet D", "NASNet-A (2 @ 384)")]
    told = notes(found)
    assert "Not measured yet: FermiNet D; NASNet-A, with which FermiNets are compared." in told
    assert "not measured yet: FermiNet A: how many times fewer MACs than NASNet-A, at least 4.5" in told
    assert row(figure(found, "networks"), "FermiNet A")[-3:] == ["–", "–", "–"]


def test_half_a_family_is_told(found: Found) -> None:
    found["family"]["networks"] = found["family"]["networks"][:10]
    found["family"]["networks"][0]["accuracy"] = None
    assert "Not measured yet: 7 of 16 networks." in notes(found, "10 fresh seeds")
    assert row(figure(found, "10 fresh seeds"), "1000")[3] == "–"


def test_sharing_and_cost_without_their_verdicts_are_told(found: Found) -> None:
    found["sharing"] = {"networks": found["sharing"]["networks"]}
    found["cost"] = {"prototype_seconds": 100.0}
    assert notes(found, "weight").startswith("not measured yet: Kendall's tau")
    assert notes(found, "cost").startswith("not measured yet: synthesis: trainings of the prototype, at most 3")
    assert row(figure(found, "cost"), "the search")[1:] == ["–", "–"]


# The plot and the page.


def words(path: Path) -> list[str]:
    texts = ElementTree.parse(path).getroot().iter("{http://www.w3.org/2000/svg}text")
    return ["".join(text.itertext()) for text in texts]


def test_the_plot_names_every_network_in_both_panels(found: Found, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert experiment_plot(found, tmp_path / "plot.svg")
    told = words(tmp_path / "plot.svg")
    for name in ("NASNet-A (2 @ 384)", "MobileNet v1", "ResNet-20", "A", "D"):
        assert told.count(name) == 2
    assert {"CIFAR-10: classification", "million MACs", "million parameters", "test accuracy [%]"} <= set(told)
    assert "16 fresh seeds, trained shortly: validation" in told


def test_equal_plots_are_equal_files(found: Found, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name in ("one.svg", "two.svg"):
        assert experiment_plot(copy.deepcopy(found), tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert "<dc:date>" not in (tmp_path / "one.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["baseline", "prototype", "ferminet"])
def test_a_plot_of_one_kind_alone_is_drawn(found: Found, kind: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found["rows"] = [each for each in found["rows"] if each["kind"] == kind][:1]
    del found["family"], found["title"]
    assert experiment_plot(found, tmp_path / "plot.svg")
    assert "cifar10" in words(tmp_path / "plot.svg")


def test_the_page_shows_the_experiments_that_are_there(
    found: Found, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "docs" / "results"
    folder.mkdir(parents=True)
    (folder / "experiment-cifar10.json").write_text(json.dumps(found), encoding="utf-8")
    (folder / "experiment-persons.json").write_text(json.dumps({"task": "persons"}), encoding="utf-8")
    (folder / "experiment-camvid-quick.json").write_text(json.dumps(found), encoding="utf-8")
    pages = []
    for _ in range(2):
        assert results.main() == 0
        pages.append((tmp_path / "docs" / "results.md").read_text(encoding="utf-8"))
    assert pages[0] == pages[1]
    assert "## 16. Classification: CIFAR-10\n" in pages[0] and "## 18. Detection: persons\n" in pages[0]
    assert "CamVid" not in pages[0]
    assert "](results/experiment-cifar10.svg)\n\n### Networks on the test part\n" in pages[0]
    assert "- NO: FermiNet D: accuracy 66.00%" in pages[0]
    assert [path.name for path in folder.glob("*.svg")] == ["experiment-cifar10.svg"]
