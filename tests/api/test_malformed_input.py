"""Malformed input of every kind ends in exit code 2 and one message that says where and how to mend it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from command_line import OPEN, TINY, Run

from gensynth.ir import initialize, parse, save_weights


@dataclass(frozen=True)
class Case:
    """A command that must fail: what makes its files, and words of the message, its place among them."""

    name: str
    command: tuple[str, ...]
    says: tuple[str, ...]
    prepare: Callable[[Path], None] | None = None
    stdin: bytes = b""


def text(name: str, content: str | bytes, *says: str, command: tuple[str, ...] = ("cost", "bad.gsir")) -> Case:
    """A malformed .gsir file."""
    written = content.encode() if isinstance(content, str) else content
    return Case(name, command, says, lambda folder: _write(folder / "bad.gsir", written))


def node(name: str, line: str, *says: str) -> Case:
    """A malformed line in the middle of a network; it is line 5."""
    body = f"gensynth 1\n\nnetwork @bad(%x: f32[N, 4, 8, 8]) -> f32[N, 4, 8, 8] {{\n  // a comment\n  {line}\n  return %y\n}}\n"
    return text(name, body, *says)


def passes(name: str, pipeline: str, *says: str, network: str = "tiny.gsir") -> Case:
    """A malformed pipeline."""
    return Case(name, ("opt", network, "--passes", pipeline), says)


CONFIG = """requirements = ["accuracy >= 0.9", "macs <= 1M"]
performance = "netscore"

[task]
name = "digits"

[prototype]
name = "resnet"
depth = 8

[generator]
passes = ["open-width"]

[search]
cycles = 1

