"""Plug-ins: what other distributions register under GenSynth's entry-point groups."""

from __future__ import annotations

import sys

__all__ = ["load_plugins"]

_loaded: set[str] = set()


def load_plugins(group: str) -> None:
    """Imports everything registered under a group, once a process; each registers itself when it is imported.

    One that fails is named on stderr and left out, so that a broken package does not take GenSynth along.
    """
    if group in _loaded:
        return
    _loaded.add(group)
    from importlib.metadata import entry_points  # slow to import, and seldom needed

    for entry in entry_points(group=group):
        try:
            entry.load()
        except Exception as error:  # a foreign package may fail in any way
            print(f"gensynth: warning: {group} plug-in '{entry.name}' ({entry.value}) failed: {error}", file=sys.stderr)
