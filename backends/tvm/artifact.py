"""Artifacts: a folder, and the same as .tar.gz, with all that a board needs to run a network, and to prove it."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from gensynth.ir import DataError, GenSynthError, Network, UsageError, content_hash, save_network

from .checks import CheckVectors
from .host import host_architecture, host_features
from .manifest import MANIFEST, FileEntry, Manifest, file_entry, program_facts, read_manifest, write_manifest

if TYPE_CHECKING:
    from .program import Program

__all__ = [
    "SOURCE",
    "archive_of",
    "check_replaceable",
    "missing_features",
    "open_artifact",
    "runs_here",
    "unpack",
    "verify",
    "write_artifact",
]

SOURCE = "network.gsir"

LARGE = 8 << 20
"""A file beyond this takes longer to hash than an artifact may take to open."""

_BLOCK = 1 << 20
_COMPRESSION = 1  # weights hardly get smaller, and higher levels take seconds


def archive_of(folder: Path) -> Path:
    """Returns where the archive of an artifact lies: `DIR.tar.gz` beside `DIR`."""
    return folder.with_name(f"{folder.name}.tar.gz")


def write_artifact(
    program: Program,
    network: Network,
    code: bytes,
    folder: Path,
    *,
    checks: CheckVectors,
    preprocessing: Mapping[str, object] | None = None,
    resources: Mapping[str, Mapping[str, int]] | None = None,
    features: tuple[str, ...] = (),
    toolchain: Mapping[str, str] | None = None,
    source: bool = True,
    archive: bool = True,
    force: bool = False,
) -> Manifest:
    """Writes the artifact of a program to a folder, and its archive beside it; returns the manifest.

    `code` is the kernels' object file or PTX. `network` is what was compiled, `source` whether it goes along.
    `features` are the processor's that the code needs, `toolchain` the versions of what made it, `resources` what a
    GPU's assembler says of kernels. Where this machine can run the code, its outputs are compared with the check
    vectors first. A reader sees the folder as it was or whole, never a part. An artifact that is there is replaced;
    with files in it that are not its own only by `force`.

    Raises:
        UsageError: something else is there, it cannot be written, or no C compiler is found.
        GenSynthError: the outputs differ from the check vectors.
    """
    from .building import build_runtime

    check_replaceable(folder, archive=archive, force=force)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as place:
            made = Path(place) / folder.name
            made.mkdir()
            checks.write(program, made)
            built = build_runtime(program, code, program.target, made, tolerance=checks.tolerance)
            if source:
                save_network(network, made / SOURCE)
            compared = runs_here(program.target.architecture, program.target.kind, features)
            facts = {
                **_facts(program, network, checks, features, compared),
                "preprocessing": None if preprocessing is None else dict(preprocessing),
                **program_facts(program, resources),
                "toolchain": {**_versions(), **(toolchain or {}), "linker": built.toolchain, "glibc": built.glibc},
            }
            write_manifest(made, facts)
            if compared:
                _prove(made)
            if archive:
                _pack(made, archive_of(folder))
            _put(made, folder, Path(place) / "old")
    except OSError as error:
        raise UsageError(
            f"cannot write {error.filename or folder}: {error.strerror}", hint="choose a folder that can be written"
        ) from None
    return read_manifest(folder)


def _facts(
    program: Program, network: Network, checks: CheckVectors, features: tuple[str, ...], compared: bool
) -> dict[str, object]:
    target = program.target.as_dict()
    del target["sources"]
    return {
        "network": {
            "name": program.name,
            "architecture_hash": program.architecture_hash,
            "content_hash": content_hash(network.graph),
            "parameters": sum(int(array.size) for array in (network.weights or {}).values()),
        },
        "target": {**target, "features": list(features)},
        "check": {
            "seed": checks.seed,
            "inputs": "standard normal",
            "judge": checks.judge,
            "tolerance": checks.tolerance,
            "compared": compared,
        },
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in ("gensynth", "apache-tvm"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "from source"
    return found


# Where an artifact goes.


def check_replaceable(folder: Path, *, archive: bool, force: bool) -> None:
    """Checks that nothing is lost when an artifact is written to a folder, and its archive beside it.

    Raises:
        UsageError: there is something that is not an artifact's.
    """
    if archive:
        _check_archive(archive_of(folder))
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file", hint="choose another --out")
    try:
        known = set(read_manifest(folder).files)
    except DataError:
        known = set()  # a damaged artifact; what is whose cannot be told
    except UsageError:
        raise UsageError(
            f"{folder} exists and is no artifact, so it is not replaced", hint="choose another --out, or remove it"
        ) from None
    others = [
        name
        for path in sorted(folder.rglob("*"))
        if path.is_file() and (name := path.relative_to(folder).as_posix()) not in known and not _own(path)
    ]
    if others and not force:
        raise UsageError(
            f"{folder} holds files that are not the artifact's: {', '.join(others[:3])}{', ...' * (len(others) > 3)}",
            hint="choose another --out, move them, or replace all with --force",
        )


def _own(path: Path) -> bool:
    return path.name == MANIFEST or path.parent.name == "__pycache__"


def _check_archive(path: Path) -> None:
    if not path.exists():
        return
    try:
        with tarfile.open(path, "r:gz") as archive:
            first = archive.next()
    except (OSError, tarfile.TarError, EOFError):
        first = None
    if first is None or not first.name.endswith(f"/{MANIFEST}"):
        raise UsageError(
            f"{path} exists and is no artifact, so it is not replaced", hint="choose another --out, or remove it"
        )


def _put(made: Path, folder: Path, old: Path) -> None:
    """Moves the finished folder to its place; what was there is moved out of the way first, and back on failure."""
    if folder.exists():
        folder.replace(old)
    try:
        made.replace(folder)
    except OSError:
        if old.exists():
            old.replace(folder)
        raise


def _pack(folder: Path, path: Path) -> None:
    """Writes a folder as .tar.gz: the manifest first, names sorted, without times or owners, so equal in equals out."""
    names = sorted(item.relative_to(folder).as_posix() for item in folder.rglob("*") if item.is_file())
    names.sort(key=lambda name: name != MANIFEST)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with (
            os.fdopen(descriptor, "wb") as file,
            gzip.GzipFile("", "wb", _COMPRESSION, file, mtime=0) as stream,
            tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            for name in names:
                entry = tarfile.TarInfo(f"{folder.name}/{name}")
                entry.size = (folder / name).stat().st_size
                entry.mode = 0o755 if os.access(folder / name, os.X_OK) else 0o644
                with (folder / name).open("rb") as content:
                    archive.addfile(entry, content)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


# Proof.


def runs_here(architecture: str, kind: str, features: tuple[str, ...]) -> bool:
    """Returns whether this machine can run such code: CPU kernels for its architecture, with features that it has."""
    return architecture == host_architecture() and kind == "cpu" and set(features) <= host_features()


def missing_features(manifest: Manifest) -> tuple[str, ...]:
    """Returns what an artifact for this machine's architecture needs of the processor that this one lacks."""
    return tuple(sorted(set(manifest.features) - host_features()))


