"""Commands that make what boards run, and measure it: `compile`, `measure`, `targets`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gensynth.ir import Network, UsageError, nearest

from .command import Command, count, positive
from .files import STREAM, add_weights, print_json, read_network
from .output import human, print_table, progress

if TYPE_CHECKING:
    from gensynth.backends.tvm import Manifest, Measurement
    from gensynth.backends.tvm.measuring import Settings

__all__ = ["COMMANDS"]

_SHOWN = 12
"""So many kernels, the dearest, are shown of a network that has more."""


def _require_tvm(what: str) -> None:
    if find_spec("tvm") is None:
        raise UsageError(f"{what} needs TVM, which is not installed", hint='pip install "gensynth[tvm]"')


# compile


def _compile_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="NET.gsir", help="the network; - for stdin")
    parser.add_argument(
        "--target", default="host", metavar="T", help="one of `gensynth targets`, or a target file (default host)"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="where to write the artifact, and DIR.tar.gz")
    add_weights(parser, fresh="where there are no weights, fresh ones drawn from this seed")
    parser.add_argument("--batch", type=positive, default=1, metavar="N", help="images at once (default 1)")
    parser.add_argument(
        "--dtype", choices=("f32", "f16"), default="f32", help="of weights and activations (default f32)"
    )
    parser.add_argument("--tune", type=positive, metavar="N", help="measure up to N schedules of each kernel here")
    parser.add_argument(
        "--seconds", type=positive, default=120, metavar="S", help="about how long --tune may take (default 120)"
    )
    parser.add_argument("--records", metavar="FILE.json", help="keeps what tuning found; later compiles use it")
    parser.add_argument("--task", metavar="T", help="put this task's preprocessing and classes into the manifest")
    parser.add_argument("--data", metavar="DIR", help="the task's data folder; $GENSYNTH_DATA by default")
    parser.add_argument("--option", action="append", default=[], metavar="key=value", help="an option of the task")
    parser.add_argument("--no-source", action="store_true", help="leave the network's text and weights out")
    parser.add_argument("--no-archive", action="store_true", help="write the folder only, no DIR.tar.gz")
    parser.add_argument("--force", action="store_true", help="replace an artifact even where files were added to it")
    parser.add_argument("--json", action="store_true", help="print the manifest")


def _compile(arguments: argparse.Namespace) -> int:
    _require_tvm("gensynth compile")
    from gensynth.backends.tvm import compile_network, load_target
    from gensynth.backends.tvm.starting import import_tvm_alone

    if arguments.out == STREAM:
        raise UsageError("an artifact is a folder, it cannot go to stdout", hint="give --out a folder")
    target = load_target(arguments.target)
    network = read_network(arguments.network, arguments.weights, seed=arguments.seed)
    preprocessing = None if arguments.task is None else _preprocessing(arguments, network)
    import_tvm_alone()
    with progress() as listener:
        if arguments.tune:
            listener.stage(f"tuning @{network.name} for {target.name}")

        def on_kernel(done: int, total: int, kernel: str) -> None:
            listener.advance(done, total, kernel.partition(" | ")[0].strip(" >"))

        manifest = compile_network(
            network,
            target,
            arguments.out,
            batch=arguments.batch,
            dtype=arguments.dtype,
            trials=arguments.tune or 0,
            seconds=arguments.seconds,
            records=arguments.records,
            preprocessing=preprocessing,
            source=not arguments.no_source,
            archive=not arguments.no_archive,
            force=arguments.force,
            progress=on_kernel,
        )
    if arguments.json:
        print_json(manifest.facts)
    else:
        _tell(manifest, Path(arguments.out), archive=not arguments.no_archive)
    return 0


def _preprocessing(arguments: argparse.Namespace, network: Network) -> dict[str, object]:
    """Returns what the manifest tells of a task: how inputs are made of pixels, and the names of the classes."""
    from gensynth.synth.tasks import parse_task_options, task

    stated = [] if arguments.data is None else [f"data={arguments.data}"]
    chosen = task(arguments.task, **parse_task_options(arguments.task, [*stated, *arguments.option]))
    sizes = network.graph.inputs[0].type.shape[1:]
    if len(network.graph.inputs) != 1 or sizes != chosen.image:
        shown, takes = ("x".join(map(str, item)) for item in (chosen.image, sizes))
        raise UsageError(
            f"the images of task '{chosen.name}' are {shown}, @{network.name} takes {takes}",
            hint="give the task that the network was trained on",
        )
    return {"task": chosen.name, **chosen.preprocessing, "classes": list(chosen.class_names)}


def _tell(manifest: Manifest, folder: Path, *, archive: bool) -> None:
    from gensynth.backends.tvm.host import host_architecture

    facts = manifest.facts
    kernels = cast("list[dict[str, object]]", facts["kernels"])
    memory = cast("dict[str, int]", facts["memory"])
    _print_kernels(kernels, on_gpu=manifest.kind == "cuda")
    print()
    total = sum(entry.bytes for entry in manifest.files.values())
    batch, macs = manifest.batch, cast("int", facts["macs"])
    print(f"@{manifest.name} for {manifest.target}, batch {batch}, {manifest.dtype}: {macs:,} MACs ({human(macs)})")
    print(
        f"{len(cast('list[object]', facts['steps']))} steps of {len(kernels)} kernels;"
        f" activations {human(memory['arena_bytes'])}B, weights {human(memory['weights_bytes'])}B"
    )
    check = cast("dict[str, object]", facts["check"])
    print(f"{_proof(check)}\n\n{folder}/ ({len(manifest.files) + 1} files, {human(total)}B)")
    if archive:
        from gensynth.backends.tvm.artifact import archive_of

        print(f"{archive_of(folder)} ({human(archive_of(folder).stat().st_size)}B)")
    here = manifest.architecture == host_architecture() and manifest.kind == "cpu"
    print(f"next: gensynth measure {folder}" + ("" if here else "   (says how to run it on the board)"))


def _proof(check: Mapping[str, object]) -> str:
    judge = {"reference": "the reference", "onnxruntime": "ONNX Runtime", "torch": "PyTorch"}[str(check["judge"])]
    if check["compared"]:
        return f"its outputs are those of {judge}, within {check['tolerance']} of their range"
    return f"its outputs are to be those of {judge}, within {check['tolerance']} of their range: ./run --selftest"


def _print_kernels(kernels: Sequence[Mapping[str, object]], *, on_gpu: bool) -> None:
    def cost(entry: Mapping[str, object]) -> int:
        return cast("int", entry["predicted_cycles"]) * cast("int", entry["calls"])

    total = sum(map(cost, kernels)) or 1
    shown = sorted(kernels, key=cost, reverse=True)[:_SHOWN]
    extra = [">blocks", ">threads", ">registers", ">spills"] if on_gpu else [">tasks"]
    rows = []
    for entry in shown:
        row = [_node(entry), str(entry["template"]), str(entry["calls"])]
        row += [human(cast("int", entry[key])) for key in ("macs", "bytes", "predicted_cycles")]
        row.append(f"{100 * cost(entry) / total:.1f}%")
        if on_gpu:
            blocks, threads = (_product(cast("list[int]", entry[key])) for key in ("grid", "block"))
            row += [str(blocks), str(threads), *(str(entry.get(key, "-")) for key in ("registers", "spill_bytes"))]
        else:
            row.append(str(entry["tasks"]))
        rows.append(row)
    columns = ["kernel of", "template", ">calls", ">MACs", ">bytes", ">cycles", ">share", *extra]
    print_table(columns, rows)
    if len(kernels) > len(shown):
        print(f"and {len(kernels) - len(shown)} more; cycles are estimates, MACs, bytes and cycles those of one call")
    else:
        print("cycles are estimates; MACs, bytes and cycles are those of one call")


def _node(entry: Mapping[str, object]) -> str:
    """Returns the node that a kernel was made for, and how many others it computes."""
    nodes = cast("list[str]", entry["nodes"])
    return str(entry["op"]) if not nodes else nodes[0] + (f" +{len(nodes) - 1}" if len(nodes) > 1 else "")


def _product(sizes: Sequence[int]) -> int:
    x, y, z = sizes
    return x * y * z


# measure


def _measure_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("artifact", metavar="DIR", help="an artifact: the folder or the .tar.gz")
    parser.add_argument("--threads", type=positive, metavar="T", help="threads; by default one for each processor")
    parser.add_argument(
        "--repetitions",
        type=positive,
        metavar="N",
        help="timed runs (default 100); with --energy those of a block (default as many as take 2 s)",
    )
    parser.add_argument("--energy", action="store_true", help="measure the energy of a run by the power sensors")
    parser.add_argument("--rails", metavar="A,B", help="the rails for --energy (default that of the whole machine)")
    parser.add_argument("--blocks", type=positive, metavar="B", help="blocks of runs for --energy (default 10)")
    parser.add_argument("--idle", type=count, metavar="S", help="seconds for the power when idle (default 10)")
    parser.add_argument("--rpc", metavar="HOST:PORT", help="measure on this TVM RPC server")
    parser.add_argument(
        "--board", metavar="USER@HOST", help="the board in the commands that are printed for another machine"
    )
    parser.add_argument("--result", metavar="FILE.json", help="take what was printed on the board")
    parser.add_argument("--power-mode", default="", metavar="MODE", help="noted in the CSV, such as MAX-N")
    parser.add_argument("--csv", metavar="FILE.csv", help="add the measurement to this file")
    parser.add_argument("--json", action="store_true", help="the measurement as one JSON object")


def _measure(arguments: argparse.Namespace) -> int:
    from gensynth.backends.tvm import append_csv, board_result, check_csv, measure_here, measure_over_rpc

    path = Path(arguments.artifact)
    threads, repetitions, mode = arguments.threads or 0, arguments.repetitions or 100, arguments.power_mode
    energy = _energy_settings(arguments)
    if arguments.csv is not None:
        check_csv(arguments.csv)
    if arguments.rpc is not None and arguments.result is not None:
        raise UsageError("--rpc and --result exclude each other", hint="give one of them")
    if arguments.rpc is not None and energy is not None:
        raise UsageError(
            "--rpc and --energy exclude each other", hint="on a board with ssh: --board USER@HOST --energy"
        )
    if arguments.rpc is not None:
        _require_tvm("gensynth measure --rpc")
        host, port = _address(arguments.rpc)
        found = measure_over_rpc(path, host, port, threads=threads, repetitions=repetitions, power_mode=mode)
    elif arguments.result is not None:
        found = board_result(path, Path(arguments.result), power_mode=mode, energy=energy is not None)
    elif arguments.board is not None or _elsewhere(path):
        return _say_how(arguments, path, energy)
    elif energy is not None:
        with progress() as listener:
            found = measure_here(path, threads=threads, power_mode=mode, energy=energy, tell=listener.line)
    else:
        found = measure_here(path, threads=threads, repetitions=repetitions, power_mode=mode)
    if arguments.csv is not None:
        append_csv(arguments.csv, [found])
    if arguments.json:
        print_json(found.as_dict())
    else:
        _tell_times(found, arguments.csv)
    return 0


def _energy_settings(arguments: argparse.Namespace) -> Settings | None:
    """Returns how to measure energy, None where it is not asked for."""
    names = ("rails", "blocks", "idle")
    if not arguments.energy:
        for name in names:
            if getattr(arguments, name) is not None:
                raise UsageError(f"--{name} goes with --energy", hint=f"add --energy, or leave --{name} out")
        return None
    from gensynth.backends.tvm.measuring import Settings

    given: dict[str, Any] = {name: getattr(arguments, name) for name in (*names, "repetitions")}
    if given["rails"] is not None:
        given["rails"] = tuple(name.strip() for name in given["rails"].split(",") if name.strip())
    if given["blocks"] == 1:
        raise UsageError("--blocks 1: one block has no standard error", hint="two are the fewest, ten are fine")
    return Settings(**{name: value for name, value in given.items() if value is not None})


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(f"--rpc {text}: cannot read it", hint="write HOST:PORT, such as 192.168.1.20:9090")
    return host.strip("[]"), int(port)


def _elsewhere(path: Path) -> bool:
    """Returns whether an artifact is for another architecture than this machine's."""
    from gensynth.backends.tvm.artifact import open_artifact, verify
    from gensynth.backends.tvm.host import host_architecture

    with open_artifact(path) as folder:
        return verify(folder).architecture != host_architecture()


