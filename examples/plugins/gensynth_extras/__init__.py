"""Plug-ins for GenSynth, one of each kind; `pyproject.toml` beside this package names them as entry points."""