def _prove(folder: Path) -> None:
    """Runs the artifact's own test.

    Raises:
        GenSynthError: it fails.
    """
    ran = subprocess.run(["./run", "--selftest"], cwd=folder, capture_output=True, text=True, check=False)
    if ran.returncode:
        told = (ran.stdout + ran.stderr).strip() or f"exit code {ran.returncode}"
        raise GenSynthError(
            f"the compiled network does not compute what it should:\n{told}",
            hint="this is a fault of GenSynth; report it with the network",
        )


def verify(folder: Path, *, all_files: bool = True) -> Manifest:
    """Checks every file of an artifact by size and digest, and returns the manifest.

    Without `all_files`, of large files and of what running does not need the size alone is checked; the runtime then
    checks the weights by a faster checksum when it opens them.

    Raises:
        UsageError: the folder is no artifact, or one of a newer format.
        DataError: a file is missing, cut short or changed.
    """
    manifest = read_manifest(folder)
    again = "copy the artifact anew, or compile the network again"
    for name, expected in manifest.files.items():
        path = folder / name
        if not path.is_file():
            raise DataError(f"{path} is missing", hint=again)
        size = path.stat().st_size
        if size != expected.bytes:
            what = "cut short" if size < expected.bytes else "too long"
            raise DataError(f"{path} is {what}: {size} bytes, not {expected.bytes}", hint=again)
        if (all_files or _needed(name, expected)) and file_entry(path) != expected:
            raise DataError(f"{path} is damaged: its SHA-256 is not that of the manifest", hint=again)
    return manifest


def _needed(name: str, entry: FileEntry) -> bool:
    return "/" not in name and entry.bytes <= LARGE and not name.startswith("network.") and name != "weights.bin"


# Archives.


@contextmanager
def open_artifact(path: Path) -> Iterator[Path]:
    """Gives the folder of an artifact: the path itself, or where a .tar.gz is unpacked as long as the context lasts.

    Raises:
        UsageError: there is no such file.
        DataError: the archive is damaged, or holds something else than one artifact.
    """
    if not path.is_file():
        yield path
        return
    place = tempfile.mkdtemp(prefix="gensynth-artifact-")
    try:
        yield unpack(path, Path(place))
    finally:
        shutil.rmtree(place, ignore_errors=True)


def unpack(path: Path, place: Path) -> Path:
    """Unpacks an archive into a folder and returns the folder of the artifact in there.

    Raises:
        UsageError: the file is no archive.
        DataError: it is damaged, or holds something else than one artifact.
    """
    again = "copy the artifact anew, or compile the network again"
    try:
        with gzip.open(path) as stream:
            with tarfile.open(fileobj=stream, mode="r:") as archive:
                archive.extractall(place, filter="data")
            while stream.read(_BLOCK):  # the checksum stands at the very end
                pass
    except (gzip.BadGzipFile, tarfile.ReadError) as error:
        with path.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
        if not compressed:
            raise UsageError(
                f"{path} is no artifact: it is no .tar.gz",
                hint="give a folder or .tar.gz that `gensynth compile` wrote",
            ) from None
        raise DataError(f"{path} is damaged: {error}", hint=again) from None
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged: {error}", hint=again) from None
    except OSError as error:
        raise UsageError(
            f"cannot unpack {path}: {error.strerror}", hint="is there space in the temporary folder?"
        ) from None
    found = list(place.iterdir())
    if len(found) != 1 or not (found[0] / MANIFEST).is_file():
        raise UsageError(f"{path} holds no artifact", hint="give a folder or .tar.gz that `gensynth compile` wrote")
    return found[0]
