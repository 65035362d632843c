"""Writes docs/results.md, and its plots, from the figures that the other benchmarks stored in docs/results/*.json.

python bench/results.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from compile_figures import Figure, kernel_figures, speed_figures
from cost_figures import cost_figures
from experiment_figures import experiment_about, experiment_figures
from experiment_plot import experiment_plot
from judging_figures import judging_figure
from precision_figures import precision_figure
from search_figures import ABOUT, ABOUT_FAMILIES, digits_figure, overhead_figure, search_figures
from sharing_figures import sharing_figure

from gensynth.ir import GenSynthError

FOLDER = Path("docs/results")


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Returns a Markdown table, the first column to the left and the others to the right."""
    lines = ["| " + " | ".join(columns) + " |", "| --- |" + " ---: |" * (len(columns) - 1)]
    lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """Returns mean and standard deviation."""
    return f"{mean(values):.2f} ± {stdev(values):.2f}" if len(values) > 1 else f"{values[0]:.2f}"


def demo(found: dict[str, Any]) -> str:
    """The networks of the demo."""
    prototype = found["prototype"]
    rows: list[Sequence[object]] = [
        (
            "prototype",
            f"{prototype['accuracy']:.2f}",
            f"{prototype['params']:,}",
            f"{prototype['macs']:,}",
            f"{prototype['information_density']:,.0f}",
            f"{prototype['netscore']:.1f}",
            "",
            "",
            f"`{prototype['architecture_hash']}`",
        )
    ]
    for row in found["networks"]:
        rows.append(
            (
                f"seed {row['seed']}",
                f"{row['accuracy']:.2f}",
                f"{row['params']:,}",
                f"{row['macs']:,}",
                f"{row['information_density']:,.0f}",
                f"{row['netscore']:.1f}",
                f"{row['density_ratio']:.1f}x",
                f"1/{row['macs_ratio']:.1f}",
                f"`{row['architecture_hash']}`",
            )
        )
    columns = ("network", "test %", "params", "MACs", "density %/M", "NetScore", "density", "MACs", "architecture")
    claims = [f"- {'yes' if holds else '**no**'}: {claim}" for claim, holds in found["claims"].items()]
    unseen = found["unseen"]
    note = (
        f"Of {unseen['seeds']:,} seeds that took no part, {unseen['holding']:,} meet the computable requirements"
        f" ({unseen['repaired']:,} by repair) and {unseen['different']:,} are different architectures."
    )
    return "\n".join([table(columns, rows), "", *claims, "", note])


def generator(found: dict[str, Any]) -> str:
    """Learned against opened and random."""
    repetitions = found["repetitions"]
    words = {
        "before": "before: fresh seeds of the opened generator",
        "after": "after: the same seeds of the learned generator",
        "emitted": "emitted by the synthesis",
        "random": "random search, equal trainings",
    }
    rows = []
    for name, text in words.items():
        best = [row[name]["best_feasible"] for row in repetitions if row[name]["best_feasible"] is not None]
        rows.append(
            (
                text,
                spread([row[name]["netscore"] for row in repetitions]),
                spread([row[name]["accuracy"] for row in repetitions]),
                f"{mean(row[name]['params'] for row in repetitions):,.0f}",
                f"{mean(row[name]['macs'] for row in repetitions):,.0f}",
                f"{mean(row[name]['feasible'] for row in repetitions):.0%}",
                spread(best) if best else "none",
            )
        )
    gain = spread([row["after"]["netscore"] - row["before"]["netscore"] for row in repetitions])
    lead = spread([row["emitted"]["netscore"] - row["random"]["netscore"] for row in repetitions])
    met = spread([row["after"]["feasible"] - row["before"]["feasible"] for row in repetitions])
    trainings = repetitions[0]["search_trainings"]
    columns = ("8 networks", "NetScore", "validation %", "params", "MACs", "meet requirements", "best that meets them")
    return "\n".join(
        [
            table(columns, rows),
            "",
            f"{len(repetitions)} repetitions, mean ± standard deviation over them; {trainings} short trainings in",
            "each, by synthesis and by random search. NetScore is of all 8 networks, whether they meet the accuracy",
            "requirement or not.",
            "",
            f"- after − before, NetScore: {gain}; share that meets the requirements: {met}",
            f"- emitted − random search, NetScore: {lead}",
        ]
    )


def round_trip(found: dict[str, Any]) -> str:
    """Random graphs."""
    return (
        f"{found['graphs']:,} random graphs ({found['generators']:,} of them generators, {found['different']:,}"
        f" different, {found['nodes']:,} nodes, {len(found['ops'])} kinds of op): {found['failures'] or 'no'} failures."
        " Each was printed, parsed, compared, printed again byte for byte, and verified."
    )


