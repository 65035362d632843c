"""Runs a compiled network from Python, on the machine that it was compiled for.

    from gensynth_network import Network

    with Network("artifact") as network:
        logits = network.run(image)

This file and an artifact are all it takes: Python 3.6 or newer, and NumPy if it is there. With NumPy, inputs are
float32 arrays of the network's shapes, and outputs come as such. Without, inputs are anything with the buffer protocol
that has the right number of float32 (`array.array("f", ...)`) or bytes, and outputs come as `array.array("f")`.
"""

import array
import ctypes
import importlib
import os
import platform
import struct
import threading
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

try:
    numpy: Any = importlib.import_module("numpy")
except ImportError:
    numpy = None

__all__ = ["Network", "NetworkError", "StepTime", "Tensor"]

VERSION = 1
"""The version of gensynth.h that this reads."""

_MAX_RANK = 8
_ARCHITECTURES = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv"}
_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}


class NetworkError(Exception):
    """An artifact that cannot be opened, an input that does not fit, or a run that failed; the text says what."""


class Tensor(NamedTuple):
    """An input or output: its name, type ("f32") and shape, whose first dimension is the batch."""

    name: str
    dtype: str
    shape: Tuple[int, ...]


class StepTime(NamedTuple):
    """What one step took, in seconds; `nodes` are the nodes of the network that it computes."""

    kernel: str
    nodes: Tuple[str, ...]
    seconds: float
    macs: int
    bytes: int
    threads: int


class _Tensor(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("dtype", ctypes.c_char_p),
        ("rank", ctypes.c_int),
        ("shape", ctypes.c_int64 * _MAX_RANK),
        ("bytes", ctypes.c_size_t),
    ]


class _Step(ctypes.Structure):
    _fields_ = [
        ("kernel", ctypes.c_char_p),
        ("nodes", ctypes.c_char_p),
        ("macs", ctypes.c_int64),
        ("bytes", ctypes.c_int64),
        ("tasks", ctypes.c_int),
        ("threads", ctypes.c_int),
    ]


class _Description(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("architecture_hash", ctypes.c_char_p),
        ("target", ctypes.c_char_p),
        ("kind", ctypes.c_char_p),
        ("dtype", ctypes.c_char_p),
        ("batch", ctypes.c_int64),
        ("weights_bytes", ctypes.c_size_t),
        ("arena_bytes", ctypes.c_size_t),
        ("tolerance", ctypes.c_double),
    ]