[training]
epochs = 2
"""


def config(name: str, old: str, new: str, *says: str) -> Case:
    """A configuration with one thing wrong."""
    assert old in CONFIG
    return config_text(name, CONFIG.replace(old, new, 1).encode(), *says)


def config_text(name: str, content: bytes, *says: str) -> Case:
    return Case(
        name,
        ("synthesize", "bad.toml", "--out", "run", "--processes", "0"),
        says,
        lambda folder: _write(folder / "bad.toml", content),
    )


def weights(name: str, change: Callable[[dict[str, np.ndarray]], object], *says: str) -> Case:
    """Weights beside the network with one thing wrong."""

    def prepare(folder: Path) -> None:
        arrays = initialize(parse(TINY))
        change(arrays)
        save_weights(arrays, folder / "tiny.safetensors")

    return Case(name, ("opt", "tiny.gsir", "--passes", "canonicalize"), ("tiny.safetensors", *says), prepare)


def data(
    name: str, prepare: Callable[[Path], None] | None, *says: str, task: str = "image-folder", options: str = ""
) -> Case:
    """A task whose data folder is wrong."""
    command = ("evaluate", "tiny.gsir", "--task", task, "--data", "photos", *options.split())
    return Case(name, command, says, prepare)


def usage(name: str, command: str, *says: str, prepare: Callable[[Path], None] | None = None) -> Case:
    """A malformed command line."""
    return Case(name, tuple(command.split()), says, prepare)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _no_model(folder: Path) -> None:
    _write(folder / "bad.onnx", b"gensynth 1")


def _image(path: Path, size: tuple[int, int] = (8, 8)) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, 7).save(path)


def _images(folder: Path, count: int = 5) -> None:
    for label in ("cat", "dog"):
        for index in range(count):
            _image(folder / "photos" / "train" / label / f"{index}.png")


def _images_of_two_sizes(folder: Path) -> None:
    _images(folder)
    for index in range(9):
        _image(folder / "photos" / "train" / "dog" / f"wide{index}.png", (9, 8))


def _damaged_image(folder: Path) -> None:
    _images(folder)
    for path in (folder / "photos").rglob("*.png"):
        path.write_bytes(b"no image")


def _cut_cifar(folder: Path) -> None:
    root = folder / "photos" / "cifar-10-batches-bin"
    for index in range(1, 6):
        _write(root / f"data_batch_{index}.bin", bytes(3073))
    _write(root / "test_batch.bin", bytes(3072))
    _write(root / "batches.meta.txt", b"cat\ndog\n")


def _truncated_weights(folder: Path) -> None:
    save_weights(initialize(parse(TINY)), folder / "tiny.safetensors")
    content = (folder / "tiny.safetensors").read_bytes()
    (folder / "tiny.safetensors").write_bytes(content[: len(content) // 2])


def _truncated_program(folder: Path) -> None:
    import zipfile

    with zipfile.ZipFile(folder / "model.pt2", "w") as archive:
        archive.writestr("version", "1")


DEEP = (
    "gensynth 1\nnetwork @deep(%x: f32[N, 4]) -> f32[N, 4] {\n"
    + "".join(f"%y{level} = choose<c{level}>(%x) {{ a(%x) {{\n" for level in range(80))
    + "%z = relu(%x) yield %z"
    + "".join(f" }} }}\n{'yield' if level else 'return'} %y{level}" for level in reversed(range(80)))
    + "\n}\n"
)

TEXTS = [
    text("an empty file", "", "bad.gsir:1:1", "gensynth 1"),
    text("no version", TINY.removeprefix("gensynth 1"), "bad.gsir:3:1", "expected 'gensynth 1'"),
    text("another version", TINY.replace("gensynth 1", "gensynth 7"), "bad.gsir:1:10", "version 7"),
    text("a version that is no number", TINY.replace("gensynth 1", "gensynth one"), "bad.gsir:1:10"),
    text("bytes that are not UTF-8", b"gensynth 1\n\xff\xfe", "bad.gsir", "byte 11"),
    text("a NUL", TINY.replace("relu", "re\0lu"), "bad.gsir:6:"),
    text("a file cut in the middle", TINY[:150], "bad.gsir:5:20", "cut short"),
    text("a file cut before the last brace", TINY.rstrip().removesuffix("}"), "bad.gsir:9:", "'}'"),
    text("no return", TINY.replace("  return %logits\n", ""), "bad.gsir:9:1", "return"),
    text("text behind the network", TINY + "network", "bad.gsir:11:1", "one network"),
    text("a wrong declared result", TINY.replace("f32[N, 10] {", "f32[N, 9] {"), "bad.gsir:3:", "f32[N,9]"),
    text("an unknown element type", TINY.replace("f32[N, 1,", "q32[N, 1,"), "bad.gsir:3:"),
    text("a negative dimension", TINY.replace("f32[N, 1,", "f32[N, -1,"), "bad.gsir:3:", "-1"),
    text("a requirement without quotes", OPEN.replace("{\n", "{\n  require macs <= 5M\n", 1), "bad.gsir:4:11"),
    text(
        "an unknown metric in a requirement",
        OPEN.replace("{\n", '{\n  require "mcas <= 5M"\n', 1),
        "'mcas'",
        "@open: require:1:1",
        command=("generate", "bad.gsir", "--seeds", "1", "--out", "nets"),
    ),
    text("choices nested too deep", DEEP, "bad.gsir:", "deeper than 64"),
    text("an input twice", TINY.replace("(%image: f32[N, 1, 8, 8])", "(%i: f32[N, 1], %i: f32[N, 1])"), "bad.gsir:3:"),
    node("an unknown op", "%y = conv3d(%x) {channels=4, kernel=3}", "bad.gsir:5:8", "'conv3d'", "conv2d"),
    node("an unknown attribute", "%y = conv2d(%x) {chanels=4, kernel=3}", "bad.gsir:5:20", "'channels'"),
    node("an attribute twice", "%y = conv2d(%x) {kernel=3, kernel=3, channels=4}", "bad.gsir:5:30", "twice"),
    node("a missing attribute", "%y = conv2d(%x) {kernel=3}", "bad.gsir:5:8", "channels"),
    node("an attribute of another type", "%y = conv2d(%x) {channels=many, kernel=3}", "bad.gsir:5:29", "many"),
    node("an attribute out of range", "%y = conv2d(%x) {channels=-4, kernel=3}", "bad.gsir:5:29", "-4"),
    node("a word out of place", "%y = conv2d(%x) {channels=4, kernel=3, padding=some}", "bad.gsir:5:50", "some"),
    node("an attribute without a value", "%y = conv2d(%x) {channels=, kernel=3}", "bad.gsir:5:29", "value"),
    node("an undefined value", "%y = relu(%z)", "bad.gsir:5:13", "%z"),
    node("a value read before its definition", "%y = relu(%y)", "bad.gsir:5:13", "%y"),
    node("a value defined twice", "%y = relu(%x)  %y = relu(%x)", "bad.gsir:5:18", "twice"),
    node("a wrong declared type", "%y = relu(%x) : f32[N, 4, 8, 9]", "bad.gsir:5:19", "f32[N, 4, 8, 8]"),
    node("too few operands", "%y = add(%x)", "bad.gsir:5:8", "operand"),
    node("operands that do not fit", "%z = global_avg_pool(%x)  %y = concat(%x, %z)", "bad.gsir:5:34", "concat"),
    node("a kernel larger than the map", "%y = conv2d(%x) {channels=4, kernel=9}", "bad.gsir:5:"),
    node("groups that do not divide", "%y = conv2d(%x) {channels=4, kernel=1, groups=3}", "bad.gsir:5:", "groups=3"),
    node("two results of an op with one", "%y, %z = relu(%x)", "bad.gsir:5:", "1"),
    node("a stray character", "%y = relu($x)", "bad.gsir:5:13", "'$'"),
    node("fewer logits than values", "%y = conv2d(%x) {channels=choice<w>[4: 0.1, 8], kernel=1}", "bad.gsir:5:"),
    node(
        "a choice with two counts",
        "%z = conv2d(%x) {channels=choice<w>[4, 8], kernel=1} %y = conv2d(%z) {channels=choice<w>[4], kernel=1}",
        "bad.gsir:5:",
        "'w'",
    ),
    node("a choice without values", "%y = conv2d(%x) {channels=choice<w>, kernel=1}", "bad.gsir:5:", "'w'"),
    node(
        "an infinite logit", "%y = conv2d(%x) {channels=choice<w>[4: 1e999, 8: 0], kernel=1}", "bad.gsir:5:42", "finite"
    ),
    node("two alternatives of one name", "%y = choose<c>(%x) { a(%x) { yield %x } a(%x) { yield %x } }", "bad.gsir:5:"),
    node(
        "alternatives of two types",
        "%y = choose<c>(%x) { a(%x) { yield %x } b(%x) { %p = global_avg_pool(%x) yield %p } }",
        "bad.gsir:5:",
    ),
    node("a choose without alternatives", "%y = choose<c>(%x) { }", "bad.gsir:5:"),
    Case("malformed text on stdin", ("cost", "-"), ("<stdin>:1:1",), stdin=b"nothing of the kind"),
    Case("bytes on stdin", ("cost", "-"), ("<stdin>", "UTF-8"), stdin=b"\xff"),
    usage("a file that is not there", "cost nowhere.gsir", "nowhere.gsir"),
    usage("a folder in place of a file", "cost .", "cannot read ."),
    usage("the cost of a generator", "cost open.gsir", "@open", "open choices"),
]

PIPELINES = [
    passes("an unknown pass", "canonicalise", "--passes:1:1", "canonicalize"),
    passes("a pass behind a space", "canonicalize canonicalize", "--passes:1:14", "','"),
    passes("a comma at the end", "canonicalize,", "--passes:1:"),
    passes("a comma alone", ",", "--passes:1:1"),
    passes("an unknown option of a pass", "open-width{ratio=[0.5]}", "--passes:1:12", "ratios"),
    passes("an option twice", "offer{rewrite=separate-conv,rewrite=group-conv}", "--passes:1:29", "twice"),
    passes("an option of a pass without a value", "offer{rewrite}", "--passes:1:14", "'='"),
    passes("an option that is missing", "offer", "--passes:1:1", "rewrite"),
    passes("an option of another type", "offer{rewrite=separate-conv,logit=high}", "--passes:1:35", "high"),
    passes("an open brace", "offer{rewrite=separate-conv", "--passes:1:"),
    passes("an open list", "open-width{ratios=[0.5", "--passes:1:"),
    passes("a list in a list", "open-width{ratios=[[0.5]]}", "--passes:1:"),
    passes("an open quote", 'offer{rewrite="separate-conv}', "--passes:1:"),
    passes("a ratio of nothing", "open-width{ratios=[0]}", "--passes:1:"),
    passes("a rule that is none", "offer{rewrite=canonicalize}", "--passes:1:1", "canonicalize"),
    passes("a rule that is misspelt", "offer{rewrite=seperate-conv}", "--passes:1:15", "separate-conv"),
    passes("a choice that is not there", "commit{choice=depth,to=4}", "'depth'", network="open.gsir"),
    passes("a negative seed of a pass", "materialize{seed=-1}", "--passes:1:1", "seed -1", network="open.gsir"),
    usage("a file of passes that is not there", "opt tiny.gsir --passes @nowhere", "nowhere"),
    usage(
        "a fault in a file of passes",
        "opt tiny.gsir --passes @bad.passes",
        "bad.passes:2:1",
        prepare=lambda folder: _write(folder / "bad.passes", b"canonicalize,\ncanonicalise\n"),
    ),
    usage("a question for no rule", "opt tiny.gsir --why canonicalize", "--why", "canonicalize"),
    usage("a question for an unknown rule", "opt tiny.gsir --why seperate-conv", "--why:1:1", "separate-conv"),
    usage(
        "printing behind a pass that is not run",
        "opt tiny.gsir --passes canonicalize --print-ir-after=open-width",
        "--print-ir-after",
        "open-width",
    ),
]

CONFIGS = [
    config("a requirement on an unknown metric", "macs <= 1M", "mcas <= 1M", "bad.toml:1:", "'macs'"),
    config("a requirement without a bound", "macs <= 1M", "macs <=", "bad.toml:1:", "number"),
    config("a requirement with a wrong sign", "macs <= 1M", "macs = 1M", "bad.toml:1:", "<="),
    config("a requirement with a wrong unit", "macs <= 1M", "macs <= 1MB", "bad.toml:1:", "MB"),
    config("a requirement of bytes without a unit", "macs <= 1M", "peak_memory <= 1", "bad.toml:1:", "KB"),
    config("a requirement with more behind it", "macs <= 1M", "macs <= 1M please", "bad.toml:1:", "please"),
    config("an accuracy above one", "accuracy >= 0.9", "accuracy >= 1.5", "bad.toml:1:", "accuracy"),
    config("a latency without a device", "macs <= 1M", "latency <= 3ms", "bad.toml:1:", "latency"),
    config("requirements that exclude each other", "accuracy >= 0.9", "macs >= 2M", "bad.toml:1:", "both"),
    config("requirements that are no list", '["accuracy >= 0.9", "macs <= 1M"]', '"macs <= 1M"', "bad.toml:1:"),
    config("requirements that are numbers", '"accuracy >= 0.9"', "0.9", "bad.toml:1:"),
    config("no TOML", '"digits"', '"digits', "bad.toml:5:", "TOML"),
    config("a key twice", "depth = 8", "depth = 8\ndepth = 8", "bad.toml:", "TOML"),
    config("an unknown table", "[search]", "[serach]", "bad.toml:14:1", "'search'"),
    config("an unknown key at the top", "performance =", "preformance =", "bad.toml:2:1", "'performance'"),
    config("an unknown key in a table", "cycles = 1", "cycle = 1", "bad.toml:15:1", "'cycles'"),
    config("a key of another type", "cycles = 1", 'cycles = "one"', "bad.toml:15:1", "whole number"),
    config("a key out of range", "cycles = 1", "cycles = -1", "bad.toml:15:1", "-1"),
    config("a table that is a value", "[search]\ncycles = 1", "search = 1", "bad.toml:"),
    config("an unknown performance function", '"netscore"', '"netscor"', "bad.toml:2:1", "netscore"),
    config("a performance function that cannot be imported", '"netscore"', '"no.such:thing"', "bad.toml:2:1"),
    config("a task without a name", 'name = "digits"', "", "bad.toml:4:1", "[task]"),
    config("a configuration of an unknown task", '"digits"', '"digit"', "bad.toml:5:1", "digits"),
    config(
        "a configuration with an unknown option of a task",
        'name = "digits"',
        'name = "digits"\nsize = 8',
        "bad.toml:6:1",
        "size",
    ),
    config("a configuration of an unknown prototype", '"resnet"', '"resent"', "bad.toml:8:1", "resnet"),
    config(
        "a configuration with an unknown argument of a prototype", "depth = 8", "deepth = 8", "bad.toml:9:1", "depth"
    ),
    config("an argument of a prototype of another type", "depth = 8", 'depth = "8"', "bad.toml:9:1", "whole number"),
    config("a prototype by name and path", "depth = 8", 'path = "tiny.gsir"', "bad.toml:7:1", "name"),
    config("a prototype file that is not there", 'name = "resnet"\ndepth = 8', 'path = "no.gsir"', "no.gsir"),
    config("a prototype file with a fault", 'name = "resnet"\ndepth = 8', 'path = "bad.toml"', "bad.toml:1:1"),
    config("a prototype of other images", "depth = 8", "depth = 8\nimage = [3, 32, 32]", "[1, 8, 8]"),
    config("a configuration without passes", 'passes = ["open-width"]', "", "bad.toml:11:1", "passes"),
    config("a fault in the passes", '["open-width"]', '["open-width{ratio=[1]}"]', "bad.toml:12:23", "ratios"),
    config("an unknown key of the generator", "passes =", "pases =", "bad.toml:12:1", "passes"),
    config("an unknown key of the recipe", "epochs = 2", "epoch = 2", "bad.toml:18:1", "epochs"),
    config("a recipe out of range", "epochs = 2", "epochs = 0", "bad.toml:18:1", "at least 1"),
    config("an unknown optimizer", "epochs = 2", 'optimizer = "adam"', "bad.toml:18:1", "adamw"),
    config("an unknown augmentation", "epochs = 2", 'augmentation = ["flop"]', "bad.toml:18:1", "flip"),
    config(
        "a rule that the inquisitor cannot offer",
        "epochs = 2",
        'epochs = 2\n[inquisitor]\noffers = ["no"]',
        "bad.toml:20:1",
    ),
    config("a pool smaller than the seeds", "epochs = 2", "epochs = 2\n[emit]\nseeds = 9\npool = 8", "bad.toml:20:1"),
    config(
        "a configuration with an unknown device",
        "epochs = 2",
        'epochs = 2\n[run]\ndevice = "tpu9"',
        "bad.toml:20:1",
        "tpu9",
    ),
    config_text("a configuration that is not UTF-8", b"\xff", "bad.toml", "UTF-8"),
    config_text("an empty configuration", b"", "bad.toml:1:1", "task"),
    usage("a configuration that is not there", "synthesize nowhere.toml", "nowhere.toml"),
    usage(
        "a run directory in use",
        "synthesize good.toml --out .",
        ". is not empty",
        prepare=lambda folder: _write(folder / "good.toml", CONFIG.encode()),
    ),
    usage(
        "nothing to resume",
        "synthesize good.toml --out . --resume",
        "no run to resume",
        prepare=lambda folder: _write(folder / "good.toml", CONFIG.encode()),
    ),
]

WEIGHTS = [
    weights("a weight that is missing", lambda arrays: arrays.pop("conv.weight"), "conv.weight is missing"),
    weights("a weight too many", lambda arrays: arrays.update(extra=arrays["conv.weight"]), "extra"),
    weights(
        "a weight of another shape",
        lambda arrays: arrays.update({"conv.weight": np.zeros((8, 1, 5, 5), np.float32)}),
        "[8, 1, 5, 5]",
        "[8, 1, 3, 3]",
    ),
    weights(
        "a weight of another type",
        lambda arrays: arrays.update({"conv.weight": arrays["conv.weight"].astype(np.float64)}),
        "float64",
    ),
    Case("weights cut short", ("opt", "tiny.gsir", "--passes", ""), ("tiny.safetensors",), _truncated_weights),
    Case(
        "weights that are a text",
        ("opt", "tiny.gsir", "--passes", ""),
        ("tiny.safetensors", "safetensors"),
        lambda folder: _write(folder / "tiny.safetensors", b"no weights at all"),
    ),
    Case(
        "empty weights",
        ("opt", "tiny.gsir", "--passes", ""),
        ("tiny.safetensors",),
        lambda folder: _write(folder / "tiny.safetensors", b""),
    ),
    usage("weights that are not there", "evaluate tiny.gsir --task digits --weights no.safetensors", "no.safetensors"),
]

DATA = [
    usage("a task that does not know its data", "evaluate tiny.gsir --task image-folder", "image-folder", "data"),
    data("a data folder that is not there", None, "photos", "does not exist"),
    data("an empty data folder", lambda folder: (folder / "photos").mkdir(), "photos/train"),
    data("no classes", lambda folder: (folder / "photos" / "train").mkdir(parents=True), "photos/train", "class"),
    data("a class without images", lambda folder: _write(folder / "photos/train/cat/x.txt", b""), "photos/train/cat"),
    data("images of two sizes", _images_of_two_sizes, "photos/train/dog", "8x9", options="--option grayscale=true"),
    data("an image that is none", _damaged_image, "photos/train/"),
    data("too few images", lambda folder: _images(folder, 1), "'cat'"),
    data("images that do not fit the network", _images, "[N, 1, 8, 8]"),
    data("a data file in place of a folder", lambda folder: _write(folder / "photos", b""), "photos", "no folder"),
    data("no CIFAR files", lambda folder: (folder / "photos").mkdir(), "cifar-10-batches-bin", task="cifar10"),
    data("CIFAR files cut short", _cut_cifar, "test_batch.bin", "3073", task="cifar10"),
    data("data for a task that has none", None, "'digits'", "data", task="digits"),
    data("an unknown option of a task", _images, "'sise'", "size", options="--option sise=8x8"),
    data("an option of a task out of range", _images, "validation", options="--option validation=2"),
    data("an option of a task without a value", _images, "'size'", "key=value", options="--option size"),
    usage("a task that is unknown", "train tiny.gsir --task digit --out out", "'digit'", "digits"),
]

USAGE = [
    usage("an unknown command", "prototyp resnet", "'prototyp'", "prototype"),
    usage("an unknown option", "cost tiny.gsir --jsno", "'--jsno'", "--json"),
    usage("an unknown option before a command", "--verbose", "'--verbose'"),
    usage("a missing argument", "cost", "IN.gsir"),
    usage("an argument too many", "cost tiny.gsir open.gsir", "open.gsir"),
    usage("an option without its value", "cost tiny.gsir --batch", "--batch"),
    usage("a batch of nothing", "cost tiny.gsir --batch 0", "--batch", "'0'"),
    usage("an unknown format", "show tiny.gsir --format pdf", "--format", "pdf"),
    usage("no passes", "opt tiny.gsir", "--passes"),
    usage("two things on stdout", "opt tiny.gsir --passes canonicalize --json -o -", "stdout"),
    usage("two things on stdin", "diff - -", "stdin"),
    usage("an unknown prototype", "prototype resent", "'resent'", "resnet"),
    usage("an unknown argument of a prototype", "prototype resnet deepth=8", "'deepth'", "depth"),
    usage("an argument of a prototype without a value", "prototype resnet depth", "'depth'", "key=value"),
    usage("an argument of a prototype twice", "prototype resnet depth=8 depth=8", "'depth'"),
    usage("an argument of a prototype that is no number", "prototype resnet depth=eight", "depth", "eight"),
    usage("a depth that no ResNet has", "prototype resnet depth=9", "depth"),
    usage("an image of two sizes", "prototype resnet image=8x8", "image", "8x8"),
    usage("a seed that is a word", "generate open.gsir --seeds one --out nets", "--seeds one", "0:64"),
    usage("a range without seeds", "generate open.gsir --seeds 5:5 --out nets", "5:5"),
    usage("a range that runs back", "generate open.gsir --seeds 5:3 --out nets", "5:3"),
    usage("a seed twice", "generate open.gsir --seeds 0:4,2 --out nets", "seed 2"),
    usage("a seed too large", "generate open.gsir --seeds 18446744073709551616 --out nets", "2^64"),
    usage("an empty list of seeds", "generate open.gsir --seeds , --out nets", "''"),
    usage("a negative seed", "generate open.gsir --seeds=-1 --out nets", "-1"),
    usage("a network in place of a generator", "generate tiny.gsir --seeds 1 --out nets", "@tiny", "generator"),
    usage("an output folder that holds something", "generate open.gsir --seeds 1 --out .", ". is not empty", "--force"),
    usage("an output folder that is a file", "generate open.gsir --seeds 1 --out tiny.gsir", "tiny.gsir"),
    usage("networks for stdout", "generate open.gsir --seeds 1 --out -", "stdout"),
    usage(
        "a requirement that no network meets",
        "generate hard.gsir --seeds 1 --out nets",
        "macs <= 1",
        "seed 1",
        prepare=lambda folder: _write(
            folder / "hard.gsir", OPEN.replace("{\n", '{\n  require "macs <= 1"\n', 1).encode()
        ),
    ),
    usage("an output under a file", "prototype lenet -o tiny.gsir/lenet.gsir", "tiny.gsir/lenet.gsir"),
    usage("an output with another suffix", "prototype lenet -o lenet.txt", "lenet.txt", "lenet.gsir"),
    usage("a drawing under a file", "show tiny.gsir --format dot -o tiny.gsir/tiny.dot", "tiny.gsir/tiny.dot"),
    usage("dumps under a file", "opt tiny.gsir --passes canonicalize --dump-ir tiny.gsir", "tiny.gsir"),
    usage("a trained network over another", "train tiny.gsir --task digits --out .", "tiny.gsir exists", "--force"),
    usage("a generator to train", "train open.gsir --task digits --out out --epochs 1", "@open"),
    usage("epochs that are no number", "train tiny.gsir --task digits --out out --epochs few", "--epochs", "few"),
    usage(
        "a recipe field that is unknown", "train tiny.gsir --task digits --out out --set epoch=1", "'epoch'", "epochs"
    ),
    usage("a recipe field without a value", "train tiny.gsir --task digits --out out --set epochs", "--set epochs"),
    usage("a recipe field out of range", "train tiny.gsir --task digits --out out --set momentum=2", "momentum"),
    usage("a recipe that is not there", "train tiny.gsir --task digits --out out --recipe no.toml", "no.toml"),
    usage(
        "a recipe without its table",
        "train tiny.gsir --task digits --out out --recipe bad.toml",
        "bad.toml:1:1",
        prepare=lambda folder: _write(folder / "bad.toml", b"epochs = 3\n"),
    ),
    usage(
        "a recipe with a fault",
        "train tiny.gsir --task digits --out out --recipe bad.toml",
        "bad.toml:2:1",
        prepare=lambda folder: _write(folder / "bad.toml", b"[training]\nepoch = 3\n"),
    ),
    usage("an unknown device", "evaluate tiny.gsir --task digits --device tpu9", "tpu9"),
    usage("an unknown part of the data", "evaluate tiny.gsir --task digits --split tset", "tset"),
    usage("a seed that is negative", "evaluate tiny.gsir --task digits --seed=-1", "--seed", "-1"),
    usage("an ONNX model that is not there", "import nowhere.onnx", "nowhere.onnx"),
    usage("an ONNX model that is none", "import bad.onnx", "bad.onnx", "is no ONNX model", prepare=_no_model),
    usage("a shape that is none", "import bad.onnx --shape 3x0x8", "--shape 3x0x8", "3x224x224"),
    usage("a shape for a program", "import nowhere.pt2 --shape 3x8x8", "--shape is for ONNX models"),
    usage("a model that is not there", "import nowhere.pt2", "nowhere.pt2"),
    usage("a model that is none", "import tiny.gsir", "tiny.gsir"),
    Case("a model cut short", ("import", "model.pt2"), ("model.pt2",), _truncated_program),
    usage("an unknown pass to tell about", "passes canonicalise", "'canonicalise'", "canonicalize"),
    usage("an unknown op to tell about", "ops conv3d", "'conv3d'", "conv2d"),
    usage("an unknown prototype to tell about", "prototypes resent", "'resent'", "resnet"),
    usage("an unknown task to tell about", "tasks digit", "'digit'", "digits"),
]


def board(name: str, content: str, *says: str) -> Case:
    """A malformed target file."""
    return Case(
        name,
        ("compile", "tiny.gsir", "--seed", "0", "--out", "out", "--target", "board.toml"),
        ("board.toml", *says),
        lambda folder: _write(folder / "board.toml", content.encode()),
    )


def _manifest(folder: Path, content: bytes) -> None:
    _write(folder / "out" / "manifest.json", content)


ARTIFACTS = [
    usage("an unknown target", "compile tiny.gsir --out out --target tegra-x2-gpus", "'tegra-x2-gpus'", "tegra-x2-gpu"),
    usage("a target file that is not there", "compile tiny.gsir --out out --target no.toml", "no.toml"),
    usage("an unknown target to tell about", "targets tegra-x2-gpus", "'tegra-x2-gpus'", "tegra-x2-gpu"),
    usage("a batch of no images", "compile tiny.gsir --out out --batch 0", "--batch", "0"),
    usage("an element type without kernels", "compile tiny.gsir --out out --dtype f8", "--dtype", "f8"),
    usage(
        "a task of other images",
        "compile open.gsir --seed 0 --out out --task cifar10 --data photos",
        "3x32x32",
        "1x8x8",
    ),
    board("a target file that is no TOML", "architecture = 7 8", "line 1"),
    board("a target of an unknown architecture", 'architecture = "sparc"', "'sparc'", "aarch64"),
    board("a target with an unknown key", 'architecture = "aarch64"\ncore = 4', "'core'", "cores"),
    board("a target with a wrong figure", 'architecture = "aarch64"\nl2_bytes = -1', "'l2_bytes'", "-1"),
    board("a target of a GPU without its size", 'architecture = "aarch64"\n[cuda]\narch = "sm_62"', "multiprocessors"),
    usage("an artifact that is not there", "measure nowhere", "nowhere", "gensynth compile"),
    usage("an artifact that is a network", "measure tiny.gsir", "tiny.gsir", ".tar.gz"),
    usage("a manifest cut short", "measure out", "manifest.json", prepare=lambda at: _manifest(at, b'{"format": ')),
    usage("a manifest of something else", "measure out", "manifest.json", prepare=lambda at: _manifest(at, b"{}")),
    usage(
        "a manifest of the future",
        "measure out",
        "format 9",
        prepare=lambda at: _manifest(at, b'{"format": "gensynth-artifact", "version": 9}'),
    ),
    usage(
        "a manifest that was edited",
        "measure out",
        "changed",
        prepare=lambda at: _manifest(at, b'{"format": "gensynth-artifact", "version": 1}'),
    ),
    usage("an RPC server without a port", "measure out --rpc board", "--rpc board", "HOST:PORT"),
    usage("an RPC server with a wrong port", "measure out --rpc board:99999", "board:99999"),
    usage("two ways to measure", "measure out --rpc board:9090 --result x.json", "--rpc", "--result"),
    usage("energy over RPC", "measure out --rpc board:9090 --energy", "--rpc", "--energy", "--board USER@HOST"),
    usage("blocks without energy", "measure out --blocks 5", "--blocks", "--energy"),
    usage("one block", "measure out --energy --blocks 1", "--blocks 1", "standard error"),
]

CASES = [*TEXTS, *PIPELINES, *CONFIGS, *WEIGHTS, *DATA, *USAGE, *ARTIFACTS]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_malformed_input_gets_one_message_with_place_and_remedy(case: Case, gensynth: Run, folder: Path) -> None:
    if case.prepare is not None:
        case.prepare(folder)
    found = gensynth(*case.command, stdin=case.stdin)
    lines = found.err.splitlines()
    assert found.code == 2, found
    assert found.out == ""
    assert [line.startswith("gensynth: error: ") for line in lines].count(True) == 1, found.err
    assert [line.startswith("  hint: ") and len(line) > len("  hint: ") for line in lines].count(True) == 1, found.err
    assert "Traceback" not in found.err
    for words in case.says:
        assert words in found.err, found.err


def test_the_table_of_malformed_inputs_is_long_and_its_names_differ() -> None:
    assert len(CASES) >= 80
    assert len({case.name for case in CASES}) == len(CASES)
