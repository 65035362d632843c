"""Tables of what bench/experiment.py measured, for the terminal and for docs/results.md.

A run may be in pieces: what is not there is left out and told as not measured yet.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import mean, stdev

from compile_figures import Figure, claim
from experiment_words import (
    UNKNOWN,
    Found,
    Row,
    cell,
    claim_of,
    digits,
    figure,
    main_metric,
    metric_words,
    networks_of,
    number,
    other_metrics,
    points_with_goals,
    recipe_words,
    row_at,
    row_named,
    setting,
    settings,
    values,
)
from sharing_figures import GOAL as LEAST_TAU

__all__ = ["experiment_about", "experiment_figures"]

FAMILY = 16
"""Networks of fresh seeds that are asked for."""
MOST_COST = 3.0
"""Trainings of the prototype that a synthesis may cost."""
COSTS = {
    "prototype_seconds": "training the prototype",
    "shared_seconds": "training the shared weights",
    "search_seconds": "the search",
    "synthesis_seconds": "the synthesis, prototype apart",
}
PUBLISHED = {"accuracy": ".2f", "epochs": ",g"}
YES_NO = {True: "yes", False: "NO", None: UNKNOWN}


def experiment_about(found: Found) -> str:
    """Returns what is the same for every row, in words."""
    parts = [f"{found['about'].strip()}\n"] if found.get("about") else []
    facts = [f"Form `{found['form']}`"] if found.get("form") else []
    if (found.get("machine") or {}).get("device"):
        facts.append(f"trained on `{found['machine']['device']}`")
    if found.get("image"):
        facts.append(f"images {'x'.join(map(str, found['image']))}")
    recipe, shared = found.get("recipe") or {}, found.get("shared_recipe") or {}
    if recipe:
        facts.append(f"recipe: {settings(recipe)}")
    if shared:
        other = {key: value for key, value in shared.items() if key not in recipe or recipe[key] != value}
        facts.append(f"the shared weights with {settings(other)}, else the same")
    told = "; ".join(facts)
    parts += [f"{told[:1].upper()}{told[1:]}."] if told else []
    return "\n".join(parts).rstrip()


def experiment_figures(found: Found) -> list[Figure]:
    """Returns the tables: networks with what they should reach, then those of the parts that were measured."""
    parts = (_networks, _training, _published, _family, _sharing, _cost, _artifact)
    return [figure for part in parts if (figure := part(found)) is not None]


# The networks and what they should reach.


def _networks(found: Found) -> Figure:
    rows, metric, others = networks_of(found), main_metric(found), other_metrics(found)
    reference = row_named(rows, found.get("reference"))
    cells = [
        [
            row["name"] if row.get("seed") is None else f"{row['name']}, seed {row['seed']}",
            *values(row, "accuracy:.2f"),
            *values(row.get("metrics"), *(f"{name}:.2f" for name in others)),
            *values(row, "params:,", "macs:,", "information_density", "netscore:.2f", "latency_ms", "energy_mj"),
            digits(1e3 / row["energy_mj"] if row.get("energy_mj") else None),
            *(_against(row, reference) if row["kind"] in ("ferminet", "control") else ("", "", "")),
        ]
        for row in rows
    ]
    costs = ("params", "MACs", "density %/M", "NetScore", "ms", "mJ", "inferences/J")
    columns = ["network", f"test {metric} %", *(f"{metric_words(name)} %" for name in others), *costs]
    columns += ["density", "MACs", "NetScore"]
    notes = _goals(found, rows, metric)
    if found.get("device"):
        notes.append(f"Milliseconds, millijoules and inferences a joule: by the cost model of `{found['device']}`.")
    if reference is not None:
        notes.append(f"The last three columns: against {reference['name']}.")
    missing = _missing(found, rows)
    if missing:
        notes.append(f"Not measured yet: {'; '.join(missing)}.")
    empty = ["not measured yet", *[""] * (len(columns) - 1)]
    return figure("networks on the test part", columns, cells or [empty], notes)


def _against(row: Row, reference: Row | None) -> tuple[str, str, str]:
    """Returns density, MACs and NetScore against the reference's."""
    density, macs, netscore = (_compared(row, reference, key) for key in ("density", "macs", "netscore"))
    return (
        UNKNOWN if density is None else f"{density:.2f}x",
        UNKNOWN if macs is None else f"1/{macs:.2f}",
        UNKNOWN if netscore is None else f"{netscore:+.2f}",
    )