def resume(found: dict[str, Any]) -> str:
    """Kills."""
    kills = found["kills"]
    moments = sorted(row["moment"] for row in kills)
    return (
        f"{found['identical']} of {len(kills)} runs that were killed (SIGKILL to the whole process group, at"
        f" {moments[0]:.1f} to {moments[-1]:.1f} s of {found['length']:.1f} s) and resumed equal the uninterrupted one:"
        " final generator, every cycle's record, every row of the store, emitted weights and summary, byte for byte."
    )


def rules(found: list[dict[str, Any]]) -> str:
    """Every rule on every prototype."""
    rows = []
    for name in dict.fromkeys(row["rule"] for row in found):
        mine = [row for row in found if row["rule"] == name]
        exact = [row["original"] for row in mine if row.get("original") is not None]
        torch = [row["torch"] for row in mine if row.get("torch") is not None]
        rows.append(
            (
                f"`{name}`",
                sum(row["fit"] > 0 for row in mine),
                f"{sum(row['spots'] for row in mine):,}",
                f"{sum(row['fit'] for row in mine):,}",
                "yes" if all(row["verified"] for row in mine if row["fit"]) else "**no**",
                f"{max(torch):.1e}" if torch else "",
                f"{max(exact):.1e}" if exact else "",
            )
        )
    count = len({row["prototype"] for row in found})
    columns = (
        "rule",
        f"prototypes of {count}",
        "spots",
        "fit",
        "all verify",
        "torch − reference",
        "rewritten − original",
    )
    note = (
        "Each rule was applied at every spot that its check finds fit, with weights. Largest errors of the outputs,"
        " relative to their largest magnitude; the last column is for the rules that keep the function."
    )
    return "\n".join([table(columns, rows), "", note])


def ir_speed(found: dict[str, Any]) -> str:
    """The text form beside xdsl's."""
    rows = []
    for task, runs in found["runs"].items():
        for name, run in runs.items():
            ratio = found["speedups"][task][name]
            rows.append((task, name, f"{run['median'] * 1e3:.2f}", f"{ratio:.1f}x"))
    note = (
        f"A ResNet-50 of {found['nodes']} nodes against {found['xdsl_ops']} generic xdsl ops, medians of interleaved"
        " runs; cold: memos were emptied before each run. onnx's text parser is C++ and stands there for scale."
        " The goal was 2x."
    )
    return "\n".join([table(("task", "who", "median ms", "against xdsl"), rows), "", note])


def materialize(found: dict[str, Any]) -> str:
    """Emission against torch modules."""
    parts = []
    for key, title in (("resnet8", "ResNet-8"), ("resnet20", "ResNet-20")):
        runs = found[key]["candidates"]
        rows = [
            (
                name,
                f"{run['median'] / found['networks'] * 1e3:.3f}",
                f"{found['networks'] / run['median']:,.0f}",
                f"{run['ratio']:.1f}",
            )
            for name, run in runs.items()
        ]
        columns = (f"{title}, {found[key]['nodes']:.0f} nodes", "ms a network", "networks a second", "time, relative")
        parts += [table(columns, rows), ""]
    parts.append(
        "What each candidate does: `bench/materialize.py`. Medians of interleaved runs, one thread. The goal was 50"
        " times the networks per second of torch modules counted by FlopCounterMode."
    )
    return "\n".join(parts)


ROUTES = {
    "torch": "PyTorch",
    "onnxruntime": "ONNX Runtime",
    "relax": "TVM",
    "host": "host",
    "aarch64": "aarch64",
    "cuda-f32": "CUDA C, f32",
    "cuda-f16": "CUDA C, f16",
    "launcher": "launcher",
    "gpu-f32": "GPU, f32",
    "gpu-f16": "GPU, f16",
}
"""The columns of check_targets."""


