"""Commands that make generators and let them emit: `synthesize`, `generate`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from gensynth.ir import Network, UsageError, architecture_hash, save_network, verify

from .command import Command, Interrupted, count, require_torch
from .files import STREAM, Seeds, print_json, read_network
from .output import human, print_table, progress

if TYPE_CHECKING:
    from gensynth.passes.cost import CostModel
    from gensynth.synth.generator import Generator

__all__ = ["COMMANDS"]

Row = Mapping[str, object]


def _synthesize_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG.toml", help="prototype, task, requirements, search and training")
    parser.add_argument("--out", metavar="DIR", help="the run directory; runs/NAME for NAME.toml by default")
    parser.add_argument("--resume", action="store_true", help="go on with a run that was cut off")
    parser.add_argument("--processes", type=count, metavar="N", help="worker processes; 0 works in this one")
    parser.add_argument("--json", action="store_true", help="print summary.json instead of the table")


def _synthesize(arguments: argparse.Namespace) -> int:
    require_torch("gensynth synthesize")
    from gensynth.synth.executor import LocalExecutor
    from gensynth.synth.synthesis import synthesize

    executor = None if arguments.processes is None else LocalExecutor(arguments.processes)
    try:
        with progress() as listener:
            result = synthesize(
                arguments.config, out=arguments.out, resume=arguments.resume, executor=executor, progress=listener
            )
    except KeyboardInterrupt:
        out = "" if arguments.out is None else f" --out {arguments.out}"
        raise Interrupted(f"go on with: gensynth synthesize {arguments.config}{out} --resume") from None
    finally:
        if executor is not None:
            executor.close()
    if arguments.json:
        print_json(result.summary)
        return 0
    prototype = cast(Row, result.summary["prototype"])
    networks = cast("list[Row]", result.summary["networks"])
    _print_family(prototype, networks)
    print(f"\nrun directory: {result.out}\nreport: {result.report}")
    return 0


def _print_family(prototype: Row, networks: list[Row]) -> None:
    """Prints the prototype and its FermiNets, with ratios to the prototype; energy where there is a device."""
    on_device = "energy_mj" in prototype

    def number(row: Row, key: str) -> float:
        return float(cast(float, row[key]))

    def ratio(above: float, below: float) -> str:
        return f"{above / below:.1f}x" if below else "-"

    def cells(name: str, row: Row) -> list[str]:
        found = [
            name,
            f"{number(row, 'accuracy'):.2f}",
            human(int(number(row, "params"))),
            human(int(number(row, "macs"))),
            f"{number(row, 'information_density'):,.0f}",
            f"{number(row, 'netscore'):.1f}",
            ratio(number(row, "information_density"), number(prototype, "information_density")),
            ratio(number(prototype, "macs"), number(row, "macs")),
            ratio(number(prototype, "params"), number(row, "params")),
        ]
        if on_device:
            found += [
                f"{number(row, 'latency_ms'):.3g}",
                f"{number(row, 'energy_mj'):.3g}",
                ratio(number(prototype, "energy_mj"), number(row, "energy_mj")),
            ]
        return [*found, "yes" if row["feasible"] else "no", str(row["architecture_hash"])]

    print_table(
        [
            "network",
            ">test accuracy [%]",
            ">params",
            ">MACs",
            ">density [%/M]",
            ">NetScore",
            ">density x",
            ">MACs /",
            ">params /",
            *([">latency [ms]", ">energy [mJ]", ">energy /"] if on_device else []),
            "feasible",
            "architecture",
        ],
        [cells("prototype", prototype), *(cells(f"seed {row['seed']}", row) for row in networks)],
    )


def _generate_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("generator", metavar="GENERATOR.gsir", help="the generator; - for stdin")
    parser.add_argument("--seeds", required=True, metavar="SEEDS", help="7, or 1,5,9, or 0:64 for the seeds 0 to 63")
    parser.add_argument("--out", required=True, metavar="DIR", help="where to write seed-000007.gsir, ...")
    parser.add_argument("--weights", metavar="FILE", help="weights that networks inherit; beside the .gsir by default")
    parser.add_argument("--no-repair", action="store_true", help="keep what is drawn, whether or not it is feasible")
    parser.add_argument("--force", action="store_true", help="write into DIR even when it holds files")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line for every network")


def _generate(arguments: argparse.Namespace) -> int:
    from gensynth.synth.generator import Generator

    seeds = Seeds(arguments.seeds)
    generator = Generator(read_network(arguments.generator, arguments.weights))
    requirements = ", ".join(map(str, generator.materializer.requirements))
    model = next(iter(generator.materializer.meter.models.values()), None)
    folder = _empty_folder(arguments.out, force=arguments.force)
    hashes: set[str] = set()
    feasible = 0
    with progress() as listener:
        meet = f" that meet {requirements}" if requirements and not arguments.no_repair else ""
        listener.stage(f"generating {len(seeds)} network{'s' if len(seeds) != 1 else ''}{meet}")
        for done, seed in enumerate(seeds, 1):
            row = _emit(generator, seed, folder, model, repair=not arguments.no_repair)
            hashes.add(str(row["architecture_hash"]))
            feasible += bool(row["feasible"])
            if arguments.json:
                print_json(row, line=True)
            listener.advance(done, len(seeds), "")
    if not arguments.json:
        print(f"{len(seeds)} networks in {folder}: {len(hashes)} architectures, {feasible} feasible")
    return 0


def _emit(generator: Generator, seed: int, folder: Path, model: CostModel | None, *, repair: bool) -> dict[str, object]:
    """Writes the network of a seed and returns its row; with the model of a device, latency and energy there."""
    from gensynth.synth.devices import device_figures

    decided = generator.decide(seed, repair=repair)
    verify(decided.graph)
    path = folder / f"seed-{seed:06d}.gsir"
    save_network(Network(decided.graph, generator.weights_for(decided)), path)
    return {
        "seed": seed,
        "architecture_hash": architecture_hash(decided.graph),
        "params": decided.totals.params,
        "macs": decided.totals.macs,
        "peak_memory_bytes": decided.totals.peak_memory,
        "information_density": None,
        "netscore": None,
        **device_figures(decided.graph, model),
        "feasible": generator.materializer.violation(decided.costs) == 0.0,
        "path": str(path),
    }


def _empty_folder(name: str, *, force: bool) -> Path:
    if name == STREAM:
        raise UsageError("networks cannot go to stdout", hint="give --out a folder")
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not force and any(folder.iterdir()):
            raise UsageError(f"{folder} is not empty", hint="choose another --out, or write into it with --force")
    except OSError as error:
        raise UsageError(
            f"cannot write {folder}: {error.strerror}", hint="choose a folder that can be written"
        ) from None
    return folder


COMMANDS = (
    Command(
        "synthesize",
        "learn a generator, emit FermiNets, train and report them",
        ("gensynth synthesize examples/digits.toml --out runs/digits",),
        _synthesize_arguments,
        _synthesize,
        "The run directory holds every evaluation; a run that was cut off goes on with --resume and loses nothing.",
    ),
    Command(
        "generate",
        "emit the networks of a generator for some seeds",
        ("gensynth generate generator.gsir --seeds 0:4 --out nets --json",),
        _generate_arguments,
        _generate,
        "The same seed gives the same network everywhere. Networks take the generator's weights, where it has any.",
    ),
)
