"""The inquisitor: probes, a surrogate with uncertainty, proposals with reasons."""

from .candidate import UNREACHED, Candidate
from .inquisitor import Inquisitor, InquisitorSettings, Judgement, Proposal
from .reasons import Reason
from .surrogate import Posterior, Surrogate

__all__ = [
    "UNREACHED",
    "Candidate",
    "Inquisitor",
    "InquisitorSettings",
    "Judgement",
    "Posterior",
    "Proposal",
    "Reason",
    "Surrogate",
]
