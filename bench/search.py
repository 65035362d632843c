"""How few trainings searches need, where all trainings were done beforehand: strategies side by side on a table.

python bench/search.py --task nas-bench-201 --table CSV[.gz] --metric COLUMN [--cost COLUMN --ceiling VALUE]
    [--methods all|NAMES] [--budgets 10,25,50,100] [--repetitions 100] [--json OUT]
python bench/search.py --task table --program GENERATOR.gsir --key COLUMN --table CSV --metric COLUMN ...
python bench/search.py --data FOLDER [--sections cifar10,energy25,...] [--out docs/results] [any option above]

Networks are probed by GenSynth itself, and what was probed is kept in --probe-cache: about a second each the first
time, nothing after that. `local-search-whole` probes the whole space. The sections are those of `make bench-search`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import nullcontext
from dataclasses import asdict, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from harness import machine, print_table
from search_figures import family_figure, method_figure
from search_runs import OURS, Case, columns_of, methods_of, optimum, repeat
from search_statistics import summarize

import gensynth as gs
from gensynth.ir import GenSynthError, UsageError, nearest, to_text
from gensynth.synth.inquisitor import Experience
from gensynth.synth.search.strategy import strategies

ACCURACIES, HARDWARE = "nb201_acc.csv.gz", "nb201_hw.csv.gz"
CIFAR10, CIFAR100 = "test_acc_cifar10", "test_acc_cifar100"
ENERGY, MACS, PARAMS = "pi5_litert_energy_mJ_c100", "macs_c10_M", "params_c10_M"
PROGRAM = "build/search/nas-bench-201.gsir"
"""Where the section `table` prints the generator to."""

Arguments = argparse.Namespace


def sections(folder: Path) -> dict[str, dict[str, list[str]]]:
    """Returns the sections: each a run or two by name, as arguments."""
    files = ["--table", str(folder / ACCURACIES), "--hardware", str(folder / HARDWARE)]
    common = ["--task", "nas-bench-201", *files, "--pareto", ENERGY, "--pareto", MACS]
    short = [*common, "--metric", CIFAR10, "--budgets", "10,25,50"]

    def ceilings(percentile: str, *columns: str) -> list[str]:
        return [word for column in columns for word in ("--cost", column, "--ceiling-percentile", percentile)]

    found = {
        "cifar10": {"cifar10": [*common, "--metric", CIFAR10]},
        "cifar100": {
            "cifar100": [*common, "--metric", CIFAR100, "--budgets", "10,25,50", "--prior-metric", CIFAR10],
        },
        "netscore": {"netscore": [*short, "--performance", "netscore", "--params", PARAMS, "--macs", MACS]},
    }
    for name, columns in (("energy", (ENERGY,)), ("macs", (MACS,)), ("both", (ENERGY, MACS))):
        for percentile in ("10", "25", "50"):
            found[name + percentile] = {name + percentile: [*short, *ceilings(percentile, *columns)]}
    found["ablations"] = {
        "ablations": [*short, "--methods", "ablations"],
        "ablations-energy25": [*short, *ceilings("25", ENERGY), "--methods", "ablations"],
    }
    table = ["--task", "table", "--program", PROGRAM, "--key", "arch", "--alike", "iso_rep_index", *common[2:]]
    some = f"{OURS},random,evolution,local-search-scored,direct-ei"
    found["table"] = {"table": [*table, "--metric", CIFAR10, "--methods", some]}
    return found


# Arguments.


class Parser(argparse.ArgumentParser):
    """Errors are said as all others."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint="python bench/search.py --help")


def whole(text: str, least: int = 1) -> int:
    """Returns a whole number."""
    if not re.fullmatch(r"\d+", text) or int(text) < least:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number from {least} on")
    return int(text)


def from_nothing(text: str) -> int:
    """Returns a whole number that may be 0."""
    return whole(text, 0)


