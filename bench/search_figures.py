"""Tables of what bench/search.py measured, for the terminal and for docs/results.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from compile_figures import Figure, claim

__all__ = [
    "ABOUT",
    "ABOUT_FAMILIES",
    "OURS",
    "digits_figure",
    "family_figure",
    "method_figure",
    "overhead_figure",
    "search_figures",
]

Found = Mapping[str, Any]
OURS, CARRIED = "inquisitor", "inquisitor-carried"

ABOUT = (
    "Intervals are 95% of Student's t over the repetitions. p: one-sided paired t-test that the inquisitor finds better"
    " with the same seeds; Wilcoxon's signed ranks stand beside it in the JSON."
)
ABOUT_FAMILIES = (
    "Architectures are those that differ once zeros are folded away. A column named by a cost: Pareto hypervolume of"
    " accuracy against it, as a share of what lies between 0% at the largest cost of the table and 100% at none."
)

WHOLE = ("local-search-whole", "local-search-whole-start")
"""Strategies that read the scores of the whole space."""

TITLES = {
    "cifar10": "CIFAR-10: best accuracy [%] after so many trainings",
    "cifar100": "CIFAR-100: best accuracy [%]; carried: with what 50 trainings on CIFAR-10 told",
    "netscore": "NetScore on CIFAR-10",
    **{
        f"{name}{percentile}": f"CIFAR-10 under the {percentile}th percentile of {words}"
        for name, words in (
            ("energy", "energy on a Raspberry Pi 5"),
            ("macs", "MACs"),
            ("both", "energy on a Raspberry Pi 5 and of MACs, both at once"),
        )
        for percentile in (10, 25, 50)
    },
    "ablations": "CIFAR-10: the inquisitor without its parts",
    "ablations-energy25": "CIFAR-10 under the 25th percentile of energy: the inquisitor without its parts",
    "table": "The data of CIFAR-10 as a table of a printed program",
}

ACCURACY_GOALS = {
    "cifar10": {OURS: {"10": 94.25, "25": 94.36, "50": 94.373}},
    "cifar100": {
        OURS: {"10": 72.7, "25": 73.3, "50": 73.45},
        CARRIED: {"10": 73.45, "25": 73.5, "50": 73.503},
    },
}
DIGITS = {"best": "best trained", "family_best": "best of 16", "family_mean": "mean of 16"}
"""What bench/search_digits.py finds, by name."""
REGRET_GOALS = {"netscore": {"10": 2.5, "25": 0.15, "50": 0.02}}
EARLY = ("10", "25")
MOST_OVERHEAD_MS = 50.0


def search_figures(found: Mapping[str, Found]) -> list[Figure]:
    """Returns the tables of all sections that were run; the page says `ABOUT` and `ABOUT_FAMILIES` once."""
    figures = []
    for name in [*(name for name in TITLES if name in found), *(name for name in found if name not in TITLES)]:
        notes = [*_claims(name, found), *_told(found[name])]
        figures.append(_compact(name, found[name], notes))
        family = family_figure(found[name], name, ())
        if family is not None:
            figures.append(family)
    return figures


def digits_figure(found: Found) -> Figure:
    """Returns the table of bench/search_digits.py: a row for each method and budget."""
    compared = found["compared"]
    columns = ["method", "trainings"]
    for title in DIGITS.values():
        columns += [title, "p"]
    rows = []
    behind = []
    for method, budgets in compared.items():
        for budget, figures in budgets.items():
            cells = []
            for key, title in DIGITS.items():
                cells += [_interval(figures[key], 2), _probability(figures[key].get("p"))]
                if not method.startswith(OURS) and figures[key]["mean"] > compared[OURS][budget][key]["mean"]:
                    behind.append(f"{method}, {title} at {budget}")
            rows.append([method, budget, *cells])
    notes = [
        claim(not behind, f"ahead of every baseline in all three{_but(behind)}"),
        "A family: 16 fresh seeds of the inquisitor's generator; of others, the 16 best they trained.",
        "Families are trained anew, from other weights than those the search saw.",
    ]
    return Figure(
        f"ResNet on digits, {found['choices']} choices: NetScore after so many trainings", columns, rows, notes
    )


def overhead_figure(found: Found) -> Figure:
    """Returns the table of bench/search_overhead.py."""
    seconds = found["seconds"]
    rows = [[name, *[f"{row[key]:.2f}" for key in ("ask", "tell", "evaluation")]] for name, row in seconds.items()]
    most = max(row["evaluation"] for row in seconds.values())
    return Figure(
        f"{found['choices']} choices, {found['trainings']} trainings observed: seconds a training, probes apart",
        ["U", "ask", "tell", "together"],
        rows,
        [claim(most <= 1.0, "at most 1 s")],
    )


# Tables.


def method_figure(found: Found, title: str) -> Figure:
    """Returns a row for each method and budget."""
    rows = []
    for name, method in found["methods"].items():
        for budget, figures in method["budgets"].items():
            rows.append(
                [
                    name,
                    budget,
                    _interval(figures),
                    _number(figures.get("regret"), ".3f"),
                    _number(figures.get("found"), ".0%"),
                    _probability(figures.get("p")),
                    _number(figures.get("ahead"), ".0%"),
                    _probes(method),
                    f"{method['overhead_ms']:.1f}",
                ]
            )
    columns = ["method", "trainings", "best, 95%", "regret", "best of all", "p", "ahead", "probes", "ms"]
    return Figure(title, columns, rows, [*_told(found), ABOUT])


def _compact(name: str, found: Found, notes: Sequence[str]) -> Figure:
    """Returns a row for each method, with a column or two for each budget."""
    methods = found["methods"]
    budgets = list(next(iter(methods.values()))["budgets"])
    rows = []
    for method, figures in sorted(methods.items(), key=_by_place):
        means = [_interval(figures["budgets"][budget]) for budget in budgets]
        tests = [_probability(figures["budgets"][budget].get("p")) for budget in budgets]
        rows.append([method, *means, *tests, _probes(figures), f"{figures['overhead_ms']:.1f}"])
    columns = ["method", *budgets, *(f"p, {budget}" for budget in budgets), "probes", "ms"]
    return Figure(TITLES.get(name, name), columns, rows, notes)


def _by_place(item: tuple[str, Found]) -> tuple[bool, float]:
    name, figures = item
    return not name.startswith(OURS), -next(iter(figures["budgets"].values()))["mean"]


def family_figure(found: Found, name: str, about: Sequence[str] = (ABOUT_FAMILIES,)) -> Figure | None:
    """Returns what the learned generators give, beside networks drawn uniformly; None where there are none."""
    families = {method: figures["family"] for method, figures in found["methods"].items() if figures["family"]}
    if not families or not found["drawn"]:
        return None
    families["drawn uniformly"] = found["drawn"]
    costs = list(found["drawn"]["hypervolume"])
    rows = [
        [
            method,
            *(_interval(family[key], 2) for key in ("mean", "best", "worst")),
            f"{family['different']['mean']:.1f}",
            f"{family['architectures']['mean']:.1f}",
            f"{family['feasible']['mean']:.1%}",
            *(_interval(family["hypervolume"][cost]) if cost in family["hypervolume"] else "" for cost in costs),
        ]
        for method, family in families.items()
    ]
    size = found["arguments"]["family"]
    title = TITLES.get(name, name).partition(":")[0]
    budget = max(found["arguments"]["budgets"])
    columns = ["accuracy [%]", "mean", "best", "worst", "different", "architectures", "feasible", *costs]
    notes = _family_claims(found) if name == "cifar10" else []
    return Figure(f"{title}: {size} fresh seeds after {budget} trainings", columns, rows, [*notes, *about])


# What is said beside.


def _told(found: Found) -> list[str]:
    arguments = found["arguments"]
    optimum = found["optimum"]
    feasible = "" if found["feasible"] is None else f", {found['feasible']:,} of which meet the requirements"
    ceilings = "; ".join(f"{name} <= {_bound(bound)}" for name, bound in arguments["ceilings"])
    notes = [
        f"{arguments['repetitions']} repetitions, {found['rows']:,} networks{feasible if ceilings else ''}"
        + (f"; best of all {optimum:.4f}" if optimum is not None else "")
        + (f"; {ceilings}" if ceilings else "")
        + f"; at most {arguments['probes']} probes, on {arguments['stimuli'].split()[0]};"
        + f" {arguments['batch']} at a time. ms: a training's share of what the strategy took, probes apart, median."
        + (" A quick run: the figures mean nothing." if found["quick"] else "")
    ]
    beyond = [name for name, method in found["methods"].items() if method["beyond"]]
    if beyond:
        notes.append(f"Beyond the limit on probes, on purpose: {', '.join(beyond)}.")
    uncounted = [name for name in WHOLE if name in found["methods"] and name not in beyond]
    if uncounted and beyond:
        notes.append(f"{', '.join(uncounted)} reads every score as well: this run counted them to {', '.join(beyond)}.")
    for name, method in found["methods"].items():
        if "carried" in method:
            carried = method["carried"]
            notes.append(
                f"{name}: relation of the tasks {carried['relation']:.2f}, {carried['nats']:.1f} nats gained over"
                f" {carried['trainings']:.0f} trainings."
            )
    return notes


def _claims(name: str, found: Mapping[str, Found]) -> list[str]:
    """Returns the goals of a section and whether they are met."""
    part = found[name]
    methods = part["methods"]
    claims = []
    for method, goals in ACCURACY_GOALS.get(name, {}).items():
        if method in methods and goals.keys() <= methods[method]["budgets"].keys():
            means = methods[method]["budgets"]
            holds = all(means[budget]["mean"] >= goal for budget, goal in goals.items())
            shown = " / ".join(f"{goal:g}" for goal in goals.values())
            claims.append(claim(holds, f"{method}: at least {shown} after {' / '.join(goals)} trainings"))
    goals = REGRET_GOALS.get(name, {})
    if goals and OURS in methods and goals.keys() <= methods[OURS]["budgets"].keys():
        holds = all(methods[OURS]["budgets"][budget].get("regret", 1e9) <= goal for budget, goal in goals.items())
        shown = " / ".join(f"{goal:g}" for goal in goals.values())
        claims.append(claim(holds, f"regret at most {shown} after {' / '.join(goals)} trainings"))
    others = {method: figures for method, figures in methods.items() if not method.startswith(OURS)}
    if OURS in methods and others and name != "table":
        claims += _lead(name, others)
    if OURS in methods and name == "cifar10":
        claims.append(
            claim(
                methods[OURS]["overhead_ms"] <= MOST_OVERHEAD_MS,
                f"overhead at most {MOST_OVERHEAD_MS:g} ms a training",
            )
        )
    if name == "table" and "cifar10" in found:
        claims.append(claim(_same(part, found["cifar10"]), "every figure equals that of the section cifar10"))
    return claims


def _family_claims(found: Found) -> list[str]:
    """Returns what is asked of the family on CIFAR-10."""
    ours = found["methods"].get(OURS, {}).get("family")
    if not ours:
        return []
    size = found["arguments"]["family"]
    all_good = ours["least_different"] == size and ours["least_feasible"] == 1.0
    accurate = ours["mean"]["mean"] >= 94.0 and ours["worst"]["mean"] >= 93.2
    return [
        claim(all_good, f"all {size} different and feasible, in every repetition"),
        claim(accurate, "mean at least 94.0%, worst at least 93.2%"),
    ]


def _lead(name: str, others: Mapping[str, Found]) -> list[str]:
    """Returns whether the inquisitor is ahead of every baseline early on."""
    budgets = [budget for budget in EARLY if all(budget in figures["budgets"] for figures in others.values())]
    if not budgets:
        return []
    at = " and ".join(budgets)
    cases = [(method, budget, figures["budgets"][budget]) for method, figures in others.items() for budget in budgets]
    behind = [f"{method} at {budget}" for method, budget, figures in cases if not figures["difference"] > 0.0]
    unsure = [f"{method} at {budget}" for method, budget, figures in cases if (figures["p"] or 0.0) >= 0.01]
    claims = [claim(not behind, f"ahead of every baseline after {at} trainings" + _but(behind))]
    if name == "cifar10" or not behind:
        claims.append(claim(not unsure, f"p < .01 against every baseline after {at} trainings" + _but(unsure)))
    return claims


def _but(exceptions: Sequence[str]) -> str:
    return f" (not {', '.join(exceptions)})" if exceptions else ""


def _same(part: Found, other: Found) -> bool:
    """Whether what both sections ran came out alike, repetition by repetition."""
    places = [other["arguments"]["budgets"].index(budget) for budget in part["arguments"]["budgets"]]
    pairs = [
        (mine, [theirs[place] for place in places])
        for name in part["methods"].keys() & other["methods"].keys()
        for mine, theirs in zip(part["methods"][name]["best"], other["methods"][name]["best"], strict=False)
    ]
    return bool(pairs) and all(mine == theirs for mine, theirs in pairs)


def _interval(figures: Found, decimals: int = 3) -> str:
    middle = f"{figures['mean']:.{decimals}f}"
    return middle if figures["low"] is None else f"{middle} ± {figures['high'] - figures['mean']:.{decimals}f}"


def _bound(text: str) -> str:
    try:
        return f"{float(text):.5g}"
    except ValueError:
        return text


def _number(value: float | None, how: str) -> str:
    return "" if value is None else format(value, how)


def _probability(value: float | None) -> str:
    if value is None:
        return ""
    return "< 1e-9" if value < 1e-9 else f"{value:.1e}" if value < 0.001 else f"{value:.3f}"


def _probes(method: Found) -> str:
    return f"{method['probes'] + method['beyond']:,.0f}"