def _say_how(arguments: argparse.Namespace, path: Path, energy: Settings | None) -> int:
    from gensynth.backends.tvm import board_commands

    commands = board_commands(
        path,
        board=arguments.board or "USER@BOARD",
        threads=arguments.threads or 0,
        repetitions=arguments.repetitions or 100,
        csv_path=arguments.csv or "measured.csv",
        energy=energy,
    )
    if arguments.json:
        print_json({"commands": list(commands)})
        return 0
    print(f"{path} runs on another machine. Type:\n")
    print("\n".join(f"  {command}" for command in commands))
    return 0


def _tell_times(found: Measurement, csv: str | None) -> None:
    threads = f"{found.threads} thread{'s' * (found.threads != 1)}"
    print(f"{found.network}: {found.device}, batch {found.batch}, {found.precision}, {threads}")
    columns = {
        "p50": found.latency_ms,
        "mean": found.mean_ms,
        "min": found.min_ms,
        "p90": found.p90_ms,
        "p95": found.p95_ms,
        "p99": found.p99_ms,
        "max": found.max_ms,
    }
    print_table(
        ["latency [ms]", *(f">{name}" for name in columns)], [["", *(f"{value:.4f}" for value in columns.values())]]
    )
    print(f"{1e3 * found.batch / found.mean_ms:,.1f} images a second, {found.repetitions} repetitions")
    if found.energy_mj is not None:
        print(f"energy {found.energy_mj:.4g} mJ a run, standard error {found.energy_se_mj or 0:.2g}; {found.rails}")
    if found.energy_above_idle_mj is not None:
        print(f"{found.energy_above_idle_mj:.4g} mJ of it above idle, which is {found.idle_w or 0:.4g} W")
    if csv is not None:
        print(csv)


