"""Kills a synthesis at random moments, resumes it, and compares generator and store with an uninterrupted run.

python bench/resume.py --kills 20 --json out.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONFIG = """
requirements = ["accuracy >= 50%", "macs <= 200K", "params <= 20K"]

[task]
name = "digits"

[prototype]
name = "resnet"
depth = 8

[generator]
passes = ["sort-channels", "offer{rewrite=separate-conv,where=stage2}", "open-width{ratios=[0.25,0.5,1.0]}"]

[search]
cycles = 2
networks = 3
probes = 8
draws = 16

[inquisitor]
commit = 0.6
drop = 0.2
offers = ["low-rank-conv"]

[emit]
seeds = 3
pool = 32

[training]
epochs = 3

[search_training]
epochs = 2
"""


def start(config: Path, out: Path, resume: bool) -> subprocess.Popen[bytes]:
    """Starts the command in a process group of its own."""
    command = [sys.executable, "-m", "gensynth", "synthesize", str(config), "--out", str(out)]
    if resume:
        command.append("--resume")
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True, cwd=config.parent
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    """Waits for a run that must end well."""
    _, errors = process.communicate()
    if process.returncode != 0:
        sys.exit(f"the run failed with {process.returncode}:\n{errors.decode()}")


def outcome(out: Path) -> dict[str, object]:
    """Returns everything that must not depend on interruptions."""
    connection = sqlite3.connect(out / "store.sqlite")
    evaluations = connection.execute("SELECT * FROM evaluations ORDER BY key").fetchall()
    networks = connection.execute("SELECT * FROM networks ORDER BY hash").fetchall()
    connection.close()
    return {
        "generator": (out / "generator.gsir").read_text(),
        "cycles": [path.read_text() for path in sorted((out / "cycles").iterdir())],
        "summary": (out / "summary.json").read_text(),
        "weights": {path.name: path.read_bytes() for path in sorted((out / "networks").glob("*.safetensors"))},
        "evaluations": evaluations,
        "networks": networks,
    }


def main() -> None:
    """Runs, kills, resumes, compares; prints a line for each kill and writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    moments = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        config = home / "resume.toml"
        config.write_text(CONFIG)
        began = time.perf_counter()
        finish(start(config, home / "whole", resume=False))
        length = time.perf_counter() - began
        expected = outcome(home / "whole")
        print(f"uninterrupted: {length:.1f} s, {len(expected['evaluations'])} evaluations")  # type: ignore[arg-type]
        rows = []
        for number in range(1, arguments.kills + 1):
            out = home / "killed"
            shutil.rmtree(out, ignore_errors=True)
            moment = moments.uniform(0.05, 0.98) * length
            process = start(config, out, resume=False)
            time.sleep(moment)
            killed = process.poll() is None
            os.killpg(process.pid, signal.SIGKILL) if killed else None
            process.communicate()
            done = 0
            if (out / "store.sqlite").exists():
                connection = sqlite3.connect(out / "store.sqlite")
                try:
                    done = connection.execute("SELECT COUNT(*) FROM evaluations").fetchone()[0]
                except sqlite3.OperationalError:
                    done = 0
                connection.close()
            finish(start(config, out, resume=True))
            found = outcome(out)
            different = [key for key in expected if expected[key] != found[key]]
            rows.append({"moment": round(moment, 2), "killed": killed, "done": done, "different": different})
            print(
                f"kill {number:2d} at {moment:5.1f} s, {done:2d} evaluations done:"
                f" {'identical' if not different else 'DIFFERENT: ' + ', '.join(different)}",
                flush=True,
            )
    identical = sum(not row["different"] for row in rows)
    print(f"{identical} of {len(rows)} resumed runs equal the uninterrupted one")
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"length": length, "kills": rows, "identical": identical}, indent=2) + "\n"
        )
    sys.exit(0 if identical == len(rows) else 1)


if __name__ == "__main__":
    main()
