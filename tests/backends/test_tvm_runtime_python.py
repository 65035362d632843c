"""The Python class that artifacts carry."""

import array
import ast
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import hand_made_programs as hand_made
import numpy as np
import pytest
from hand_made_programs import HOST, SIZE, STEPS, Step, image

from gensynth.backends.tvm.building import build_runtime
from gensynth.backends.tvm.runtime import gensynth_network
from gensynth.backends.tvm.runtime.gensynth_network import Network, NetworkError


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    return hand_made.kernels_object(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="module")
def made():
    return hand_made.program(STEPS)


@pytest.fixture(scope="module")
def shared(tmp_path_factory, code, made):
    """An artifact that no test changes."""
    return hand_made.build_checked(tmp_path_factory.mktemp("artifact"), code, made)


@pytest.fixture
def artifact(tmp_path, shared):
    """A copy of it."""
    return Path(shutil.copytree(shared, tmp_path / "artifact"))


def test_several_python_threads_take_turns(shared, made):
    wrong = []
    with Network(shared, threads=2) as network:

        def work(seed):
            wanted = hand_made.expected(made, image(seed))
            for _ in range(200):
                if not np.allclose(network.run(image(seed)), wanted, rtol=1e-5, atol=1e-5):
                    wrong.append(seed)

        users = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for user in users:
            user.start()
        for user in users:
            user.join()
    assert wrong == []


def test_a_forked_process_is_told_that_the_threads_are_not_in_it(shared):
    script = (
        "import os, sys\n"
        f"sys.path.insert(0, {str(shared)!r})\n"
        "from gensynth_network import Network, NetworkError\n"
        "import numpy as np\n"
        f"network = Network({str(shared)!r}, threads=2)\n"
        f"image = np.zeros((1, {SIZE}), np.float32)\n"
        "network.run(image)\n"
        "if os.fork():\n"
        "    os.wait()\n"
        "else:\n"
        "    try:\n"
        "        network.run(image)\n"
        "    except NetworkError as error:\n"
        "        print(error, flush=True)\n"
        "    os._exit(0)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert "open it again" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (lambda: [image().astype(np.float64)], "input image is of float64, the network takes float32"),
        (lambda: [image().reshape(SIZE)], "input image has shape [64], the network takes [1, 64]"),
        (lambda: [np.zeros((2, SIZE), np.float32)], "has shape [2, 64]"),
        (lambda: [image(), image()], "2 inputs are given, the network takes image (f32 [1, 64])"),
        (list, "no input image (f32 [1, 64]) is given"),
        (lambda: [[0.0] * SIZE], "input image is list, the network takes an array of float32 [1, 64]"),
        (lambda: [array.array("d", [0.0] * SIZE)], "items of type 'd'"),
        (lambda: [bytes(255)], "has 255 bytes, the network takes 256"),
        (lambda: [image().astype(">f4")], "input image is of >f4"),
    ],
)
def test_python_is_told_which_input_does_not_fit(given, told, shared):
    with Network(shared, threads=1) as network, pytest.raises(NetworkError, match=re.escape(told)):
        network.run(*given())


def test_python_takes_inputs_by_name_and_in_any_memory_order(shared, made):
    wanted = hand_made.expected(made, image())
    strided = np.zeros((1, 2 * SIZE), np.float32)
    strided[:, ::2] = image()
    frozen = image()
    frozen.setflags(write=False)
    with Network(str(shared)) as network:
        for each in (image(), strided[:, ::2], frozen, image().tobytes(), array.array("f", image().ravel())):
            np.testing.assert_allclose(network(image=each), wanted, rtol=1e-5)
        with pytest.raises(NetworkError, match="input picture: the network takes image"):
            network.run(picture=image())
        with pytest.raises(NetworkError, match="input image \\(again\\)"):
            network.run(image(), image=image())
    with pytest.raises(NetworkError, match="closed"):
        network.run(image())


def test_python_needs_no_numpy(shared, made):
    script = (
        "import sys, array\n"
        "sys.modules['numpy'] = None\n"
        f"sys.path.insert(0, {str(shared)!r})\n"
        "from gensynth_network import Network\n"
        f"values = array.array('f', bytes.fromhex({image().tobytes().hex()!r}))\n"
        f"print(list(Network({str(shared)!r}).run(values)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    np.testing.assert_allclose(ast.literal_eval(done.stdout), hand_made.expected(made, image())[0], rtol=1e-5)


def test_the_python_class_is_written_for_python_3_6():
    ast.parse(Path(gensynth_network.__file__).read_text(), feature_version=(3, 6))


def test_python_tells_a_library_of_another_architecture(artifact):
    library = artifact / "libnetwork.so"
    other = bytearray(library.read_bytes())
    other[18:20] = (183 if other[18] == 62 else 62).to_bytes(2, "little")
    library.unlink()  # the old one may be loaded
    library.write_bytes(other)
    with pytest.raises(NetworkError, match="is built for .*; this machine is .*: run it there, or compile it"):
        Network(artifact)


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"", "no library"), (b"#!/bin/sh\n" * 9, "no library"), (None, "is its directory an artifact?")],
)
def test_python_tells_what_is_no_library(content, told, tmp_path):
    if content is not None:
        (tmp_path / "libnetwork.so").write_bytes(content)
    with pytest.raises(NetworkError, match=re.escape(told)):
        Network(tmp_path)


@pytest.mark.parametrize("share", [0.001, 0.02, 0.5, 0.99, 0.9999])
def test_python_tells_a_truncated_library(share, artifact):
    library = artifact / "libnetwork.so"
    content = library.read_bytes()
    library.unlink()
    library.write_bytes(content[: int(share * len(content))])
    with pytest.raises(NetworkError, match="is no library, or cut short"):
        Network(artifact)


def test_an_artifact_compiled_anew_to_the_same_place_is_what_is_loaded(code, tmp_path):
    kept = []
    for number, kernel in enumerate(["copy", "scan", "copy"]):
        directory = tmp_path / "artifact"
        shutil.rmtree(directory, ignore_errors=True)
        made = hand_made.program((Step(kernel, ("in",), "out"),), name=f"network{number}")
        build_runtime(made, code, HOST, directory)
        kept.append(Network(directory, threads=1))
        assert kept[-1].name == made.name
        np.testing.assert_allclose(kept[-1].run(image()), hand_made.expected(made, image()), rtol=1e-6)
    np.testing.assert_array_equal(kept[0].run(image()), image())
