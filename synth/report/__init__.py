"""The report of a run: one self-contained page made from the run directory alone."""

from .page import write_report

__all__ = ["write_report"]
