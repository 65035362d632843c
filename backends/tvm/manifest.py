"""The manifest of an artifact: what it is, what is in it, and how to tell whether it is whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from gensynth.ir import DataError, UsageError

if TYPE_CHECKING:
    from .program import Program

__all__ = [
    "FORMAT",
    "MANIFEST",
    "VERSION",
    "FileEntry",
    "Manifest",
    "TensorEntry",
    "file_entry",
    "program_facts",
    "read_manifest",
    "write_manifest",
]

MANIFEST = "manifest.json"
FORMAT = "gensynth-artifact"
VERSION = 1
"""Of the layout of artifacts; a reader refuses a newer one."""

_DIGEST = "manifest_sha256"
_BLOCK = 1 << 20
_LAYOUTS = {2: "NC", 4: "NCHW"}


@dataclass(frozen=True)
class TensorEntry:
    """An input or output as a caller gives or gets it: float32, row-major."""

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class FileEntry:
    """A file of an artifact: its bytes and their SHA-256."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What was read of a manifest: the parts that programs decide by, and `facts`, all of it as JSON has it."""

    name: str
    architecture_hash: str
    target: str
    architecture: str
    kind: str
    features: tuple[str, ...]
    batch: int
    dtype: str
    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]
    files: Mapping[str, FileEntry]
    facts: Mapping[str, object]


def file_entry(path: Path) -> FileEntry:
    """Returns the size and digest of a file."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
    return FileEntry(size, digest.hexdigest())


def program_facts(program: Program, resources: Mapping[str, Mapping[str, int]] | None = None) -> dict[str, object]:
    """Returns what a manifest tells of a program, ready for JSON.

    `resources` are what a GPU's assembler says of kernels, by name: `registers`, `shared`, `spills`.
    """
    nodes: list[list[str]] = [[] for _ in program.kernels]
    calls = [0] * len(program.kernels)
    for step in program.steps:
        nodes[step.kernel] += [name for name in step.nodes if name not in nodes[step.kernel]]
        calls[step.kernel] += 1
    kernels: list[dict[str, object]] = []
    for kernel, computed, called in zip(program.kernels, nodes, calls, strict=True):
        entry: dict[str, object] = {
            "name": kernel.name,
            "op": kernel.spec.op.name,
            "template": kernel.template,
            "schedule": kernel.schedule.as_dict(),
            "nodes": computed,
            "calls": called,
            "macs": kernel.macs,
            "bytes": kernel.bytes,
            "predicted_cycles": round(kernel.cycles),
        }
        if program.target.kind == "cpu":
            entry["tasks"] = kernel.emitted.tasks
        else:
            entry |= {"grid": list(kernel.emitted.grid), "block": list(kernel.emitted.block)}
            entry |= (resources or {}).get(kernel.name, {})
        kernels.append(entry)
    return {
        "batch": program.images,
        "repeats": program.repeats,
        "dtype": program.dtype,
        "inputs": [_tensor(item.name, item.shape) for item in program.inputs],
        "outputs": [_tensor(item.name, item.shape) for item in program.outputs],
        "macs": program.repeats * sum(program.kernels[step.kernel].macs for step in program.steps),
        "kernels": kernels,
        "steps": [
            {
                "kernel": program.kernels[step.kernel].name,
                "nodes": list(step.nodes),
                "arguments": [[item.space, item.index, item.offset] for item in step.arguments],
                "barrier": step.barrier,
                "threads": step.threads,
            }
            for step in program.steps
        ],
        "memory": {
            "arena_bytes": program.arena,
            "weights_bytes": len(program.weights),
            "values": [asdict(item) for item in program.placements],
        },
    }


def _tensor(name: str, shape: Sequence[int]) -> dict[str, object]:
    return {"name": name, "shape": list(shape), "dtype": "f32", "layout": _LAYOUTS.get(len(shape), "row-major")}


def _digest(facts: Mapping[str, object]) -> str:
    kept = {key: value for key, value in facts.items() if key != _DIGEST}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_manifest(folder: Path, facts: Mapping[str, object]) -> None:
    """Writes the manifest of the folder of an artifact: these facts, and size and digest of every file there."""
    files = {
        path.relative_to(folder).as_posix(): asdict(file_entry(path))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / MANIFEST
    }
    whole: dict[str, object] = {"format": FORMAT, "version": VERSION, **facts, "files": files}
    whole[_DIGEST] = _digest(whole)
    (folder / MANIFEST).write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def read_manifest(folder: Path) -> Manifest:
    """Reads the manifest of an artifact and checks that it is as it was written.

    Raises:
        UsageError: the folder is no artifact, or one of a newer format.
        DataError: the manifest is cut short or was changed.
    """
    path = folder / MANIFEST
    again = "copy the artifact anew, or compile the network again"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        what = f"it has no {MANIFEST}" if folder.is_dir() else "there is no such folder"
        raise UsageError(
            f"{folder} is no artifact: {what}", hint="give a folder or .tar.gz that `gensynth compile` wrote"
        ) from None
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}", hint="give the folder of an artifact") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is damaged: byte {error.start} is no text", hint=again) from None
    try:
        facts = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is damaged or cut short: {error}", hint=again) from None
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise UsageError(f"{path} is no manifest of an artifact", hint="give a folder that `gensynth compile` wrote")
    version = facts.get("version")
    if version != VERSION:
        newer = isinstance(version, int) and version > VERSION
        hint = 'pip install --upgrade "gensynth[tvm]"' if newer else "compile the network again"
        raise UsageError(
            f"{folder} is an artifact of format {version}, this version of GenSynth reads {VERSION}", hint=hint
        )
    if facts.get(_DIGEST) != _digest(facts):
        raise DataError(f"{path} was changed after it was written", hint=again)
    try:
        return _manifest(facts)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} lacks what a manifest holds: {error!r}", hint=again) from None


def _manifest(facts: dict[str, object]) -> Manifest:
    """Takes the typed parts out of a manifest whose digest is right."""
    network, target = cast("dict[str, str]", facts["network"]), cast("dict[str, str]", facts["target"])
    return Manifest(
        name=network["name"],
        architecture_hash=network["architecture_hash"],
        target=target["name"],
        architecture=target["architecture"],
        kind=target["kind"],
        features=tuple(target["features"]),
        batch=int(cast("int", facts["batch"])),
        dtype=str(facts["dtype"]),
        inputs=_tensors(facts["inputs"]),
        outputs=_tensors(facts["outputs"]),
        files={
            name: FileEntry(int(cast("int", entry["bytes"])), str(entry["sha256"]))
            for name, entry in cast("dict[str, dict[str, object]]", facts["files"]).items()
        },
        facts=facts,
    )


def _tensors(entries: object) -> tuple[TensorEntry, ...]:
    found = cast("list[dict[str, object]]", entries)
    return tuple(TensorEntry(str(item["name"]), tuple(cast("list[int]", item["shape"]))) for item in found)
