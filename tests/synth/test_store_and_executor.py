import os
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from gensynth.ir import DataError, GenSynthError, UsageError
from gensynth.synth.executor import LocalExecutor
from gensynth.synth.store import Store


def put(store, key, **result):
    store.put(key, kind="search", network="h", text="t", detail={"cycle": 1}, result=result, seconds=0.5)


def test_a_result_is_found_again_after_the_file_is_reopened(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    put(store, "a", accuracy=91.5)
    store.close()
    again = Store(tmp_path / "store.sqlite")
    assert again.get("a") == {"accuracy": 91.5}
    assert again.get("b") is None
    assert again.count("search") == 1
    assert again.seconds("search") == 0.5
    again.close()


def test_a_result_once_written_never_changes(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    put(store, "a", accuracy=1.0)
    put(store, "a", accuracy=2.0)
    assert store.get("a") == {"accuracy": 1.0}
    assert [row[0] for row in store.rows()] == ["a"]
    store.close()


def test_what_was_written_survives_a_kill(tmp_path):
    program = f"""
        import os, signal
        from gensynth.synth.store import Store
        store = Store({str(tmp_path / "store.sqlite")!r})
        for number in range(5):
            store.put(str(number), kind="k", network="h", text="t", detail={{}}, result={{"n": number}}, seconds=0.0)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=False)
    store = Store(tmp_path / "store.sqlite")
    assert [result["n"] for *_, result in store.rows()] == [0, 1, 2, 3, 4]
    store.close()


def test_a_file_that_is_no_store_is_refused(tmp_path):
    path = tmp_path / "store.sqlite"
    path.write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(DataError, match="no run store"):
        Store(path)


def square(number):
    return number * number


def thread_count(_):
    import torch

    return torch.get_num_threads()


def fail(_):
    raise DataError("the data are gone", hint="bring them back")


def die(_):
    os._exit(3)


@pytest.mark.parametrize("processes", [0, 2])
def test_results_come_with_the_index_of_their_item(processes):
    executor = LocalExecutor(processes)
    try:
        assert dict(executor.map(square, [3, 1, 2])) == {0: 9, 1: 1, 2: 4}
        assert dict(executor.map(thread_count, [0])) == {0: 1}
    finally:
        executor.close()


def test_an_error_of_a_worker_keeps_its_message_and_hint():
    executor = LocalExecutor(1)
    try:
        with pytest.raises(DataError, match="the data are gone") as caught:
            list(executor.map(fail, [0]))
        assert caught.value.hint == "bring them back"
    finally:
        executor.close()


def test_a_worker_that_dies_is_an_error_that_says_so():
    executor = LocalExecutor(1)
    try:
        with pytest.raises(GenSynthError, match="worker process ended"):
            list(executor.map(die, [0]))
    finally:
        executor.close()


def test_a_negative_number_of_processes_is_refused():
    with pytest.raises(UsageError, match="processes"):
        LocalExecutor(-1)


def test_workers_end_when_their_parent_is_killed(tmp_path):
    program = tmp_path / "parent.py"
    program.write_text(
        textwrap.dedent(
            f"""
            import os, time
            from gensynth.synth.executor import LocalExecutor

            def slow(_):
                with open({str(tmp_path / "worker.pid")!r}, "w") as file:
                    file.write(str(os.getpid()))
                time.sleep(600)

            if __name__ == "__main__":
                list(LocalExecutor(1).map(slow, [0]))
            """
        )
    )
    parent = subprocess.Popen([sys.executable, str(program)], env=os.environ)
    deadline = time.monotonic() + 60
    while not (tmp_path / "worker.pid").exists() or not (tmp_path / "worker.pid").read_text():
        assert time.monotonic() < deadline, "the worker never started"
        time.sleep(0.1)
    worker = int((tmp_path / "worker.pid").read_text())
    parent.kill()
    parent.wait()
    while time.monotonic() < deadline:
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{worker}/stat").read_text().split(")")[-1].split()[0] == "Z":
            return
        time.sleep(0.2)
    pytest.fail("the worker outlived its parent")


def test_the_store_is_plain_sqlite(tmp_path):
    store = Store(tmp_path / "store.sqlite")
    put(store, "a", accuracy=1.0)
    store.close()
    connection = sqlite3.connect(tmp_path / "store.sqlite")
    assert connection.execute("SELECT kind, network FROM evaluations").fetchall() == [("search", "h")]
    connection.close()