def numbers(text: str) -> tuple[int, ...]:
    """Returns whole numbers with commas between them, ascending."""
    return tuple(sorted({whole(part.strip()) for part in text.split(",")}))


def words(text: str) -> tuple[str, ...]:
    """Returns words with commas between them."""
    return tuple(filter(None, (part.strip() for part in text.split(","))))


def percentile(text: str) -> float:
    """Returns a percentile."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0.0 <= found <= 100.0:
        raise argparse.ArgumentTypeError(f"'{text}' is no percentile from 0 to 100")
    return found


def make_parser() -> Parser:
    """Returns the parser of the command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    add = parser.add_argument
    add("--task", choices=("nas-bench-201", "table"), help="NAS-Bench-201, or a space of your own")
    add("--program", metavar="GSIR", help="the generator program of --task table")
    add(
        "--key", type=words, metavar="COLUMN[,COLUMN...]", help="what holds the choices; columns named by choice if not"
    )
    add("--table", action="append", default=[], metavar="CSV", help="a row a network, .csv or .csv.gz; may be repeated")
    add("--hardware", action="append", default=[], metavar="CSV", help="a table with more columns; may be repeated")
    add("--alike", metavar="COLUMN", help="the row, from 0, that stands for empty cells (iso_rep_index)")
    add("--metric", metavar="COLUMN", help="accuracy in percent")
    add("--performance", default="accuracy", metavar="U", help="what is searched for: accuracy, netscore, ...")
    add("--params", metavar="COLUMN", help="parameters in millions (counted by GenSynth, like MACs)")
    add("--macs", metavar="COLUMN", help="MACs in millions")
    add("--cost", action="append", default=[], metavar="COLUMN|METRIC", help="what has a ceiling; may be repeated")
    add(
        "--ceiling",
        dest="bounds",
        action="append",
        default=[],
        metavar="VALUE",
        help="the --cost before is at most this",
    )
    add("--ceiling-percentile", dest="bounds", action="append", type=percentile, metavar="P", help="or this percentile")
    add("--pareto", action="append", default=[], metavar="COLUMN", help="costs of hypervolumes (those with ceilings)")
    add("--methods", default="all", metavar="NAMES", help="all, ablations, names of strategies, module:name")
    add("--budgets", type=numbers, default=(10, 25, 50, 100), metavar="N,N,...", help="trainings (10,25,50,100)")
    add("--repetitions", type=whole, default=100, metavar="N", help="each with its seed (100)")
    add("--seed", type=from_nothing, default=0, metavar="N", help="the first repetition's (0)")
    add("--batch", type=whole, default=1, metavar="N", help="trainings at a time (1)")
    add("--family", type=from_nothing, default=64, metavar="N", help="fresh seeds of the learned generator (64)")
    add("--probes", type=from_nothing, default=400, metavar="N", help="networks a search may probe (400)")
    add("--stimuli", metavar="TASK", help="what they are probed on: 'cifar10 data=FOLDER' (CIFAR-10, or photographs)")
    add("--stimuli-count", type=whole, default=32, metavar="N", help="images (32)")
    add("--probe-cache", metavar="FILE", help="where probes are kept (gensynth/probes.sqlite in the user's cache)")
    add("--prior", metavar="JSON", help="an experience.json to carry over")
    add("--prior-metric", metavar="COLUMN", help="or the accuracies that the inquisitor searches first")
    add("--prior-trainings", type=whole, default=50, metavar="N", help="so many trainings of those (50)")
    add("--processes", type=whole, default=2, metavar="N", help="repetitions side by side (2)")
    add("--quick", action="store_true", help="3 short repetitions, to see that it works")
    add("--json", type=Path, metavar="OUT", help="where to write the figures")
    add("--data", type=Path, metavar="FOLDER", help=f"run sections: {ACCURACIES}, {HARDWARE} and CIFAR-10 are in it")
    add("--sections", type=words, metavar="NAMES", help="which (all)")
    add("--out", type=Path, metavar="FOLDER", help="where sections write search-NAME.json (docs/results)")
    return parser


