"""Running an artifact in this process, through the executor that it brings along."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gensynth.ir import Array, DataError, UsageError, nearest

from .artifact import missing_features, unpack, verify
from .host import host_architecture
from .manifest import Manifest
from .runtime.gensynth_network import Network, NetworkError

if TYPE_CHECKING:
    from typing import Self

__all__ = ["Artifact", "load_artifact"]


class Artifact:
    """A compiled network, ready to run: `outputs = artifact(inputs)`.

    `manifest` says what it is, `threads` how many run it, `device` on what. Several threads may call one artifact; they
    take turns. It frees its memory when it is closed or no longer held.
    """

    def __init__(self, network: Network, manifest: Manifest, path: Path) -> None:
        """Takes an opened network; `load_artifact` is the way to one."""
        self._network = network
        self.manifest = manifest
        self.path = path

    @property
    def threads(self) -> int:
        """How many threads run the network."""
        return int(self._network.threads)

    @property
    def device(self) -> str:
        """What runs the kernels: `2 threads`, or the name of the GPU."""
        return str(self._network.device)

    def __call__(self, inputs: Array | Mapping[str, Array], /) -> Array | tuple[Array, ...]:
        """Returns the network's output, float32, or a tuple of them where it has several.

        `inputs` is one float32 array for a network of one input, else a mapping by input name, each of the shape that
        the manifest says: [batch, C, H, W] for images.

        Raises:
            UsageError: an input is missing, unknown, or of another shape or dtype.
        """
        if not isinstance(inputs, Mapping):
            names = [tensor.name for tensor in self.manifest.inputs]
            if len(names) != 1:
                raise UsageError(
                    f"@{self.manifest.name} has {len(names)} inputs, one array was given",
                    hint=f"give a mapping with {', '.join(names)}",
                )
            inputs = {names[0]: inputs}
        try:
            found: Array | tuple[Array, ...] = self._network.run(*self._in_order(inputs))
        except NetworkError as error:
            raise UsageError(f"@{self.manifest.name}: {error}", hint="is it closed?") from None
        return found

    def _in_order(self, inputs: Mapping[str, Array]) -> Iterator[Array]:
        """Yields the inputs in the network's order, each looked at."""
        wanted = {tensor.name: list(tensor.shape) for tensor in self.manifest.inputs}
        for name in inputs:
            if name not in wanted:
                known = nearest(name, wanted, what="inputs")
                raise UsageError(f"@{self.manifest.name} has no input '{name}'", hint=known)
        for name, shape in wanted.items():
            value = inputs.get(name)
            takes = f"it takes a NumPy array, float32 {shape}"
            if value is None:
                raise UsageError(f"input '{name}' of @{self.manifest.name} is missing", hint=takes)
            if not isinstance(value, np.ndarray):
                raise UsageError(f"input '{name}' is {type(value).__name__}, no array", hint=takes)
            if value.dtype != np.float32 or list(value.shape) != shape:
                raise UsageError(f"input '{name}' is {value.dtype} {list(value.shape)}", hint=takes)
            yield value

    def close(self) -> None:
        """Frees the network's memory and threads; it cannot be run any more."""
        self._network.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Artifact(@{self.manifest.name} for {self.manifest.target}, batch {self.manifest.batch}, {self.device})"


def load_artifact(path: str | os.PathLike[str], *, threads: int = 0) -> Artifact:
    """Opens an artifact, a folder or a .tar.gz, in order to run it on this machine; needs no TVM.

    `threads` counts the calling one; 0 takes as many as there are processors and the network can use. The manifest and
    what is executed are checked by SHA-256, the weights by the executor's faster checksum, and of files that running
    does not need the size alone; `gensynth.backends.tvm.verify` checks every byte.

    Raises:
        UsageError: the path is no artifact, or one that this machine cannot run: for another architecture or
            processor, a newer format, or a GPU whose driver is not there.
        DataError: a file is missing, cut short or changed.
    """
    given = Path(path)
    if threads < 0:
        raise UsageError(f"threads is {threads}", hint="it is at least 1; 0 takes as many as there are processors")
    if not given.is_file():
        return _open(given, given, threads)
    place = Path(tempfile.mkdtemp(prefix="gensynth-artifact-"))
    try:
        artifact = _open(unpack(given, place), given, threads)
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    weakref.finalize(artifact, shutil.rmtree, place, ignore_errors=True)
    return artifact


def _open(folder: Path, given: Path, threads: int) -> Artifact:
    manifest = verify(folder, all_files=False)
    if manifest.architecture != host_architecture():
        raise UsageError(
            f"{given} is built for {manifest.architecture} ({manifest.target}); this machine is {host_architecture()}",
            hint=f"copy it to such a machine and run it there; `gensynth measure {given}` says how",
        )
    lacking = missing_features(manifest)
    if lacking:
        raise UsageError(
            f"{given} needs a processor with {', '.join(lacking)}, which this machine has not",
            hint="compile the network for this machine: --target host",
        )
    try:
        with _unmet(folder) as place:
            network = Network(str(place), threads)
    except NetworkError as error:
        told = f"{given} cannot be opened: {error}"
        if manifest.kind == "cuda":
            raise UsageError(told, hint="it runs on the board's GPU; the CPU is another target") from None
        raise DataError(told, hint="copy the artifact anew, or compile the network again") from None
    return Artifact(network, manifest, given)


_met: dict[str, tuple[int, int]] = {}


@contextmanager
def _unmet(folder: Path) -> Iterator[Path]:
    """Gives the folder by a name under which the system's loader has not met another library.

    The loader knows libraries by path: an artifact that was compiled anew would be answered by what was there before.
    """
    library = folder.absolute() / "libnetwork.so"
    facts = library.stat()
    now = facts.st_dev, facts.st_ino
    if _met.setdefault(str(library), now) == now:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="gensynth-artifact-") as place:
        link = Path(place) / folder.name
        link.symlink_to(folder.absolute(), target_is_directory=True)
        yield link