def _compared(row: Row, reference: Row | None, what: str) -> float | None:
    """Returns how many times better than the reference, or by how much for NetScore; None where one is not known."""
    key = {"density": "information_density", "inferences_per_joule": "energy_mj"}.get(what, what)
    mine, theirs = row.get(key), (reference or {}).get(key)
    if mine is None or theirs is None:
        return None
    if what == "netscore":
        return float(mine - theirs)
    top, bottom = (mine, theirs) if what == "density" else (theirs, mine)
    return float(top / bottom) if bottom else math.inf


GOALS = {
    "density": "{} times the information density of {reference}, at least {goal:g}",
    "macs": "{} times fewer MACs than {reference}, at least {goal:g}",
    "netscore": "NetScore {} against {reference}, at least {goal:+g}",
    "inferences_per_joule": "{} times the inferences a joule of {reference}, at least {goal:g}",
}


def _goals(found: Found, rows: Sequence[Row], metric: str) -> list[str]:
    """Returns each goal of each operating point, and whether it is met."""
    goals = found.get("goals") or {}
    reference = row_named(rows, found.get("reference"))
    name = found.get("reference") if reference is None else reference["name"]
    claims = []
    for point in points_with_goals(found):
        on_joules = {"inferences_per_joule": (goals.get("inferences_per_joule") or {}).get(point)}
        asked = {**on_joules, **((goals.get("points") or {}).get(point) or {})}
        row = row_at(rows, point)
        label = f"FermiNet {point}" if row is None else row["name"]
        if asked.get("accuracy_within") is not None:
            holds, text = _accuracy_goal(found, rows, row, asked["accuracy_within"], metric)
            claims.append(claim_of(holds, f"{label}: {text}"))
        for what, words in GOALS.items():
            goal = asked.get(what)
            if goal is not None:
                value = None if row is None else _compared(row, reference, what)
                reached = "" if what == "netscore" else "how many"
                if value is not None:
                    reached = f"{value:+.2f}" if what == "netscore" else f"{value:.2f}"
                text = " ".join(words.format(reached, goal=goal, reference=name).split())
                claims.append(claim_of(None if value is None else value >= goal, f"{label}: {text}"))
    return claims


def _accuracy_goal(
    found: Found, rows: Sequence[Row], row: Row | None, within: float, metric: str
) -> tuple[bool | None, str]:
    """Returns whether the goal is met, None where that is not known, and what it is."""
    if (found.get("goals") or {}).get("against") == "reference":
        what, rivals = "the reference", [row_named(rows, found.get("reference"))]
    else:
        what, rivals = "the best baseline", [item for item in rows if item["kind"] == "baseline"]
    measured = [item for item in rivals if item is not None and item.get("accuracy") is not None]
    asked = (
        "not below it" if within == 0 else f"at most {within:g} below" if within > 0 else f"at least {-within:g} above"
    )
    if row is None or row.get("accuracy") is None or not measured:
        return None, f"{metric} against {what}; {asked}"
    best = max(measured, key=lambda item: float(item["accuracy"]))
    ahead = row["accuracy"] - best["accuracy"]
    way, so_far = "below" if ahead < 0 else "above", "" if len(measured) == len(rivals) else " so far"
    against = f"{what}{so_far} ({best['name']}, {best['accuracy']:.2f}%)"
    return ahead >= -within - 1e-9, f"{metric} {row['accuracy']:.2f}%, {abs(ahead):.2f} points {way} {against}; {asked}"