def check(arguments: Arguments) -> None:
    """Says what is missing or contradicts itself."""
    needed = {"--task": arguments.task, "--table": arguments.table or arguments.hardware, "--metric": arguments.metric}
    missing = [name for name, value in needed.items() if not value]
    if missing:
        raise UsageError(f"{' and '.join(missing)} missing", hint="python bench/search.py --help")
    if arguments.task == "table" and arguments.program is None:
        raise UsageError("--task table needs --program", hint="give the generator program, a .gsir file")
    if arguments.task != "table" and arguments.program is not None:
        raise UsageError(f"--program is not for --task {arguments.task}", hint="write --task table")
    if len(arguments.cost) != len(arguments.bounds):
        raise UsageError(
            f"{len(arguments.cost)} times --cost and {len(arguments.bounds)} ceilings",
            hint="give one --ceiling or --ceiling-percentile for each --cost, in the same order",
        )
    if (arguments.params is None) != (arguments.macs is None):
        raise UsageError("--params and --macs go together", hint="name both columns, or neither")
    if arguments.prior is not None and arguments.prior_metric is not None:
        raise UsageError("--prior and --prior-metric exclude each other", hint="give one of them")
    if arguments.json is not None and not arguments.json.parent.is_dir():
        raise UsageError(f"there is no folder {arguments.json.parent}", hint="make it, or write elsewhere")


def make_case(arguments: Arguments) -> Case:
    """Returns what is to be run, all of it checked before the first search.

    Raises:
        GenSynthError: something is wrong with the arguments or the files that they name.
    """
    check(arguments)
    own = arguments.task == "table"
    program = to_text(gs.load(arguments.program).graph) if own else None
    case = Case(
        program=program,
        tables=(*arguments.table, *arguments.hardware),
        key=arguments.key or (() if own else ("arch",)),
        alike=arguments.alike or (None if own else "iso_rep_index"),
        metric=arguments.metric,
        ceilings=(),
        performance=arguments.performance,
        params=arguments.params,
        macs=arguments.macs,
        pareto=(),
        stimuli="",
        stimuli_count=arguments.stimuli_count,
        probe_cache=str(Path(arguments.probe_cache).expanduser() if arguments.probe_cache else default_cache()),
        methods=methods_of(arguments.methods, arguments.prior is not None or arguments.prior_metric is not None),
        budgets=arguments.budgets,
        probes=arguments.probes,
        batch=arguments.batch,
        seed=arguments.seed,
        family=arguments.family,
        prior=arguments.prior,
        prior_metric=arguments.prior_metric,
        prior_trainings=arguments.prior_trainings,
    )
    if arguments.prior is not None:
        Experience.load(arguments.prior)
    table = case.table
    if arguments.alike is not None:
        table.column(arguments.alike)
    case = replace(case, stimuli=arguments.stimuli or default_stimuli(case), ceilings=ceilings_of(case, arguments))
    shape = tuple(case.graph.inputs[0].type.shape[1:])
    if case.on.image != shape:
        raise UsageError(
            f"--stimuli: images of {case.on.name} are {list(case.on.image)}, and the program takes {list(shape)}",
            hint=f"'photographs image={'x'.join(map(str, shape))}' needs no data",
        )
    _ = case.on.classes  # where data are missing, this says so
    for name in filter(None, (case.metric, case.prior_metric)):
        accuracies = columns_of(table, name)
        if not accuracies or min(accuracies) < 0.0 or max(accuracies) > 100.0:
            raise UsageError(f"column '{name}' holds no accuracies from 0 to 100 percent", hint="name another column")
        if max(accuracies) <= 1.0:
            print(f"note: no accuracy in '{name}' is above 1 percent; shares are to be made percent", file=sys.stderr)
    costs = [name for name, _ in case.ceilings if name in table.columns]
    pareto = arguments.pareto or costs or [name for name in (case.macs, case.params) if name is not None]
    return replace(case, pareto=tuple(dict.fromkeys(map(table.column, pareto))))


