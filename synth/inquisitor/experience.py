"""Experience: what one search learned, kept as JSON for the next, on other data or from another prototype."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gensynth.ir import DataError, write_atomically

__all__ = ["Experience", "Observation"]


@dataclass(frozen=True)
class Observation:
    """A trained network as it may be compared across tasks: its decisions, and figures relative to its own search.

    `merit` and `shortcuts` are the surrogate's features, `log_params` and `log_macs` standardized; `value` is the logit
    of accuracy in units of that search's spread, from its median.
    """

    labels: Mapping[str, str]
    merit: float
    shortcuts: float
    log_params: float
    log_macs: float
    value: float


@dataclass(frozen=True)
class Experience:
    """The observations of one search."""

    observations: tuple[Observation, ...]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the experience as JSON."""
        rows = [{**vars(item), "labels": dict(item.labels)} for item in self.observations]
        write_atomically(Path(path), (json.dumps({"gensynth_experience": 1, "observations": rows}) + "\n").encode())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Experience:
        """Reads an experience.

        Raises:
            DataError: the file cannot be read, or holds something else.
        """
        hint = "give the experience.json of a finished run"
        try:
            found = json.loads(Path(path).read_text(encoding="utf-8"))
            if found["gensynth_experience"] != 1:
                raise KeyError("gensynth_experience")
            rows = found["observations"]
            return cls(
                tuple(
                    Observation(
                        {str(key): str(label) for key, label in row["labels"].items()},
                        *(float(row[name]) for name in ("merit", "shortcuts", "log_params", "log_macs", "value")),
                    )
                    for row in rows
                )
            )
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}", hint=hint) from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} holds no experience: {error!r}", hint=hint) from None