def check_targets(found: dict[str, Any]) -> str:
    """One network, every way to run it."""
    networks = found["networks"]
    routes = [route for route in ROUTES if any(route in row["errors"] or route in row["failed"] for row in networks)]
    emitted = [row for row in networks if row["name"].startswith("seed ")]

    def cell(rows: Sequence[dict[str, Any]], route: str) -> str:
        if any(route in row["failed"] for row in rows):
            return "**failed**"
        errors = [row["errors"][route] for row in rows if route in row["errors"]]
        return f"{max(errors):.1e}" if errors else ""

    def cells(rows: Sequence[dict[str, Any]]) -> list[str]:
        return [cell(rows, route) for route in routes]

    rows: list[Sequence[object]] = [
        (row["name"], f"{row['macs'] / 1e6:.1f}", *cells([row])) for row in networks if row not in emitted
    ]
    if emitted:
        macs = [row["macs"] / 1e6 for row in emitted]
        rows.append((f"{len(emitted)} emitted networks", f"{min(macs):.2f} to {max(macs):.2f}", *cells(emitted)))
    failed = [f"{row['name']}: {route}: {why}" for row in networks for route, why in row["failed"].items()]
    skipped = {route: reason for row in networks for route, reason in row["skipped"].items()}
    tolerances = found["tolerances"]
    parts = [
        table(("network", "M MACs", *(ROUTES[route] for route in routes)), rows),
        "",
        "Largest errors against the float64 reference, as shares of the outputs' range. At most"
        f" {tolerances['f32']:.0e} is fine, for float16 {tolerances['f16']:.0e}."
        " What each column is: `bench/check_targets.py`."
        + (f" The GPU: {found['device']}." if found["device"] else ""),
        "",
        f"- failed: {'; '.join(failed) or 'none'}",
        *(f"- skipped: {route}: {reason}" for route, reason in skipped.items()),
    ]
    if found["templates"]:
        parts += ["", kernels_of(found)]
    return "\n".join(parts)


def kernels_of(found: dict[str, Any]) -> str:
    """What ptxas says of the kernels for the Tegra X2's GPU."""
    columns = ("template", "precision", "kernels", "threads, most", "registers, median", "most", "shared bytes, most")
    rows = [
        (
            f"`{item['template']}`",
            item["dtype"],
            item["kernels"],
            item["threads"],
            item["registers"][1],
            item["registers"][2],
            f"{item['shared']:,}",
            item["spilled"],
        )
        for item in found["templates"]
    ]
    note = (
        "The kernels of all these networks for the Tegra X2's GPU, assembled for sm_62 by ptxas. A block can have 1,024"
        " threads, 49,152 bytes of shared memory and 32,768 registers, a thread 255 of these. Each kernel is listed in"
        " `docs/results/check_targets.json`."
    )
    return "\n".join([table((*columns, "spilled bytes"), rows), "", note])


def figures(found: Sequence[Figure]) -> str:
    """Tables of compile_figures.py, each with a heading and its notes."""
    parts = []
    for figure in found:
        parts += [f"### {figure.title[:1].upper()}{figure.title[1:]}", "", table(figure.columns, figure.rows), ""]
        parts += [f"- {note}" for note in figure.notes] + [""] * bool(figure.notes)
    return "\n".join(parts).rstrip()


def compile_speed(found: dict[str, Any]) -> str:
    """Compiled networks against other runtimes."""
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    about = f"{found['machine']['processor']}; {versions}. How it is measured: `bench/compile_speed.py`."
    return "\n\n".join([about, figures(speed_figures(found))])


def compile_kernels(found: dict[str, Any]) -> str:
    """What compilers made of the kernels."""
    versions = ", ".join(f"{name} {number}" for name, number in found["toolchain"].items())
    return "\n\n".join([f"{versions}.", figures(kernel_figures(found))])


def cost(found: dict[str, Any]) -> str:
    """The cost models on measurements that they did not see."""
    about = (
        "Published measurements, of which the fits did not see what they are judged by. Simpler models stand beside,"
        " fitted to the same rows: a line in MACs, non-negative weights of op counts, and a roofline of fused kernels"
        " with a fitted rate and bandwidth, each for every precision and power mode by itself. What was held out, and"
        " where the measurements are from: `bench/cost.py`, `bench/cost_data.py`."
    )
    return "\n\n".join([about, figures(cost_figures(found))])


def search(found: dict[str, dict[str, Any]]) -> str:
    """The inquisitor beside other search strategies, on trainings that were done beforehand."""
    about = (
        "Every training was looked up in a table, every probe was real. All methods of a table ran side by side with"
        " the same seeds and budgets. Settings were chosen on CIFAR-10. What each method is: `synth/search/`; what was"
        " run: `bench/search.py`."
    )
    return "\n\n".join([f"{about} {ABOUT} {ABOUT_FAMILIES}", figures(search_figures(found))])


def experiment(found: dict[str, Any]) -> str:
    """One task: hand-made networks and FermiNets by the same recipe; draws the plot beside the stored figures."""
    plot = FOLDER / f"experiment-{found['task']}.svg"
    parts = [experiment_about(found)]
    if experiment_plot(found, plot):
        title = found.get("title") or found["task"]
        parts.append(f"![Accuracy over MACs and over parameters, {title}](results/{plot.name})")
    return "\n\n".join([*filter(None, parts), figures(experiment_figures(found))])


