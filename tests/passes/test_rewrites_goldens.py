"""Every rule before and after, in the text form: the first line of a golden is the pipeline, `# -->` parts it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gensynth.ir import Network, check_weights, initialize, parse, to_text, verify
from gensynth.passes import Rule, all_passes, parse_pipeline

GOLDENS = sorted((Path(__file__).parent / "goldens").glob("*.gsir"))
ARROW = "\n# -->\n\n"


@pytest.mark.parametrize("path", GOLDENS, ids=lambda path: path.stem)
def test_a_rule_makes_of_its_before_the_after(path: Path, request: pytest.FixtureRequest) -> None:
    header, _, before = path.read_text(encoding="utf-8").partition(ARROW)[0].partition("\n\n")
    (rule,) = parse_pipeline(header.removeprefix("# "))
    graph = parse(before, path.name)
    result = rule.run(Network(graph, initialize(graph))).network
    verify(result.graph)
    assert result.weights is not None
    check_weights(result.graph, result.weights)
    assert rule.run(Network(graph)).network.graph == result.graph, "without weights the structure must be the same"
    made = f"{header}\n\n{to_text(graph)}{ARROW}{to_text(result.graph)}"
    if request.config.getoption("update_golden", default=False):
        path.write_text(made, encoding="utf-8")
    assert path.read_text(encoding="utf-8") == made, "see the difference, and run pytest --update-golden if it is right"


def test_every_built_in_rule_has_a_golden() -> None:
    rules = {cls.name for cls in all_passes() if issubclass(cls, Rule) and cls.__module__.startswith("gensynth.")}
    assert rules <= {path.stem for path in GOLDENS}