def _missing(found: Found, rows: Sequence[Row]) -> list[str]:
    """Returns what has not been measured."""
    kinds = {"baseline": "the baselines", "prototype": "the prototype", "ferminet": "the FermiNets"}
    kinds["control"] = "one of them from fresh weights"
    if found.get("baselines") == 0:
        del kinds["baseline"]
    there = {row["kind"] for row in rows}
    missing = [words for kind, words in kinds.items() if kind not in there]
    absent = [point for point in points_with_goals(found) if row_at(rows, point) is None]
    if absent and "ferminet" in there:
        missing.append(f"FermiNet{'s' * (len(absent) > 1)} {', '.join(absent)}")
    reference = found.get("reference")
    if reference and rows and row_named(rows, reference) is None:
        missing.append(f"{reference}, with which FermiNets are compared")
    untested = [row["name"] for row in rows if row.get("accuracy") is None]
    if untested:
        missing.append(f"test {main_metric(found)} of {', '.join(untested)}")
    parts = {
        "sweep": "learning rates",
        "family": f"{FAMILY} fresh seeds",
        "sharing": "weight sharing",
        "cost": "cost of the synthesis",
        "artifact": "the artifact",
    }
    return missing + [words for part, words in parts.items() if not found.get(part)]


# How they were trained, and what others found.


def _training(found: Found) -> Figure | None:
    sweep = found.get("sweep")
    if not sweep:
        return None
    rows, tried = networks_of(found), sweep.get("found") or ()
    rates = sorted({*sweep["learning_rates"], *(item["learning_rate"] for item in tried)})
    whole = ("learning_rate:g", "validation_accuracy:.2f", "seconds")
    cells, edges, shown = [], [], []
    for name in dict.fromkeys(item["name"] for item in tried):
        row = row_named(rows, name) or next((row for row in rows if row["kind"] == name), None)
        label = name if row is None else row["name"]
        reached = {item["learning_rate"]: item["accuracy"] for item in tried if item["name"] == name}
        best = max(reached, key=lambda rate: reached[rate]) if len(reached) > 1 else None
        if best is not None and best in (min(reached), max(reached)):
            edges.append(f"{label} ({best:g})")
        swept = [f"**{reached[rate]:.2f}**" if rate == best else number(reached.get(rate), ".2f") for rate in rates]
        cells.append([label, *swept, *values(row, *whole)])
        shown.append(label)
    blank = [""] * len(rates)
    cells += [[row["name"], *blank, *values(row, *whole)] for row in rows if row["name"] not in shown]
    notes = ["Bold: the best of a row. The last three columns are of the networks of the table above."]
    if edges:
        notes.append(f"Best at the edge of what was tried: {', '.join(edges)}.")
    epochs = f"{sweep['epochs']} epoch{'s' * (sweep['epochs'] != 1)}"
    images = f"{sweep['examples']:,} images" if sweep.get("examples") else "all images"
    title = f"learning rates: validation {main_metric(found)} [%] after {epochs} of {images}"
    columns = ["network", *(f"{rate:g}" for rate in rates), "trained with", "validation %", "seconds"]
    return figure(title, columns, cells, notes)


def _published(found: Found) -> Figure | None:
    if not found.get("published"):
        return None
    rows, metric = networks_of(found), main_metric(found)
    epochs = setting("epochs", (found.get("recipe") or {}).get("epochs", ""))
    cells = []
    for item in found["published"]:
        ours = row_named(rows, item["name"])
        mine = ["", ""] if ours is None else [*values(ours, "accuracy:.2f"), epochs]
        theirs = ["" if item.get(key) is None else f"{item[key]:{how}}" for key, how in PUBLISHED.items()]
        cells.append([cell(item["name"]), *mine, *theirs, cell(item.get("source") or "")])
    columns = ["network", f"ours: test {metric} %", "epochs", f"published: {metric} %", "epochs", "source"]
    return figure("published figures beside ours", columns, cells)


