"""Files on the command line: networks from paths or stdin and to paths or stdout, and lists of seeds."""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from gensynth.ir import (
    Network,
    UsageError,
    check_weights,
    initialize,
    load_network,
    load_weights,
    parse,
    save_network,
    to_text,
    write_atomically,
)

__all__ = [
    "STREAM",
    "Seeds",
    "add_weights",
    "print_json",
    "read_network",
    "read_text",
    "seed",
    "write_network",
    "write_text",
]

STREAM = "-"
"""Stands for stdin or stdout."""

_MOST_SEED = 2**64


def add_weights(parser: argparse.ArgumentParser, *, fresh: str) -> None:
    """Adds --weights and --seed; `fresh` says when weights are drawn from the seed."""
    parser.add_argument(
        "--weights", metavar="FILE", help="a .safetensors file; by default the one beside the .gsir, where there is one"
    )
    parser.add_argument("--seed", type=seed, metavar="N", help=fresh)


def seed(text: str) -> int:
    """Reads a seed of fresh weights or of a training."""
    if not text.isdecimal() or int(text) >= _MOST_SEED:
        raise argparse.ArgumentTypeError(f"expected a whole number from 0 to 2^64 - 1, got '{text}'")
    return int(text)


def read_text(path: str, what: str) -> str:
    """Returns the text of a file, or of stdin for `-`; `what` says what the file should be.

    Raises:
        UsageError: it cannot be read or is not UTF-8.
    """
    name = "<stdin>" if path == STREAM else path
    try:
        content = sys.stdin.buffer.read() if path == STREAM else Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {name}: {error.strerror}", hint=f"give the path of {what}") from None
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise UsageError(f"{name} is no text: byte {error.start} is not UTF-8", hint=f"give {what}") from None


def read_network(path: str, weights: str | None = None, *, seed: int | None = None) -> Network:
    """Returns a network or generator from a file, or from stdin for `-`.

    Its weights are those given, else those beside the file, else with a seed fresh ones, else none.

    Raises:
        GenSynthError: the file cannot be read, is no valid text, or the weights do not fit.
    """
    if path == STREAM:
        graph = parse(read_text(path, "a network as text"), "<stdin>")
        network = Network(graph, None if weights is None else load_weights(weights, graph))
    else:
        network = load_network(path, weights)
    if network.weights is None and seed is not None:
        network = Network(network.graph, initialize(network.graph, seed))
    return network


def write_network(network: Network, path: str) -> None:
    """Writes a network to a file, weights beside it, or its text alone to stdout for `-`.

    Raises:
        GenSynthError: the file cannot be written.
    """
    if path != STREAM:
        save_network(network, path)
        return
    if network.weights is not None:
        check_weights(network.graph, network.weights)
        print("gensynth: note: stdout takes the text only; write to a file to keep the weights", file=sys.stderr)
    sys.stdout.write(to_text(network.graph))


def write_text(text: str, path: str) -> None:
    """Writes a text to a file, or to stdout for `-`.

    Raises:
        UsageError: the file cannot be written.
    """
    if path == STREAM:
        sys.stdout.write(text if text.endswith("\n") else text + "\n")
    else:
        write_atomically(path, text.encode())


def print_json(value: object, *, line: bool = False) -> None:
    """Prints a value as JSON to stdout, indented or on one line."""
    print(json.dumps(value, indent=None if line else 2), flush=line)


class Seeds:
    """Which seeds: `7`, `1,5,9`, `0:64` (64 left out), or several of these with commas between."""

    def __init__(self, text: str) -> None:
        """Reads the text.

        Raises:
            UsageError: it names no seeds, or one twice.
        """
        self.ranges = tuple(self._range(part.strip(), text) for part in text.split(","))
        ordered = sorted(self.ranges, key=lambda item: item.start)
        for first, second in itertools.pairwise(ordered):
            if second.start < first.stop:
                raise UsageError(f"--seeds {text}: seed {second.start} is named twice", hint="name every seed once")

    @staticmethod
    def _range(part: str, text: str) -> range:
        match = re.fullmatch(r"(\d+)(?::(\d+))?", part, re.ASCII)
        if match is None:
            raise UsageError(
                f"--seeds {text}: '{part}' is no seed", hint="write 7, or 1,5,9, or 0:64 for the seeds 0 to 63"
            )
        start = int(match[1])
        stop = start + 1 if match[2] is None else int(match[2])
        if stop <= start:
            raise UsageError(f"--seeds {text}: {part} holds no seed", hint=f"write {start}:{start + 1} for one seed")
        if stop > _MOST_SEED:
            raise UsageError(f"--seeds {text}: {part} goes too far", hint="seeds run from 0 to 2^64 - 1")
        return range(start, stop)

    def __len__(self) -> int:
        return sum(item.stop - item.start for item in self.ranges)

    def __iter__(self) -> Iterator[int]:
        return itertools.chain.from_iterable(self.ranges)
