"""The run store: every evaluation of a run in one SQLite file that survives a kill at any moment."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path

from gensynth.ir import DataError

__all__ = ["Store"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS evaluations (
    key TEXT PRIMARY KEY,      -- content hash of everything the result depends on
    kind TEXT NOT NULL,        -- probe, search, final, test
    network TEXT NOT NULL,     -- architecture hash
    detail TEXT NOT NULL,      -- JSON: seed, cycle and whatever else identifies it
    result TEXT NOT NULL       -- JSON
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS timings (key TEXT PRIMARY KEY, seconds REAL NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS networks (hash TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
"""


class Store:
    """Evaluations by key. A row is written in one transaction when its evaluation is done, and never changes.

    Results depend on nothing but their keys, so a run that is started again finds what it had and goes on. Times are
    kept apart: they differ from run to run.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Opens or creates the file.

        Raises:
            DataError: it is no store.
        """
        self.path = Path(path)
        try:
            self._connection = sqlite3.connect(self.path, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise DataError(
                f"{path} is no run store: {error}", hint="remove the run directory, or start the run under another name"
            ) from None

    def get(self, key: str) -> dict[str, object] | None:
        """Returns the result of an evaluation, or None where it has not been done."""
        row = self._connection.execute("SELECT result FROM evaluations WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(
        self,
        key: str,
        *,
        kind: str,
        network: str,
        text: str,
        detail: Mapping[str, object],
        result: Mapping[str, object],
        seconds: float,
    ) -> None:
        """Writes an evaluation, its network's text and its time in one transaction."""
        with self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute(
                "INSERT OR IGNORE INTO evaluations VALUES (?, ?, ?, ?, ?)",
                (key, kind, network, json.dumps(detail, sort_keys=True), json.dumps(result, sort_keys=True)),
            )
            self._connection.execute("INSERT OR IGNORE INTO timings VALUES (?, ?)", (key, seconds))
            self._connection.execute("INSERT OR IGNORE INTO networks VALUES (?, ?)", (network, text))

    def rows(self, kind: str | None = None) -> Iterator[tuple[str, str, str, dict[str, object], dict[str, object]]]:
        """Yields (key, kind, network, detail, result), in order of the keys."""
        query = "SELECT key, kind, network, detail, result FROM evaluations"
        cursor = (
            self._connection.execute(f"{query} ORDER BY key")
            if kind is None
            else self._connection.execute(f"{query} WHERE kind = ? ORDER BY key", (kind,))
        )
        for key, found, network, detail, result in cursor:
            yield key, found, network, json.loads(detail), json.loads(result)

    def text(self, network: str) -> str:
        """Returns the text of a network by its architecture hash.

        Raises:
            DataError: no evaluation is of this network.
        """
        row = self._connection.execute("SELECT text FROM networks WHERE hash = ?", (network,)).fetchone()
        if row is None:
            raise DataError(f"{self.path} has no network {network}", hint="the store was changed by hand; run again")
        return str(row[0])

    def count(self, kind: str) -> int:
        """Returns how many evaluations of a kind there are."""
        found: int = self._connection.execute("SELECT COUNT(*) FROM evaluations WHERE kind = ?", (kind,)).fetchone()[0]
        return found

    def seconds(self, kind: str | None = None) -> float:
        """Returns the time that evaluations took in all, workers added up."""
        where = "" if kind is None else " WHERE kind = ?"
        found = self._connection.execute(
            f"SELECT COALESCE(SUM(seconds), 0) FROM timings JOIN evaluations USING (key){where}",
            () if kind is None else (kind,),
        ).fetchone()[0]
        return float(found)

    def time(self, key: str) -> float:
        """Returns the seconds that an evaluation took, 0 where it has not been done."""
        row = self._connection.execute("SELECT seconds FROM timings WHERE key = ?", (key,)).fetchone()
        return 0.0 if row is None else float(row[0])

    def close(self) -> None:
        """Closes the file."""
        self._connection.close()