EXPERIMENT = (
    "python bench/experiment.py bench/experiments/{name}.toml --data FOLDER --json docs/results/experiment-{name}.json"
)

SECTIONS = (
    (
        "demo",
        "1. The demo",
        "`make demo`, then `python bench/demo.py runs/demo --json docs/results/demo.json`",
        demo,
    ),
    (
        "generator",
        "2. What learning brings",
        "`python bench/generator.py bench/generator.toml --repetitions 5 --json docs/results/generator.json`",
        generator,
    ),
    (
        "generator-tight",
        "2b. The same under the demo's tighter requirement on accuracy",
        "`python bench/generator.py bench/generator-tight.toml --repetitions 3 --json OUT`",
        generator,
    ),
    ("round_trip", "3. Round trip", "`python bench/round_trip.py --json docs/results/round_trip.json`", round_trip),
    ("rules", "4. Rewrite rules", "`python bench/rules.py --json docs/results/rules.json`", rules),
    ("ir_speed", "5. Speed of the text form", "`python bench/ir_speed.py --json docs/results/ir_speed.json`", ir_speed),
    (
        "materialize",
        "6. Speed of emission",
        "`python bench/materialize.py --json docs/results/materialize.json`",
        materialize,
    ),
    ("resume", "7. Kill and resume", "`python bench/resume.py --kills 20 --json docs/results/resume.json`", resume),
    ("check_targets", "8. One network, every way to run it", "`make check-targets`", check_targets),
    ("check_gpu", "8b. What ships for the Tegra X2's GPU, on another GPU", "`make check-gpu`", check_targets),
    ("compile_speed", "9. Speed of compiled networks", "`make bench-compile`", compile_speed),
    (
        "compile_kernels",
        "10. What is in the kernels",
        "`python bench/compile_kernels.py --json docs/results/compile_kernels.json`",
        compile_kernels,
    ),
    ("cost", "11. Latency and energy: cost models", "`make bench-cost DATA=FOLDER`", cost),
    ("search", "12. Search", "`make bench-search DATA=FOLDER`", search),
    (
        "search_digits",
        "13. Search by training",
        "`make bench-search-digits`",
        lambda found: figures([digits_figure(found)]),
    ),
    (
        "search_overhead",
        "14. Search in a large space",
        "`python bench/search_overhead.py --json docs/results/search_overhead.json`",
        lambda found: figures([overhead_figure(found)]),
    ),
    (
        "sharing",
        "15. Weight sharing",
        "`python bench/sharing.py --json docs/results/sharing.json`",
        lambda found: figures([sharing_figure(found)]),
    ),
    *(
        (f"experiment-{name}", title, f"`{EXPERIMENT.format(name=name)}`", experiment)
        for name, title in (
            ("cifar10", "16. Classification: CIFAR-10"),
            ("camvid", "17. Segmentation: CamVid"),
            ("persons", "18. Detection: persons"),
        )
    ),
    (
        "judging",
        "19. Speed of judging",
        "`python bench/judging.py --json docs/results/judging.json`",
        lambda found: figures([judging_figure(found)]),
    ),
    (
        "precision",
        "20. Speed of trainings in bfloat16",
        "`python bench/precision.py --json docs/results/precision.json`",
        lambda found: figures([precision_figure(found)]),
    ),
)

HEAD = """# Results

What was measured, exactly as it came out, by the commands named in each section; `make results` writes this page anew
from the stored figures in `docs/results/`. Machine: 2 cores of an x86-64 server CPU, no GPU, Python 3.11, torch 2.13
(CPU). It is a shared and noisy one: trust ratios taken in one run, not single times.
"""


def stored(name: str) -> Any:
    """Returns the figures of a section, those of `search` by the name of each run; nothing where there are none."""
    if name == "search":
        paths = sorted(FOLDER.glob("search-*.json"))
        return {path.stem.removeprefix("search-"): json.loads(path.read_text()) for path in paths}
    path = FOLDER / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def main() -> int:
    """Writes the page and the plots; a section whose figures are not there is left out."""
    parts = [HEAD]
    try:
        for name, title, command, render in SECTIONS:
            found = stored(name)
            if found:
                parts += [f"## {title}\n", f"{command}\n", render(found) + "\n"]
    except GenSynthError as error:
        print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
        return 2
    Path("docs/results.md").write_text("\n".join(parts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
