"""What a wheel would hold."""

from __future__ import annotations

import fnmatch
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SETUPTOOLS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
FOLDERS = {folder: name.replace(".", "/") for name, folder in SETUPTOOLS["package-dir"].items()}


@pytest.fixture(scope="module")
def packaged(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    target = tmp_path_factory.mktemp("packages")
    command = [sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", target]
    subprocess.run([*command, "build_py", "--build-lib", target / "lib"], cwd=ROOT, check=True, capture_output=True)
    return {path.relative_to(target / "lib").as_posix() for path in (target / "lib").rglob("*") if path.is_file()}


def sources(*patterns: str) -> set[str]:
    found = set()
    for folder, package in FOLDERS.items():
        for path in (ROOT / folder).rglob("*"):
            hidden = path.name.startswith(".") or path.parent.name == "__pycache__"
            if path.is_file() and not hidden and any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns):
                found.add(f"{package}/{path.relative_to(ROOT / folder).as_posix()}")
    return found


def test_every_module_is_packaged(packaged: set[str]) -> None:
    assert sources("*.py") - packaged == set(), "a folder lacks its __init__.py"


def test_every_data_file_is_packaged(packaged: set[str]) -> None:
    patterns = [pattern.removeprefix("**/") for pattern in SETUPTOOLS["package-data"]["*"]]
    assert sources(*patterns) - packaged == set()
    assert "gensynth/py.typed" in packaged


def test_every_other_file_is_known_not_to_be_packaged() -> None:
    patterns = [pattern.removeprefix("**/") for pattern in SETUPTOOLS["package-data"]["*"]]
    forgotten = sources("*") - sources("*.py", *patterns)
    assert forgotten == set(), "name their endings in pyproject.toml's package-data"


def test_no_folder_at_the_root_shadows_the_import_name() -> None:
    assert not (ROOT / "gensynth").exists()