class Network:
    """A compiled network.

    `inputs` and `outputs` are its tensors, in order; `name`, `target`, `dtype`, `batch` what it is; `device` what runs
    it. Several threads may use one network: they take turns.
    """

    def __init__(self, directory: Union[str, "os.PathLike[str]"], threads: int = 0) -> None:
        """Opens the artifact in a directory; `threads` counts the calling one, 0 takes what there are processors.

        Raises:
            NetworkError: it is no artifact, damaged, for another architecture, or its GPU or driver is missing.
        """
        self._handle: Optional[ctypes.c_void_p] = None
        self._lock = threading.Lock()
        folder = Path(directory)
        if threads < 0:
            raise NetworkError(f"threads is {threads}; 0 takes as many as there are processors")
        self._library = _load(folder / "libnetwork.so")
        message = ctypes.create_string_buffer(1024)
        handle = self._library.gs_open(os.fsencode(folder), threads, message, len(message))
        if not handle:
            raise NetworkError(_text(message.value))
        self._handle = ctypes.c_void_p(handle)
        facts = self._library.gs_describe(self._handle).contents
        self.name = _text(facts.name)
        self.architecture_hash = _text(facts.architecture_hash)
        self.target = _text(facts.target)
        self.kind = _text(facts.kind)
        self.dtype = _text(facts.dtype)
        self.batch = int(facts.batch)
        self.weights_bytes = int(facts.weights_bytes)
        self.arena_bytes = int(facts.arena_bytes)
        self.tolerance = float(facts.tolerance)
        self.threads = int(self._library.gs_threads(self._handle))
        self.device = _text(self._library.gs_device(self._handle))
        self.inputs = self._tensors(self._library.gs_input_count, self._library.gs_input)
        self.outputs = self._tensors(self._library.gs_output_count, self._library.gs_output)

    def run(self, *inputs: Any, **named: Any) -> Any:
        """Returns the network's output for these inputs, a tuple where it has several.

        Inputs are given in the network's order, or by name.

        Raises:
            NetworkError: an input is missing, of another shape or type, the network is closed, or the run failed.
        """
        given = self._arrange(inputs, named)
        with self._lock:
            sources, targets, results = self._call(given)
            status = self._library.gs_run(self._open(), *sources, *targets)
            if status:
                raise NetworkError(_text(self._library.gs_error(self._handle)))
        return results[0] if len(results) == 1 else tuple(results)

    __call__ = run

    def times(self, count: int, *inputs: Any, **named: Any) -> List[float]:
        """Runs `count` times on the same inputs, and returns the seconds that each run took. The outputs are dropped.

        Between two runs there is next to nothing, unlike with `run`, which makes new outputs each time.

        Raises:
            NetworkError: as `run`.
        """
        given = self._arrange(inputs, named)
        taken = []
        with self._lock:
            handle, run, clock = self._open(), self._library.gs_run, time.perf_counter
            sources, targets, _kept = self._call(given)
            for _ in range(count):
                before = clock()
                status = run(handle, *sources, *targets)
                taken.append(clock() - before)
                if status:
                    raise NetworkError(_text(self._library.gs_error(handle)))
        return taken

    def profile(self, *inputs: Any, **named: Any) -> List[StepTime]:
        """Returns the time that each step of one run takes. The run as a whole is slower than `run`.

        Raises:
            NetworkError: as `run`.
        """
        given = self._arrange(inputs, named)
        with self._lock:
            handle = self._open()
            count = self._library.gs_step_count(handle)
            seconds = (ctypes.c_double * max(count, 1))()
            sources, targets, _ = self._call(given)
            if self._library.gs_profile(handle, *sources, *targets, seconds):
                raise NetworkError(_text(self._library.gs_error(handle)))
            steps = [self._library.gs_step_at(handle, index).contents for index in range(count)]
            return [
                StepTime(
                    _text(step.kernel), tuple(_text(step.nodes).split()), taken, step.macs, step.bytes, step.threads
                )
                for step, taken in zip(steps, seconds)
            ]

    def close(self) -> None:
        """Frees the network's memory and threads. It cannot be run any more."""
        with self._lock:
            if self._handle is not None:
                self._library.gs_close(self._handle)
                self._handle = None

    def __enter__(self) -> "Network":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()

    def __repr__(self) -> str:
        return f"<Network {self.name} for {self.target} on {self.device}>"

    def _open(self) -> ctypes.c_void_p:
        if self._handle is None:
            raise NetworkError("the network is closed")
        return self._handle

    def _tensors(self, count: Any, get: Any) -> Tuple[Tensor, ...]:
        found = []
        for index in range(count(self._handle)):
            each = get(self._handle, index).contents
            found.append(Tensor(_text(each.name), _text(each.dtype), tuple(each.shape[: each.rank])))
        return tuple(found)

    def _arrange(self, inputs: Sequence[Any], named: Dict[str, Any]) -> List[Any]:
        """Returns the inputs in the network's order, as buffers whose shapes and types fit."""
        names = [tensor.name for tensor in self.inputs]
        if len(inputs) > len(names):
            raise NetworkError(f"{len(inputs)} inputs are given, the network takes {_listed(self.inputs)}")
        unknown = sorted(set(named) - set(names[len(inputs) :]))
        if unknown:
            again = " (again)" if unknown[0] in names else ""
            raise NetworkError(f"input {unknown[0]}{again}: the network takes {_listed(self.inputs)}")
        values = dict(zip(names, inputs))
        values.update(named)
        missing = [tensor for tensor in self.inputs if tensor.name not in values]
        if missing:
            raise NetworkError(f"no input {_listed(missing)} is given")
        return [_fitting(values[tensor.name], tensor) for tensor in self.inputs]

    def _call(self, given: List[Any]) -> Tuple[Any, Any, List[Any]]:
        """Returns C arrays of the inputs' pointers and sizes, of the outputs', and the outputs to be filled."""
        results = [_empty(tensor) for tensor in self.outputs]
        return _pointers(given), _pointers(results), results