# Many networks of one generator.


def _family(found: Found) -> Figure | None:
    family = found.get("family")
    if not family or not family.get("networks"):
        return None
    networks = family["networks"]
    count, whole = len(networks), max(len(networks), FAMILY)
    cells = [
        [
            str(item["seed"]),
            *values(item, "params:,", "macs:,", "accuracy:.2f"),
            YES_NO[item.get("feasible")],
            f"`{item['architecture_hash']}`",
        ]
        for item in networks
    ]
    feasible = sum(item.get("feasible") is True for item in networks)
    different = len({item["architecture_hash"] for item in networks})
    judged = [item["accuracy"] for item in networks if item.get("accuracy") is not None]
    notes = [
        claim(feasible == count, f"{feasible} of {count} meet the requirements"),
        claim(different == count, f"{different} different architectures of {count}"),
    ]
    if judged:
        deviation = f", standard deviation {stdev(judged):.2f}" if len(judged) > 1 else ""
        extremes = f"least {min(judged):.2f}, most {max(judged):.2f}"
        notes.append(f"Validation {main_metric(found)} [%]: mean {mean(judged):.2f}{deviation}, {extremes}.")
    if len(judged) < whole:
        notes.append(f"Not measured yet: {whole - len(judged)} of {whole} networks.")
    point = f" under the requirements of {family['point']}" if family.get("point") else ""
    columns = ["seed", "params", "MACs", "validation %", "feasible", "architecture"]
    return figure(f"{count} fresh seeds{point}{recipe_words(family, ': ')}", columns, cells, notes)


def _sharing(found: Found) -> Figure | None:
    sharing = found.get("sharing")
    if not sharing:
        return None
    networks = sorted(sharing.get("networks") or (), key=lambda item: -(item.get("alone") or 0.0))
    cells = [[str(item["seed"]), *values(item, "macs:,", "params:,", "shared:.2f", "alone:.2f")] for item in networks]
    title = f"weight sharing: {len(cells)} networks of fresh seeds, validation {main_metric(found)} [%]"
    title += recipe_words(sharing, "; by itself: ")
    columns = ["seed", "MACs", "params", "shared weights", "by itself"]
    notes = _taus(sharing)
    longer = found.get("alone")
    if longer:
        reached = {item["seed"]: item for item in longer["networks"]}
        cells = [
            [*row, *values(reached.get(item["seed"]), "alone:.2f")] for row, item in zip(cells, networks, strict=True)
        ]
        title += recipe_words(longer, "; longer: ")
        columns.append("longer")
        notes += _taus(longer, "trained longer: ", "Longer")
        notes.append(
            f"Kendall's tau of what a network reaches by itself and longer {longer['tau_shorter']['tau']:.2f}."
        )
    ranking = found.get("ranking")
    if ranking:
        judged = {item["seed"]: item for item in ranking["networks"]}
        cells = [
            [*row, *values(judged.get(item["seed"]), "shared:.2f")] for row, item in zip(cells, networks, strict=True)
        ]
        title += f"; other shared weights: {ranking['epochs']} epochs for no requirements"
        columns.append("other shared weights")
        for part, before in ((ranking, "other shared weights"), (ranking.get("longer"), "the same, trained longer")):
            notes += _taus(part, f"{before}: ") if part else []
    return figure(title, columns, cells, notes)


