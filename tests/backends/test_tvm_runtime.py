"""The executor that artifacts carry: threads, memory, checks, the program `run` and the Python class."""

import csv
import io
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import hand_made_programs as hand_made
import numpy as np
import pytest
from hand_made_programs import ALONE, HOST, SIZE, STEPS, Step, image

from gensynth.backends.tvm import building, generating
from gensynth.backends.tvm.building import build_runtime
from gensynth.backends.tvm.generating import checksum
from gensynth.backends.tvm.host import host_features
from gensynth.backends.tvm.runtime.gensynth_network import Network, NetworkError
from gensynth.backends.tvm.toolchain import find_toolchain

HERE = Path(__file__).parent
RUNTIME = Path(building.__file__).parent / "runtime"


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


def chain(seed, length=14, places=5):
    """Returns random steps: each reads and writes places in the arena that others use."""
    random = np.random.default_rng(seed)
    slots = [f"s{number}" for number in range(places)]
    steps = [Step("copy", ("in",), slot) for slot in slots]
    for _ in range(length):
        kernel = str(random.choice(["add", "mix", "scan", "copy"]))
        to = str(random.choice(slots))
        read = [str(slot) for slot in random.choice([slot for slot in slots if slot != to], 2, replace=False)]
        threads = 1 if kernel in ALONE else int(random.choice([1, 2, 3, 8]))
        reads = {"add": (read[0], f"w{random.integers(2)}"), "mix": tuple(read)}.get(kernel, (read[0],))
        steps.append(Step(kernel, reads, to, threads))
    return (*steps, Step("mix", (slots[0], slots[1]), "out"))


