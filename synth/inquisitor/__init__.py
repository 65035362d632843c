"""The inquisitor: probes, a surrogate with uncertainty, proposals with reasons."""

from .assessment import Assessment, Judgement
from .candidate import UNREACHED, Candidate
from .encoding import Encoding
from .experience import Experience
from .inquisitor import Inquisitor, InquisitorSettings, Proposal
from .reasons import Reason
from .surrogate import Posterior, Surrogate

__all__ = [
    "UNREACHED",
    "Assessment",
    "Candidate",
    "Encoding",
    "Experience",
    "Inquisitor",
    "InquisitorSettings",
    "Judgement",
    "Posterior",
    "Proposal",
    "Reason",
    "Surrogate",
]