# targets


def _targets_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="tell all about this one")
    parser.add_argument("--json", action="store_true", help="print JSON: a list of objects, or the one asked for")


def _targets(arguments: argparse.Namespace) -> int:
    from gensynth.backends.tvm import known_targets

    found = {target.name: target for target in known_targets()}
    if arguments.name is None:
        if arguments.json:
            print_json([target.as_dict() for target in found.values()])
        else:
            print_table(
                ["target", "kind", "dtypes", "description"],
                [[item.name, item.kind, ",".join(item.dtypes), item.description] for item in found.values()],
            )
        return 0
    if arguments.name not in found:
        raise UsageError(f"unknown target '{arguments.name}'", hint=nearest(arguments.name, found, what="targets"))
    facts = found[arguments.name].as_dict()
    if arguments.json:
        print_json(facts)
        return 0
    print(f"{facts.pop('name')}\n\n{facts.pop('description')}\n")
    sources = cast("dict[str, str]", facts.pop("sources"))
    print_table(["figure", "value", "from"], [[key, value, sources.get(key, "")] for key, value in _flat(facts)])
    return 0


def _flat(facts: Mapping[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """Returns the figures of a target as (name as in a target file, value)."""
    rows: list[tuple[str, str]] = []
    for key, value in facts.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            rows.append((f"{prefix}{key}", ", ".join(map(str, value))))
        elif value is not None:
            rows.append((f"{prefix}{key}", str(value).lower() if isinstance(value, bool) else str(value)))
    return rows


COMMANDS = (
    Command(
        "compile",
        "compile a network for a board: an artifact that runs without Python",
        (
            "gensynth compile resnet8.gsir --target tegra-x2-cpu --out artifact",
            "gensynth compile resnet8.gsir --seed 0 --target host --out artifact --tune 32 --records tuned.json",
        ),
        _compile_arguments,
        _compile,
        "The artifact holds the program, its weights, check vectors and a manifest.",
    ),
    Command(
        "measure",
        "measure the latency and energy of an artifact, here or on its board",
        (
            "gensynth measure artifact --repetitions 200 --csv measured.csv",
            "gensynth measure artifact --board nvidia@tx2 --energy",
            "gensynth measure artifact --rpc 192.168.1.20:9090",
        ),
        _measure_arguments,
        _measure,
        "For another machine than this one it prints what to type.",
    ),
    Command(
        "targets",
        "list the targets, or tell all about one",
        ("gensynth targets tegra-x2-gpu",),
        _targets_arguments,
        _targets,
        "A target file of your own does as well: `gensynth compile --target FILE.toml`.",
    ),
)
