"""The command `opt`: a pass pipeline on a network, watched as closely as one likes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from gensynth.ir import Network, UsageError, nearest

from .command import Command
from .costing import DEVICE_HELP, interval_text, number_text
from .files import STREAM, add_weights, print_json, read_network, read_text, write_network
from .output import human, print_table

if TYPE_CHECKING:
    from gensynth.passes import Instrument, Ledger, LedgerRow, Pass, Rule, Verdict
    from gensynth.passes.cost import Interval

__all__ = ["COMMANDS"]


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", metavar="IN.gsir", help="the network or generator; - for stdin")
    parser.add_argument(
        "--passes", metavar="PIPELINE", help='such as "fold-batch-norm,canonicalize"; @FILE reads it from a file'
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="where to write the result; stdout by default, nowhere with --json or --why",
    )
    add_weights(parser, fresh="where there are no weights, start from fresh ones drawn from this seed")
    parser.add_argument("--print-ir-before-all", action="store_true", help="print the IR before every pass, to stderr")
    parser.add_argument("--print-ir-after-all", action="store_true", help="print the IR after every pass, to stderr")
    parser.add_argument(
        "--print-ir-before", action="append", default=[], metavar="NAME", help="print the IR before the passes NAME,..."
    )
    parser.add_argument(
        "--print-ir-after", action="append", default=[], metavar="NAME", help="print the IR after the passes NAME,..."
    )
    parser.add_argument("--dump-ir", metavar="DIR", help="write the IR after every pass to DIR/NNN_pass.gsir")
    parser.add_argument(
        "--ledger", action="store_true", help="print what every pass did to nodes, params, MACs, bytes, memory"
    )
    parser.add_argument("--device", metavar="D", help=f"the ledger, with latency and energy on a device: {DEVICE_HELP}")
    parser.add_argument(
        "--why",
        metavar="RULE",
        help="dry run: where this rewrite rule applies, where it nearly does, and what stops it",
    )
    parser.add_argument("--json", action="store_true", help="the ledger, and the verdicts of --why, as one JSON object")


def _opt(arguments: argparse.Namespace) -> int:
    from gensynth.passes import PassManager

    if arguments.passes is None and arguments.why is None:
        raise UsageError("gensynth opt: --passes is missing", hint='write --passes "canonicalize", or --why RULE')
    if arguments.output == STREAM and arguments.json:
        raise UsageError("the network and the JSON cannot both go to stdout", hint="give -o a file")
    passes = _pipeline(arguments.passes or "")
    rule = None if arguments.why is None else _rule(arguments.why)
    ledger = _ledger(arguments.device)
    told = arguments.ledger or arguments.device is not None
    instruments: list[Instrument] = [ledger] if told or arguments.json else []
    instruments += _printers(arguments, passes)
    network = read_network(arguments.network, arguments.weights, seed=arguments.seed)
    network = PassManager(passes, instruments=instruments).run(network)
    output = arguments.output
    if output is None and not arguments.json and rule is None:
        output = STREAM
    if output is not None:
        write_network(network, output)
    verdicts = None if rule is None else rule.why(network)
    if arguments.json:
        print_json(_as_json(network, output, ledger, verdicts))
        return 0
    if told:
        _print_ledger(ledger, to_stderr=output == STREAM)
    if rule is not None and verdicts is not None:
        _print_verdicts(rule, verdicts, to_stderr=output == STREAM)
    return 0


def _ledger(device: str | None) -> Ledger:
    from gensynth.passes import Ledger
    from gensynth.passes.cost import cost_model

    return Ledger() if device is None else Ledger(device=cost_model(device))


def _pipeline(text: str) -> tuple[Pass, ...]:
    from gensynth.passes import parse_pipeline

    if text.startswith("@"):
        return parse_pipeline(read_text(text[1:], "a file of passes, such as canonicalize"), text[1:])
    return parse_pipeline(text, "--passes")


def _rule(text: str) -> Rule:
    from gensynth.passes import Rule, all_passes, parse_pipeline

    found = parse_pipeline(text, "--why")
    if len(found) != 1 or not isinstance(found[0], Rule):
        rules = [item.name for item in all_passes() if issubclass(item, Rule)]
        raise UsageError(f"--why: '{text}' is not one rewrite rule", hint=nearest(text, rules, what="rewrite rules"))
    return found[0]


def _printers(arguments: argparse.Namespace, passes: tuple[Pass, ...]) -> list[Instrument]:
    from gensynth.passes import DumpIR, PrintIR

    names = {item.name for item in passes}
    printers: list[Instrument] = []
    for when, everywhere, asked in (
        ("before", arguments.print_ir_before_all, arguments.print_ir_before),
        ("after", arguments.print_ir_after_all, arguments.print_ir_after),
    ):
        chosen = [name.strip() for item in asked for name in item.split(",")]
        for name in chosen:
            if name not in names:
                raise UsageError(
                    f"--print-ir-{when}: '{name}' is no pass of the pipeline",
                    hint=nearest(name, names, what="passes of the pipeline"),
                )
        if everywhere:
            printers.append(PrintIR(sys.stderr, when))
        elif chosen:
            printers.append(PrintIR(sys.stderr, when, frozenset(chosen)))
    if arguments.dump_ir is not None:
        printers.append(DumpIR(Path(arguments.dump_ir)))
    return printers


def _as_json(
    network: Network, output: str | None, ledger: Ledger, verdicts: Iterable[Verdict] | None
) -> dict[str, object]:
    found: dict[str, object] = {
        "network": network.name,
        "path": output,
        "ledger": [row.as_dict() for row in ledger.rows],
    }
    if verdicts is not None:
        found["why"] = [
            {"name": item.name, "op": item.op, "applies": item.reason is None, "reason": item.reason}
            for item in verdicts
        ]
    return found


_COUNTS = {
    "params": ">params",
    "macs": ">MACs",
    "weight_bytes": ">weights [B]",
    "activation_bytes": ">activations [B]",
    "peak_memory": ">peak memory [B]",
}
_ON_DEVICE = {"latency": ">latency [ms]", "energy": ">energy [mJ]"}


def _print_ledger(ledger: Ledger, *, to_stderr: bool) -> None:
    on_device = _ON_DEVICE if ledger.device is not None else {}
    rows = []
    for row in ledger.rows:
        pairs = [(getattr(row.before, name, None), getattr(row.after, name, None)) for name in _COUNTS]
        rows.append(
            [
                row.item,
                _change(row.nodes_before, row.nodes_after),
                str(row.choices_after),
                *(_change(old, new) for old, new in pairs),
                *(_estimates(row, name) for name in on_device),
                f"{1000 * row.seconds:.1f}",
                "; ".join(row.notes) if row.changed else "no change",
            ]
        )
    columns = ["pass", ">nodes", ">choices", *_COUNTS.values(), *on_device.values(), ">took [ms]", "notes"]
    stream = sys.stderr if to_stderr else sys.stdout
    print_table(columns, rows, stream=stream)
    if ledger.device is not None:
        print(f"on {ledger.device.text}; in brackets 90% intervals of what comes after the pass", file=stream)


def _change(old: int | None, new: int | None) -> str:
    if new is None:
        return "open"
    return human(new) if old in (None, new) else f"{human(old)} -> {human(new)}"


def _estimates(row: LedgerRow, quantity: str) -> str:
    """Returns latency or energy before and after a pass, the latter with its interval."""
    old: Interval | None = getattr(row.estimate_before, quantity, None)
    new: Interval | None = getattr(row.estimate_after, quantity, None)
    if new is None:
        return "open"
    shown = interval_text(new)
    before = "" if old is None else number_text(old.value)
    return shown if before in ("", shown.partition(" ")[0]) else f"{before} -> {shown}"


def _print_verdicts(rule: Rule, verdicts: tuple[Verdict, ...], *, to_stderr: bool) -> None:
    stream = sys.stderr if to_stderr else sys.stdout
    fit = sum(item.reason is None for item in verdicts)
    print_table(
        ["spot", "op", "verdict"],
        [[f"%{item.name}", item.op, "applies" if item.reason is None else item.reason] for item in verdicts],
        stream=stream,
    )
    print(f"{rule.text()}: applies at {fit} of {len(verdicts)} spots", file=stream)


COMMANDS = (
    Command(
        "opt",
        "run passes on a network or a generator",
        (
            'gensynth opt resnet8.gsir --passes "fold-batch-norm,canonicalize" -o folded.gsir',
            'gensynth opt resnet8.gsir --passes "open-width,offer{rewrite=separate-conv}" --ledger -o generator.gsir',
            'gensynth opt resnet8.gsir --passes "fold-batch-norm" --device tegra-x2-gpu:fp16 -o folded.gsir',
            "gensynth opt resnet8.gsir --why separate-conv",
        ),
        _arguments,
        _opt,
        "`gensynth passes` lists the passes; the graph and the weights are verified after each.",
    ),
)
