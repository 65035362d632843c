"""The command bench/search.py: its statistics, its arguments, and a whole run on a table of a tiny program."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
import search
from compile_figures import Figure
from search_figures import search_figures
from search_runs import ABLATIONS, CARRIED, OURS, methods_of
from search_statistics import hypervolume, interval, paired, summarize

PROGRAM = """gensynth 1

network @open(%image: f32[N, 1, 8, 8]) -> f32[N, 10] {
  %conv1  = conv2d(%image) {channels=choice<width>[2, 3, 4, 6, 8], kernel=choice<kernel>[1, 3], padding=same}
  %act1   = relu(%conv1)
  %conv2  = conv2d(%act1) {channels=choice<wide>[4, 6, 8], kernel=choice<second>[1, 3], padding=same}
  %act2   = relu(%conv2)
  %pool   = global_avg_pool(%act2)
  %logits = dense(%pool) {features=10}
  return %logits
}
"""

QUICK = ["--methods", "inquisitor,random", "--budgets", "2,4", "--probes", "8", "--family", "4", "--repetitions", "2"]


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Arguments that name a tiny program and a table of all its networks."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GENSYNTH_DATA", raising=False)
    (tmp_path / "open.gsir").write_text(PROGRAM, encoding="utf-8")
    lines = ["net,accuracy,other,millijoules,seconds"]
    for width, kernel, wide, second in itertools.product((2, 3, 4, 6, 8), (1, 3), (4, 6, 8), (1, 3)):
        accuracy = 40 + 3 * width + 4 * kernel + wide + 2 * second
        lines.append(
            f"{width}:{kernel}:{wide}:{second},{accuracy},{accuracy - 20},{width * kernel + wide},{999 * width}"
        )
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    files = ["--program", str(tmp_path / "open.gsir"), "--table", str(tmp_path / "table.csv"), "--key", "net"]
    return ["--task", "table", *files, "--metric", "accuracy", "--processes", "1"]


# Statistics.


def test_an_interval_is_students() -> None:
    found = interval([1.0, 2.0, 3.0])
    half = 4.302653 * 1.0 / math.sqrt(3)
    assert found == {"mean": 2.0, "low": pytest.approx(2 - half), "high": pytest.approx(2 + half)}
    assert interval([5.0]) == {"mean": 5.0, "low": None, "high": None}


def test_paired_tests_agree_with_scipy() -> None:
    from scipy import stats

    random = np.random.default_rng(0)
    theirs = random.normal(0.0, 1.0, 40)
    ours = theirs + random.normal(0.3, 1.0, 40)
    found = paired(ours.tolist(), theirs.tolist())
    assert found["p"] == pytest.approx(stats.ttest_rel(ours, theirs, alternative="greater").pvalue)
    assert found["wilcoxon"] == pytest.approx(stats.wilcoxon(ours, theirs, alternative="greater").pvalue)
    assert found["difference"] == pytest.approx((ours - theirs).mean())


@pytest.mark.parametrize(
    ("ours", "p", "wilcoxon", "ahead", "level"),
    [
        ([1.0, 2.0, 3.0], 1.0, 1.0, 0.0, 1.0),
        ([2.0, 3.0, 4.0], 0.0, 0.125, 1.0, 0.0),
        ([0.0, 1.0, 2.0], 1.0, 1.0, 0.0, 0.0),
        ([1.0, 2.0, 4.0], 0.21132487, 0.5, 1 / 3, 2 / 3),
    ],
)
def test_differences_that_are_all_alike_or_mostly_none_have_p_values(
    ours: list[float], p: float, wilcoxon: float, ahead: float, level: float
) -> None:
    found = paired(ours, [1.0, 2.0, 3.0])
    assert found["p"] == pytest.approx(p)
    assert found["wilcoxon"] == pytest.approx(wilcoxon)
    assert (found["ahead"], found["level"]) == (pytest.approx(ahead), pytest.approx(level))


def test_a_single_repetition_has_no_p_value() -> None:
    assert paired([2.0], [1.0])["p"] is None


def test_a_hypervolume_is_the_share_of_the_area_that_is_dominated() -> None:
    assert hypervolume([100.0], [0.0], 10.0) == 1.0
    assert hypervolume([50.0, 80.0], [2.0, 6.0], 10.0) == pytest.approx((4 * 50 + 4 * 80) / 1000)
    assert hypervolume([50.0, 40.0, 80.0], [2.0, 4.0, 6.0], 10.0) == pytest.approx((4 * 50 + 4 * 80) / 1000)
    assert hypervolume([80.0, 50.0], [10.0, 12.0], 10.0) == 0.0


def test_figures_of_methods_are_paired_by_repetition() -> None:
    def one(best: list[float]) -> dict[str, object]:
        return {"best": best, "probes": 3, "beyond": 0, "overhead_ms": 1.0, "family": None, "carried": None}

    runs = [
        {"methods": {OURS: one([2.0, 5.0]), "random": one([1.0, 5.0])}, "drawn": None},
        {"methods": {OURS: one([4.0, 5.0]), "random": one([2.0, 5.0])}, "drawn": None},
    ]
    found = summarize(runs, (1, 2), 5.0, OURS)["methods"]
    assert found[OURS]["budgets"]["1"]["mean"] == 3.0 and found[OURS]["budgets"]["1"]["regret"] == 2.0
    assert found[OURS]["budgets"]["2"]["found"] == 1.0 and "p" not in found[OURS]["budgets"]["1"]
    assert found["random"]["budgets"]["1"]["difference"] == 1.5 and found["random"]["budgets"]["1"]["ahead"] == 1.0
    assert found["random"]["budgets"]["2"]["p"] == 1.0 and found["random"]["budgets"]["2"]["level"] == 1.0
    assert found["random"]["best"] == [[1.0, 5.0], [2.0, 5.0]]


# Methods.


def test_all_methods_are_all_strategies_and_ablations_are_named() -> None:
    every = methods_of("all", carried=False)
    assert {OURS, "random", "evolution", "local-search"} <= set(every) and every[0] == OURS
    assert CARRIED not in every and CARRIED in methods_of("all", carried=True)
    assert set(methods_of("ablations", carried=True)) == {OURS, CARRIED, *ABLATIONS}
    assert methods_of("random, random,inquisitor", carried=False) == (OURS, "random")


# Runs.


def test_a_run_writes_figures_that_can_be_shown(
    given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.json"
    ceiling = ["--cost", "millijoules", "--ceiling-percentile", "50"]
    prior = ["--prior-metric", "other", "--prior-trainings", "3"]
    assert search.main([*given, *QUICK, *ceiling, *prior, "--json", str(out)]) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert list(found["methods"]) == [OURS, CARRIED, "random"]
    assert found["arguments"]["ceilings"] == [["millijoules", "13.5"]]
    assert 0 < found["feasible"] < found["rows"] == 60
    for method in found["methods"].values():
        assert [len(best) for best in method["best"]] == [2, 2]
        assert all(first <= last <= found["optimum"] for first, last in method["best"])
        assert method["budgets"]["4"]["regret"] >= 0.0 and method["overhead_ms"] > 0.0
    assert found["methods"][OURS]["probes"] <= 8 and found["methods"]["random"]["probes"] == 0
    family = found["methods"][OURS]["family"]
    assert family["least_feasible"] == 1.0 and family["different"]["mean"] == 4.0
    assert 0.0 < family["hypervolume"]["millijoules"]["mean"] < 1.0
    assert found["methods"][OURS]["family"] is not None and found["methods"]["random"]["family"] is None
    figures = search_figures({"mine": found, "table": found, "cifar10": found})
    assert all(isinstance(figure, Figure) and figure.rows for figure in figures) and len(figures) == 6
    assert "yes: every figure equals that of the section cifar10" in [
        note for figure in figures for note in figure.notes
    ]
    printed = capsys.readouterr()
    assert "inquisitor-carried" in printed.out and "2 of 2" in printed.err


def test_what_has_a_ceiling_may_be_counted_by_gensynth(given: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    assert search.main([*given, *QUICK, "--cost", "macs", "--ceiling", "40k", "--json", str(out)]) == 0
    found = json.loads(out.read_text(encoding="utf-8"))
    assert 0 < found["feasible"] < found["rows"] and found["optimum"] < 40 + 3 * 8 + 4 * 3 + 8 + 2 * 3
    assert found["methods"][OURS]["family"]["least_feasible"] == 1.0


def test_runs_with_equal_seeds_are_equal_and_other_seeds_differ(given: list[str], tmp_path: Path) -> None:
    found = []
    for name, seed in (("a", "0"), ("b", "0"), ("c", "7")):
        assert search.main([*given, *QUICK, "--seed", seed, "--json", str(tmp_path / f"{name}.json")]) == 0
        methods = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))["methods"]
        found.append([methods[method]["best"] for method in methods])
    assert found[0] == found[1] != found[2]


@pytest.mark.slow
def test_processes_change_nothing(given: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.setenv(variable, "1")
    found = []
    for processes in ("1", "2"):
        assert search.main([*given, *QUICK, "--processes", processes, "--json", str(tmp_path / "out.json")]) == 0
        methods = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))["methods"]
        found.append([methods[method]["best"] for method in methods])
    assert found[0] == found[1]


# Mistakes.


@pytest.mark.parametrize(
    ("arguments", "says", "hint"),
    [
        (["--metric", "accurac"], "no column 'accurac'", "did you mean 'accuracy'?"),
        (["--metric", "seconds"], "'seconds' holds no accuracies", "another column"),
        (["--methods", "randon"], "unknown method 'randon'", "did you mean 'random'?"),
        (["--methods", "inquisitor-without-carry"], "nothing to carry over", "--prior-metric"),
        (["--methods", "nowhere:Mine"], "cannot import the strategy nowhere:Mine", "package.module:name"),
        (["--budgets", "10,x"], "'x' is no whole number", "--help"),
        (["--repetitions", "0"], "'0' is no whole number", "--help"),
        (["--cost", "millijoules"], "1 times --cost and 0 ceilings", "--ceiling"),
        (["--cost", "millijoule", "--ceiling", "1"], "named 'millijoule'", "did you mean 'millijoules'?"),
        (["--cost", "millijoules", "--ceiling", "much"], "--ceiling much is no number", "millijoules"),
        (["--cost", "millijoules", "--ceiling-percentile", "101"], "'101' is no percentile", "--help"),
        (["--cost", "millijoules", "--ceiling", "0"], "no row meets millijoules <= 0", "raise"),
        (["--cost", "macs", "--ceiling", "3 apples"], "macs has no unit 'apples'", "units"),
        (["--performance", "netscor"], "unknown performance function", "netscore"),
        (["--macs", "seconds"], "--params and --macs go together", "both"),
        (["--stimuli", "nowhere"], "unknown task 'nowhere'", "tasks"),
        (["--stimuli", "photographs"], "images of photographs are [3, 32, 32]", "photographs image=1x8x8"),
        (["--alike", "row"], "no column 'row'", "columns"),
        (["--key", "nett"], "no column 'nett'", "did you mean 'net'?"),
        (["--table", "missing.csv"], "cannot read missing.csv", ".csv"),
        (["--program", "missing.gsir"], "cannot read missing.gsir", ".gsir"),
        (["--prior", "missing.json"], "cannot read missing.json", "experience.json"),
        (["--json", "no/where/out.json"], "there is no folder", "make it"),
        (["--sections", "cifar10"], "need --data", "folder"),
        (["--data", "nowhere"], "nowhere holds no nb201_acc.csv.gz", "--data"),
        (["--data", "nowhere", "--sections", "cifar"], "unknown section 'cifar'", "did you mean 'cifar10'?"),
        (["--task", "nas-bench-201"], "--program is not for --task nas-bench-201", "--task table"),
        (["--bogus"], "unrecognized arguments: --bogus", "--help"),
    ],
)
def test_mistakes_are_told_in_a_line_with_a_hint(
    given: list[str], arguments: list[str], says: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search.main([*given, "--repetitions", "1", "--budgets", "2", *arguments]) == 2
    printed = capsys.readouterr().err
    first, *_, last = printed.strip().splitlines()
    assert first.startswith("error: ") and says in first
    assert last.startswith("hint: ") and hint in last


def test_what_is_missing_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert search.main(["--task", "nas-bench-201"]) == 2
    assert "error: --table and --metric missing" in capsys.readouterr().err


def test_every_section_is_a_command_that_parses() -> None:
    parser = search.make_parser()
    for parts in search.sections(Path("folder")).values():
        for given in parts.values():
            search.check(parser.parse_args(given))
