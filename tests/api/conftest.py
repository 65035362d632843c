"""What the tests of the command line share: running a command in a folder of its own."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest
from command_line import OPEN, TINY, Outcome, Run

from gensynth.cli import main


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, holding a network tiny.gsir and a generator open.gsir."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GENSYNTH_DATA", raising=False)
    (tmp_path / "tiny.gsir").write_text(TINY)
    (tmp_path / "open.gsir").write_text(OPEN)
    return tmp_path


@pytest.fixture
def gensynth(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command in `folder` and returns exit code, stdout and stderr; `stdin` is its input."""

    def run(*argv: str, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        capsys.readouterr()
        code = main([str(item) for item in argv])
        found = capsys.readouterr()
        return Outcome(code, found.out, found.err)

    return run