@pytest.mark.parametrize("seed", range(6))
def test_programs_compute_the_same_with_any_number_of_threads(seed, code, tmp_path):
    made = hand_made.program(chain(seed))
    build_runtime(made, code, HOST, tmp_path)
    images = [image(number) for number in range(20)]
    expected = [hand_made.expected(made, each) for each in images]
    for threads in (1, 2, 3, 8):
        with Network(tmp_path, threads=threads) as network:
            assert network.threads == threads
            for _ in range(10):
                for given, wanted in zip(images, expected, strict=True):
                    np.testing.assert_allclose(network.run(given), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("threads", [2, 3, 8])
def test_barriers_hold_in_thousands_of_runs(threads, shared, made):
    images = [image(number) for number in range(7)]
    expected = [hand_made.expected(made, each) for each in images]
    with Network(shared, threads=threads) as network:
        for number in range(3000 if threads < 8 else 500):
            given = number % len(images)
            np.testing.assert_allclose(network.run(images[given]), expected[given], rtol=1e-5, atol=1e-5)


def test_the_barriers_kept_order_what_the_program_orders(tmp_path):
    # all sequences of up to eight calls
    host = find_toolchain(HOST.triple)
    objects = []
    for source in (HERE / "barriers_check.c", RUNTIME / "threads.c"):
        objects.append(tmp_path / f"{source.stem}.o")
        host.compile(source, objects[-1], f"-I{RUNTIME}")
    host.link(objects, tmp_path / "check")
    done = subprocess.run([tmp_path / "check"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "87380 sequences\n")


def sanitized(directory, folder, *flags):
    """Builds `run` of an artifact's sources with a sanitizer, or skips the test."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc")
    (folder / "kernels.c").write_text(hand_made.KERNELS_C)
    sources = [str(path) for path in (directory / "src").glob("*.c")] + [str(folder / "kernels.c")]
    command = [
        compiler,
        "-std=c99",
        "-g",
        "-O1",
        *flags,
        *sources,
        "-o",
        str(folder / "run"),
        "-pthread",
        "-ldl",
        "-lm",
    ]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip(f"no libraries for {flags[0]}")
    return folder


@pytest.mark.parametrize("threads", ["2", "5"])
def test_threads_do_not_race(threads, shared, tmp_path):
    folder = sanitized(shared, tmp_path, "-fsanitize=thread")
    for words in (["--selftest"], ["--bench", "400"], ["--profile"]):
        done = hand_made.run(folder, "--directory", str(shared), *words, "--threads", threads)
        assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr


def test_nothing_is_read_or_written_out_of_bounds(shared, tmp_path):
    folder = sanitized(shared, tmp_path, "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    for words in (["--selftest"], ["--bench", "30", "--json"], ["--profile", "--memory"], ["--info"], ["--bench"]):
        done = hand_made.run(folder, "--directory", str(shared), *words)
        assert done.returncode in (0, 2) and "Sanitizer" not in done.stderr, done.stderr
        assert "runtime error" not in done.stderr, done.stderr


def test_the_checksum_is_the_same_in_c_and_in_numpy(tmp_path):
    sizes = [*range(75), 1000, 4096, 99_991, 800_000]
    (tmp_path / "check.c").write_text(
        '#include "program.h"\n#include <stdio.h>\n#include <stdlib.h>\n'
        "const gs_program gs_the_program;\n"
        "int gs_backend_open(gs_network *n, int t) { return (void)n, t; }\n"
        "int gs_backend_run(gs_network *n, const void *const *i, void *const *o, double *s) {\n"
        "    return (void)n, (void)i, (void)o, s != NULL; }\n"
        "void gs_backend_close(gs_network *n) { (void)n; }\n"
        "int main(int count, char **words) {\n"
        "    for (int i = 1; i < count; i++) {\n"
        "        size_t bytes = strtoul(words[i], NULL, 10);\n"
        "        unsigned char *data = malloc(bytes + 1);\n"
        "        for (size_t k = 0; k < bytes; k++) data[k] = (unsigned char)(k * 37 + k / 256 * 11 + 5);\n"
        '        printf("%016llx\\n", (unsigned long long)gs_checksum(data, bytes));\n'
        "        free(data);\n"
        "    }\n"
        "}\n"
    )
    host = find_toolchain(HOST.triple)
    host.compile(tmp_path / "check.c", tmp_path / "check.o", f"-I{RUNTIME}")
    host.compile(RUNTIME / "executor.c", tmp_path / "executor.o")
    host.link([tmp_path / "check.o", tmp_path / "executor.o"], tmp_path / "check")
    words = [str(size) for size in sizes]
    done = subprocess.run([tmp_path / "check", *words], capture_output=True, text=True, check=True)
    numbers = [np.arange(size) for size in sizes]
    data = [((each * 37 + each // 256 * 11 + 5) % 256).astype(np.uint8).tobytes() for each in numbers]
    assert done.stdout.split() == [f"{checksum(each):016x}" for each in data]
    assert len(set(done.stdout.split())) == len(sizes)


def one_bit(data, index):
    changed = bytearray(data)
    changed[index] ^= 0x10
    return bytes(changed)


def swapped(data):
    return data[8:16] + data[:8] + data[16:]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: one_bit(data, 0), "checksum"),
        (lambda data: one_bit(data, len(data) // 2), "checksum"),
        (lambda data: one_bit(data, len(data) - 1), "checksum"),
        (swapped, "checksum"),
        (lambda data: bytes(len(data)), "checksum"),
        (lambda data: data[:-1], "has 511 bytes, the network's weights have 512"),
        (lambda data: data + b"\0", "has 513 bytes"),
        (lambda data: b"", "has 0 bytes"),
        (None, "No such file"),
    ],
)
def test_weights_that_are_not_the_networks_are_refused(change, told, artifact):
    weights = artifact / "weights.bin"
    if change is None:
        weights.unlink()
    else:
        weights.write_bytes(change(weights.read_bytes()))
    done = hand_made.run(artifact, "--selftest")
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr and "weights.bin" in done.stderr and len(done.stderr.splitlines()) == 1
    with pytest.raises(NetworkError, match=re.escape(told)):
        Network(artifact)


def test_a_folder_in_place_of_the_weights_is_refused(artifact):
    (artifact / "weights.bin").unlink()
    (artifact / "weights.bin").mkdir()
    done = hand_made.run(artifact, "--info")
    assert done.returncode == 2 and "is not a file" in done.stderr


def test_the_selftest_passes_where_outputs_are_as_they_should_be(shared):
    done = hand_made.run(shared, "--selftest")
    assert done.returncode == 0 and done.stdout.startswith("ok   logits f32[1, 64]: largest error "), done
    assert "computes what it should" in done.stdout


def test_the_selftest_fails_where_an_output_differs(artifact, made):
    logits = hand_made.expected(made, image())
    logits[0, 17] += 1e-3 * np.ptp(logits)
    hand_made.write_check(artifact, image(), logits)
    done = hand_made.run(artifact, "--selftest")
    assert done.returncode == 1
    assert done.stdout.startswith("FAIL logits") and "element 17 is" in done.stdout
    assert "does NOT compute what it should" in done.stdout


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_the_selftest_fails_where_an_output_is_not_finite(bad, artifact):
    given = image()
    given[0, 5] = bad
    (artifact / "check/input_image.bin").write_bytes(given.tobytes())
    done = hand_made.run(artifact, "--selftest")
    assert done.returncode == 1 and "FAIL" in done.stdout


def test_the_selftest_keeps_to_the_tolerance_it_was_built_with(code, made, tmp_path):
    build_runtime(made, code, HOST, tmp_path, tolerance=0.01)
    logits = hand_made.expected(made, image())
    logits[0, 3] += 5e-3 * np.ptp(logits)
    hand_made.write_check(tmp_path, image(), logits)
    assert hand_made.run(tmp_path, "--selftest").returncode == 0
    logits[0, 3] += 2e-2 * np.ptp(logits)
    hand_made.write_check(tmp_path, image(), logits)
    assert hand_made.run(tmp_path, "--selftest").returncode == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "what to do?"),
        (["--frobnicate"], "there is no option --frobnicate"),
        (["--bench"], "--bench takes a whole number from 1 on"),
        (["--bench", "0"], "not 0"),
        (["--bench", "-3"], "not -3"),
        (["--bench", "12x"], "not 12x"),
        (["--bench", "99999999999999"], "not 99999999999999"),
        (["--bench", "5", "--warmup", "-1"], "--warmup takes a whole number from 0 on"),
        (["--selftest", "--threads", "0"], "--threads takes a whole number from 1 on"),
        (["--selftest", "--bench", "3"], "one thing at a time"),
        (["--selftest", "-o", "x"], "-o goes with input files"),
        (["--selftest", "--directory"], "--directory takes a directory"),
        (["--selftest", "--directory", "/nowhere"], "/nowhere/weights.bin cannot be read"),
        (["missing.bin"], "missing.bin cannot be read: No such file"),
        (["a.bin", "b.bin"], "2 input files are given, the network takes 1"),
        (["/"], "is not a file"),
    ],
)
def test_a_wrong_command_line_gives_one_message_and_code_2(words, told, shared):
    done = hand_made.run(shared, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr and done.stderr.startswith("run: ") and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "told"), [(lambda data: data[:-4], "has 252 bytes"), (lambda data: data * 2, "more than 256")]
)
def test_files_of_the_wrong_size_are_refused(change, told, artifact):
    for path in ("check/input_image.bin", "check/output_logits.bin"):
        right = (artifact / path).read_bytes()
        (artifact / path).write_bytes(change(right))
        done = hand_made.run(artifact, "--selftest")
        assert done.returncode == 2 and told in done.stderr and "f32[1, 64], 256 bytes" in done.stderr
        (artifact / path).unlink()
        done = hand_made.run(artifact, "--selftest")
        assert done.returncode == 2 and "cannot be read: No such file" in done.stderr
        (artifact / path).write_bytes(right)
    given = artifact / "given.bin"
    given.write_bytes(change(image().tobytes()))
    done = hand_made.run(artifact, str(given))
    assert done.returncode == 2 and told in done.stderr and "given.bin" in done.stderr


def test_files_are_run(artifact, made):
    given = artifact / "given.bin"
    given.write_bytes(image(3).tobytes())
    done = hand_made.run(artifact, str(given), "-o", str(artifact / "results"))
    result = np.fromfile(artifact / "results/logits.bin", np.float32).reshape(1, SIZE)
    np.testing.assert_allclose(result, hand_made.expected(made, image(3)), rtol=1e-6)
    assert done.returncode == 0 and f"largest at element {result.argmax()}" in done.stdout


def test_times_come_as_text_json_and_csv(shared):
    text = hand_made.run(shared, "--bench", "40", "--threads", "2", "--warmup", "0").stdout
    assert "batch 1, f32, on 2 threads: 40 runs after 0 to warm up" in text and "images per second" in text
    record = json.loads(hand_made.run(shared, "--bench", "40", "--json").stdout)
    latency = record["latency_ms"]
    order = ["min", "p50", "p90", "p95", "p99", "max"]
    assert [latency[name] for name in order] == sorted(latency[name] for name in order)
    assert latency["min"] <= latency["mean"] <= latency["max"] and record["repetitions"] == 40
    (row,) = csv.DictReader(io.StringIO(hand_made.run(shared, "--bench", "40", "--csv").stdout))
    assert row["network"] == "hand_made" and float(row["p50_ms"]) > 0 and int(row["resident_kb"]) > 0


def test_the_profile_names_kernels_and_nodes(shared, made):
    text = hand_made.run(shared, "--profile", "--bench", "5").stdout
    assert all(f"stage.{step.kernel}{number}" in text for number, step in enumerate(STEPS)) and "medians of 5" in text
    rows = json.loads(hand_made.run(shared, "--profile", "--json", "--threads", "3").stdout)
    assert [row["kernel"] for row in rows] == [step.kernel for step in STEPS]
    assert [row["threads"] for row in rows] == [1 if step.kernel in ALONE else 3 for step in STEPS]
    table = list(csv.DictReader(io.StringIO(hand_made.run(shared, "--profile", "--csv").stdout)))
    assert [row["nodes"] for row in table] == [f"stage.{step.kernel}{number}" for number, step in enumerate(STEPS)]
    with Network(shared, threads=2) as network:
        steps = network.profile(image())
        np.testing.assert_allclose(network.run(image()), hand_made.expected(made, image()), rtol=1e-5)
    assert [step.kernel for step in steps] == [step.kernel for step in STEPS] and all(
        step.seconds > 0 for step in steps
    )


def test_information_says_what_the_network_takes_and_gives(shared):
    text = hand_made.run(shared, "--info").stdout
    assert "input         image: f32[1, 64], 256 bytes" in text and "output        logits: f32[1, 64]" in text


def test_memory_is_weights_activations_and_little_more(code, tmp_path):
    big = hand_made.program(STEPS, weights=100_000)
    big = replace(big, arena=30 << 20)
    build_runtime(big, code, HOST, tmp_path)
    for threads in ("1", "4"):
        text = hand_made.run(tmp_path, "--bench", "3", "--memory", "--threads", threads).stdout
        resident = int(re.search(r"most ever resident (\d+) kB", text)[1]) * 1024
        planned = len(big.weights) + big.arena
        assert planned - (1 << 20) < resident < planned + (5 << 20), text


def c_program(artifact, folder, text):
    """Compiles a user's program against an artifact and runs it; returns what it printed."""
    (folder / "user.c").write_text(text)
    host = find_toolchain(HOST.triple)
    host.compile(
        folder / "user.c",
        folder / "user.o",
        f"-I{artifact}",
        "-fvisibility=default",
        "-Wall",
        "-Wextra",
        "-Wpedantic",
        "-Werror",
    )
    host.link([folder / "user.o"], folder / "user", f"-L{artifact}", "-lnetwork", f"-Wl,-rpath,{artifact}")
    done = subprocess.run([folder / "user", artifact], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, (done.returncode, done.stdout, done.stderr)
    return done.stdout


def test_running_allocates_nothing(shared, tmp_path):
    text = """
    #define _GNU_SOURCE
    #include <gensynth.h>
    #include <stdio.h>
    extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
    static int allocations;
    void *malloc(size_t bytes) { return __atomic_add_fetch(&allocations, 1, 5), __libc_malloc(bytes); }
    void *calloc(size_t count, size_t bytes) { return __atomic_add_fetch(&allocations, 1, 5), __libc_calloc(count, bytes); }
    void *realloc(void *old, size_t bytes) { return __atomic_add_fetch(&allocations, 1, 5), __libc_realloc(old, bytes); }
    static float image[64], logits[64];
    int main(int count, char **words) {
        const void *inputs[] = {image};
        void *outputs[] = {logits};
        (void)count;
        gs_network *network = gs_open(words[1], 3, NULL, 0);
        int before = allocations, failures = 0;
        for (int i = 0; i < 100; i++) failures += gs_run(network, inputs, NULL, outputs, NULL) != GS_OK;
        printf("%d failures, %d allocations, %s\\n", failures, allocations - before, before > 0 ? "counted" : "uncounted");
        gs_close(network);
    }
    """
    assert c_program(shared, tmp_path, text) == "0 failures, 0 allocations, counted\n"


def test_c_programs_are_told_what_is_wrong(shared, tmp_path):
    text = """
    #include <gensynth.h>
    #include <stdio.h>
    static float image[64], logits[64];
    int main(int count, char **words) {
        const void *inputs[] = {image}, *nothing[] = {NULL};
        void *outputs[] = {logits};
        size_t right[] = {256}, wrong[] = {255};
        char error[512];
        (void)count;
        printf("%d %s\\n", gs_open("/nowhere", 0, error, sizeof error) != NULL, error);
        printf("%d\\n", gs_open(NULL, 0, NULL, 0) != NULL || gs_open(words[1], -1, NULL, 0) != NULL);
        gs_network *network = gs_open(words[1], 1, error, sizeof error);
        printf("[%s][%s]\\n", error, gs_error(network));
        printf("%d %s\\n", gs_run(network, inputs, wrong, outputs, right), gs_error(network));
        printf("%d %s\\n", gs_run(network, inputs, right, outputs, wrong), gs_error(network));
        printf("%d %s\\n", gs_run(network, nothing, right, outputs, right), gs_error(network));
        printf("%d %s\\n", gs_run(network, NULL, NULL, outputs, NULL), gs_error(network));
        printf("%d\\n", gs_run(network, inputs, right, outputs, right));
        printf("%d %d\\n", gs_input(network, 1) == NULL, gs_output(network, -1) == NULL && gs_step_at(network, 9) == NULL);
        gs_close(network);
        gs_close(NULL);
        return gs_run(NULL, inputs, right, outputs, right) != GS_BAD_ARGUMENT;
    }
    """
    assert c_program(shared, tmp_path, text).splitlines() == [
        "0 /nowhere/weights.bin cannot be read: No such file or directory; it belongs to the artifact",
        "0",
        "[][]",
        "1 input 0 (image) has 255 bytes, the network's has 256",
        "1 output 0 (logits) has 255 bytes, the network's has 256",
        "1 input 0 (image) is NULL",
        "1 no inputs are given; the network has 1",
        "0",
        "1 1",
    ]


def test_a_processor_that_lacks_what_kernels_need_is_refused(code, made, tmp_path, monkeypatch):
    monkeypatch.setattr(generating, "code_features", lambda target: ("avx2", "fortran9"))
    monkeypatch.setattr(generating, "FEATURES", {"avx2": "avx2", "fortran": "fortran9"})
    build_runtime(made, code, HOST, tmp_path)
    done = hand_made.run(tmp_path, "--info")
    assert done.returncode == 2 and "need a processor with avx2 fortran, which this one has not" in done.stderr


def test_a_processor_that_has_what_kernels_need_is_taken(code, made, tmp_path, monkeypatch):
    features = host_features()
    monkeypatch.setattr(generating, "code_features", lambda target: tuple(features))
    build_runtime(made, code, HOST, tmp_path)
    assert features and hand_made.run(tmp_path, "--info").returncode == 0