def _load(path: Path) -> Any:
    """Returns the library with the types of its functions, having looked whether this machine can load it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise NetworkError(f"{path} cannot be read: {error.strerror}; is its directory an artifact?") from None
    if not _whole(content):
        raise NetworkError(f"{path} is no library, or cut short: copy the artifact again")
    machine = int.from_bytes(content[18:20], "little")
    built = _ARCHITECTURES.get(machine, f"ELF machine {machine}")
    here = _ALIASES.get(platform.machine().lower(), platform.machine().lower())
    if here in _ARCHITECTURES.values() and built != here:
        raise NetworkError(
            f"{path} is built for {built}; this machine is {here}: run it there, or compile it for this machine"
        )
    try:
        library = ctypes.CDLL(_alias(path))
    except OSError as error:
        raise NetworkError(f"{path} cannot be loaded: {error}") from None
    try:
        _declare(library)
    except AttributeError as error:
        raise NetworkError(f"{path} is no network of an artifact: {error}") from None
    version = library.gs_version()
    if version != VERSION:
        raise NetworkError(
            f"{path} has version {version} of the interface, this file reads {VERSION}: "
            "use the gensynth_network.py beside it"
        )
    return library


def _whole(content: bytes) -> bool:
    """Returns whether a file is a 64-bit little-endian ELF file with all its parts; one cut short would crash us."""
    if len(content) < 64 or content[:6] != b"\x7fELF\x02\x01":
        return False
    segments, sections = struct.unpack_from("<QQ", content, 32)
    _, segment_size, segment_count, section_size, section_count = struct.unpack_from("<HHHHH", content, 52)
    if max(segments + segment_size * segment_count, sections + section_size * section_count) > len(content):
        return False
    parts = [struct.unpack_from("<IIQQQQ", content, segments + segment_size * i) for i in range(segment_count)]
    return all(part[2] + part[5] <= len(content) for part in parts)


_seen: Dict[str, List[Tuple[int, int]]] = {}


def _alias(path: Path) -> str:
    """Returns a path under which the system loads this very file.

    A library stays loaded, and the system takes a path that it knows for the same library, also where an artifact was
    compiled anew to the same directory. Each file that comes to a path is therefore called by a path of its own.
    """
    folder = str(path.parent.resolve())
    facts = path.stat()
    known = _seen.setdefault(folder, [])
    if (facts.st_dev, facts.st_ino) not in known:
        known.append((facts.st_dev, facts.st_ino))
    return folder + "/" + "./" * known.index((facts.st_dev, facts.st_ino)) + path.name


def _declare(library: Any) -> None:
    handle = ctypes.c_void_p
    pointers = ctypes.POINTER(ctypes.c_void_p)
    sizes = ctypes.POINTER(ctypes.c_size_t)
    signatures: Dict[str, Tuple[Any, List[Any]]] = {
        "gs_open": (handle, [ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]),
        "gs_close": (None, [handle]),
        "gs_run": (ctypes.c_int, [handle, pointers, sizes, pointers, sizes]),
        "gs_profile": (ctypes.c_int, [handle, pointers, sizes, pointers, sizes, ctypes.POINTER(ctypes.c_double)]),
        "gs_error": (ctypes.c_char_p, [handle]),
        "gs_input_count": (ctypes.c_int, [handle]),
        "gs_output_count": (ctypes.c_int, [handle]),
        "gs_step_count": (ctypes.c_int, [handle]),
        "gs_input": (ctypes.POINTER(_Tensor), [handle, ctypes.c_int]),
        "gs_output": (ctypes.POINTER(_Tensor), [handle, ctypes.c_int]),
        "gs_step_at": (ctypes.POINTER(_Step), [handle, ctypes.c_int]),
        "gs_describe": (ctypes.POINTER(_Description), [handle]),
        "gs_threads": (ctypes.c_int, [handle]),
        "gs_device": (ctypes.c_char_p, [handle]),
        "gs_version": (ctypes.c_int, []),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments


def _fitting(value: Any, tensor: Tensor) -> Any:
    """Returns an input as contiguous memory."""
    expected = _shape(tensor)
    if numpy is not None and isinstance(value, numpy.ndarray):
        if value.dtype != numpy.float32:
            raise NetworkError(f"input {tensor.name} is of {value.dtype}, the network takes float32")
        if value.shape != tensor.shape:
            raise NetworkError(f"input {tensor.name} has shape {list(value.shape)}, the network takes {expected}")
        return numpy.require(value, requirements=["C", "A"])
    try:
        view = memoryview(value)
    except TypeError:
        raise NetworkError(
            f"input {tensor.name} is {type(value).__name__}, the network takes an array of float32 {expected}"
        ) from None
    if view.format not in ("f", "<f", "B", "b", "c"):
        raise NetworkError(f"input {tensor.name} has items of type '{view.format}', the network takes float32")
    if view.nbytes != 4 * _count(tensor):
        raise NetworkError(
            f"input {tensor.name} has {view.nbytes} bytes, the network takes {4 * _count(tensor)}: float32 {expected}"
        )
    if view.ndim > 1 and view.shape != tensor.shape:
        raise NetworkError(f"input {tensor.name} has shape {list(view.shape or ())}, the network takes {expected}")
    # A copy: memory that is read-only has no address that ctypes would tell.
    return array.array("f", view.tobytes())


def _empty(tensor: Tensor) -> Any:
    if numpy is not None:
        return numpy.empty(tensor.shape, numpy.float32)
    return array.array("f", bytes(4 * _count(tensor)))


def _pointers(held: List[Any]) -> Tuple[Any, Any]:
    count = len(held)
    addresses, sizes = (ctypes.c_void_p * count)(), (ctypes.c_size_t * count)()
    for index, each in enumerate(held):
        if isinstance(each, array.array):
            address, length = each.buffer_info()
            addresses[index], sizes[index] = address, length * each.itemsize
        else:
            addresses[index], sizes[index] = each.ctypes.data, each.nbytes
    return addresses, sizes


def _count(tensor: Tensor) -> int:
    count = 1
    for size in tensor.shape:
        count *= size
    return count


def _shape(tensor: Tensor) -> str:
    return "[{}]".format(", ".join(map(str, tensor.shape)))


def _listed(tensors: Sequence[Tensor]) -> str:
    return ", ".join(f"{tensor.name} ({tensor.dtype} {_shape(tensor)})" for tensor in tensors)


def _text(value: Optional[bytes]) -> str:
    return value.decode("utf-8", "replace") if value else ""