def _taus(part: Row, before: str = "", which: str = "By itself") -> list[str]:
    """Returns what Kendall's tau says of networks judged with shared weights and trained by one recipe."""
    ours, plain = part.get("tau"), part.get("tau_macs")
    text = f"{before}Kendall's tau of shared and stand-alone accuracy"
    if ours:
        text += f" {ours['tau']:.2f} (95% by bootstrap {ours['low']:.2f} to {ours['high']:.2f})"
    text += f", at least {LEAST_TAU}"
    if plain:
        text += f"; of MACs and stand-alone accuracy {plain['tau']:.2f}"
    if part.get("tau_loss"):
        text += f"; of shared loss and stand-alone accuracy {part['tau_loss']['tau']:.2f}"
    notes = [claim_of(ours["tau"] >= LEAST_TAU if ours else None, text)]
    if part.get("tau_alone") is not None:
        notes.append(
            f"{which}: the mean of {part['seeds']} trainings, each from other fresh weights. Kendall's tau of one such"
            f" training and another {part['tau_alone']:.2f}, mean of the pairs."
        )
    return notes


def _cost(found: Found) -> Figure | None:
    cost = found.get("cost")
    if not cost:
        return None
    unit, cells = cost.get("prototype_seconds"), []
    for key, words in COSTS.items():
        seconds = cost.get(key)
        times = None if seconds is None or not unit else seconds / unit
        cells.append([words, digits(seconds), number(times, ".2f")])
    ratio = cost.get("ratio")
    measured = "" if ratio is None else f" {ratio:.2f}"
    text = f"synthesis:{measured} trainings of the prototype, at most {MOST_COST:g}"
    columns = ["what", "seconds", "trainings of the prototype"]
    notes = [claim_of(None if ratio is None else ratio <= MOST_COST, text)]
    timed = cost.get("timed")
    if timed:
        parts = [
            f"{1e3 * part['seconds_per_image']:.2f} ms an image and {part['start_seconds']:.2f} s a start for {words},"
            f" times {part['images']:,} and {part['starts']}"
            for part, words in ((timed["prototype"], "the prototype"), (timed["shared"], "the shared weights"))
        ]
        if "teacher" in timed:
            look = timed["teacher"]
            each = f"{1e3 * look['seconds_per_image']:.2f} ms an image"
            parts.append(f"{each} for the prototype's look at each of {look['images']:,}, before the shared weights")
        notes.append(
            f"Both trainings were timed in turn, {timed['repetitions']} times with {timed['images']:,} images, for one"
            f" epoch and for more (medians): {'; '.join(parts)}. The search: as it took."
        )
    return figure("cost of the synthesis", columns, cells, notes)


def _artifact(found: Found) -> Figure | None:
    artifact = found.get("artifact")
    if not artifact or not artifact.get("rows"):
        return None
    verdicts = {f"{row['target']} {row.get('dtype') or ''}".rstrip(): _verdict(row) for row in artifact["rows"]}
    errors = ["error:.1e"] * any(row.get("error") is not None for row in artifact["rows"])
    cells = [
        [
            f"`{target}`",
            cell(row.get("how") or ""),
            *values(row, "difference:.1e", *errors, "tolerance:.0e", "artifact_bytes:,"),
            YES_NO[verdict],
            cell(row.get("reason") or ""),
        ]
        for (target, verdict), row in zip(verdicts.items(), artifact["rows"], strict=True)
    ]
    named = {verdict: [target for target, other in verdicts.items() if other is verdict] for verdict in YES_NO}
    wrong = f"; not: {', '.join(named[False])}" if named[False] else ""
    holds = False if wrong else None if named[None] else True
    notes = [claim_of(holds, f"{len(named[True])} of {len(cells)} targets verified{wrong}")]
    if named[None]:
        notes.append(f"Not run: {', '.join(named[None])}.")
    if errors:
        notes.append("Error: the largest difference as a share of an output's range, which the tolerance is for.")
    name = artifact.get("name") or "a FermiNet"
    title = f"{f'FermiNet {name}' if len(name) == 1 else name}, compiled for every target"
    columns = ["target", "how", "difference", *["error"] * len(errors), "tolerance", "bytes", "verified", "reason"]
    return figure(title, columns, cells, notes)


def _verdict(row: Row) -> bool | None:
    """Returns whether an artifact was verified, None where nothing could run it."""
    return None if row.get("how") == "only compiled" and not row.get("verified") else row.get("verified")
