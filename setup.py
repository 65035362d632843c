"""Names the packages: the roots in pyproject.toml's package-dir and, below each, every folder with an __init__.py."""

import tomllib
from pathlib import Path

from setuptools import find_packages, setup

configuration = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
roots: dict[str, str] = configuration["tool"]["setuptools"]["package-dir"]

setup(packages=[*roots, *(f"{name}.{child}" for name, folder in roots.items() for child in find_packages(folder))])