def ceilings_of(case: Case, arguments: Arguments) -> tuple[tuple[str, str], ...]:
    """Returns costs with their ceilings, percentiles made values."""
    found = []
    for cost, bound in zip(arguments.cost, arguments.bounds, strict=True):
        if isinstance(bound, float):
            values = columns_of(case.table, case.metric, cost)
            if not values:
                raise UsageError(f"no row has both {case.metric} and {cost}", hint="look at the columns")
            bound = repr(float(np.percentile(values, bound)))
        found.append((cost, bound))
    return tuple(found)


def default_cache() -> Path:
    """Returns where probes are kept: `gensynth` in XDG_CACHE_HOME, which by default is `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "gensynth" / "probes.sqlite"


def default_stimuli(case: Case) -> str:
    """Returns CIFAR-10 where GENSYNTH_DATA has it and the program takes its images, else crops of photographs."""
    shape = tuple(case.graph.inputs[0].type.shape[1:])
    folder = os.environ.get("GENSYNTH_DATA")
    if shape == (3, 32, 32) and folder and (Path(folder) / "cifar-10-batches-bin").is_dir():
        return "cifar10"
    classes = case.graph.outputs[0].type.shape[-1]
    return f"photographs image={'x'.join(map(str, shape))} classes={classes}"


# Runs.


def repetitions(executor: Executor | None, case: Case, count: int, title: str) -> list[dict[str, Any]]:
    """Returns what every repetition gave, and says how far it is.

    Raises:
        UsageError: one of them met a mistake.
    """
    started = time.perf_counter()
    found: dict[int, dict[str, Any]] = {}
    for number, result in _results(executor, case, count):
        if "error" in result:
            message, hint = result["error"]
            raise UsageError(message, hint=hint)
        found[number] = result
        print(f"{title}: {len(found)} of {count}, {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    return [found[number] for number in range(count)]


def _results(executor: Executor | None, case: Case, count: int) -> Iterator[tuple[int, dict[str, Any]]]:
    if executor is None:
        yield from ((number, repeat(case, number)) for number in range(count))
        return
    waiting = {executor.submit(repeat, case, number): number for number in range(count)}
    for future in as_completed(waiting):
        yield waiting[future], future.result()


def run(executor: Executor | None, arguments: Arguments, title: str) -> dict[str, Any]:
    """Runs all methods and returns their figures."""
    case = make_case(arguments)
    problem = case.problem
    best, feasible = optimum(problem)
    print(f"{title}: {len(case.methods)} methods, probes on '{case.stimuli}'", file=sys.stderr, flush=True)
    started = time.perf_counter()
    found = repetitions(executor, case, arguments.repetitions, title)
    told = {name: value for name, value in asdict(case).items() if name not in ("program", "probe_cache")}
    return {
        "arguments": {**told, "program": arguments.program, "repetitions": arguments.repetitions},
        "quick": arguments.quick,
        "machine": machine(),
        "rows": len(problem.rows),
        "feasible": feasible,
        "optimum": best,
        "seconds": time.perf_counter() - started,
        **summarize(found, case.budgets, best, OURS if OURS in case.methods else None),
    }


def write(path: Path, found: dict[str, Any]) -> None:
    """Writes figures as JSON, with eight digits and a list of numbers in a line."""

    def rounded(value: object) -> object:
        if isinstance(value, dict):
            return {key: rounded(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [rounded(item) for item in value]
        return float(f"{value:.8g}") if isinstance(value, float) else value

    text = json.dumps(rounded(found), indent=1)
    flat = re.sub(
        r"\[[^\[\]{}]*\]", lambda match: " ".join(match[0].split()).replace("[ ", "[").replace(" ]", "]"), text
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(flat + "\n", encoding="utf-8")


def show(found: dict[str, Any], title: str) -> None:
    """Prints the tables."""
    for figure in (method_figure(found, title), family_figure(found, title)):
        if figure is not None:
            print_table(figure.title, figure.columns, figure.rows, "\n".join(figure.notes))


def quick(arguments: Arguments) -> Arguments:
    """Makes a run short where that is asked for."""
    if arguments.quick:
        arguments.repetitions = min(arguments.repetitions, 3)
        arguments.budgets = tuple(budget for budget in arguments.budgets if budget <= 10) or arguments.budgets[:1]
        arguments.probes, arguments.family = min(arguments.probes, 40), min(arguments.family, 16)
        arguments.prior_trainings = min(arguments.prior_trainings, 10)
        if arguments.methods == "all":
            arguments.methods = ",".join(name for name in strategies() if name != "local-search-whole")
    return arguments


def _pool(processes: int) -> Any:
    """Returns processes to run repetitions in, or none where there is to be but this one."""
    if processes == 1:
        return nullcontext()
    # Worker processes inherit these; this one has loaded its libraries.
    os.environ.update(dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"))
    return ProcessPoolExecutor(processes, mp_context=get_context("spawn"))


def _planned(parser: Parser, argv: Sequence[str]) -> tuple[Arguments, list[tuple[str, Arguments, Path | None]]]:
    """Returns the arguments, and the title, the arguments and the place for the figures of every run."""
    arguments = quick(parser.parse_args(argv))
    if arguments.data is None:
        if arguments.sections is not None or arguments.out is not None:
            raise UsageError("--sections and --out need --data", hint="give the folder of the tables")
        return arguments, [(f"{arguments.task} {arguments.metric}", arguments, arguments.json)]
    if arguments.json is not None:
        raise UsageError("--json is for a single run", hint="with --data, give a folder as --out")
    known = sections(arguments.data)
    for name in arguments.sections or ():
        if name not in known:
            raise UsageError(f"unknown section '{name}'", hint=nearest(name, known, what="sections"))
    for name in (ACCURACIES, HARDWARE):
        if not (arguments.data / name).is_file():
            raise UsageError(f"{arguments.data} holds no {name}", hint="give the folder of the tables as --data")
    rest = list(argv)
    if arguments.stimuli is None and (arguments.data / "cifar-10-batches-bin").is_dir():
        rest += ["--stimuli", f"cifar10 data={arguments.data}"]
    out = arguments.out or (None if arguments.quick else Path("docs/results"))
    return arguments, [
        (title, quick(parser.parse_args([*given, *rest])), out and out / f"search-{title}.json")
        for name in (arguments.sections or known)
        for title, given in known[name].items()
    ]


def print_program() -> None:
    """Prints the generator of NAS-Bench-201 as a file, for the section `table`."""
    path = Path(PROGRAM)
    path.parent.mkdir(parents=True, exist_ok=True)
    gs.save(gs.prototype("nas-bench-201", arch="open"), path)


def _run_all(argv: Sequence[str]) -> None:
    from threadpoolctl import threadpool_limits

    arguments, planned = _planned(make_parser(), argv)
    if any(each.program == PROGRAM for _, each, _ in planned):
        print_program()
    for _, each, _ in planned[:1]:
        _ = make_case(each).problem  # mistakes are found before any process starts
    with threadpool_limits(1), _pool(arguments.processes) as executor:
        try:
            for title, each, path in planned:
                found = run(executor, each, title)
                if path is not None:
                    write(path, found)
                show(found, title)
        except BaseException:
            if executor is not None:
                executor.shutdown(wait=False, cancel_futures=True)
            raise


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one comparison, or sections; returns 2 for a user's mistake."""
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(1, str(Path.cwd()))  # for module:name
    try:
        _run_all(sys.argv[1:] if argv is None else argv)
    except GenSynthError as error:
        print(f"error: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return 2
    except BrokenProcessPool as error:
        print(f"error: a process of the benchmark died: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
