"""What every op means, in plain NumPy: the judge in differential tests. Slow, and meant to be read."""

from . import convolutions, elementwise, moves, pools
from .meanings import Operands, Results, has_meaning, meaning
from .run import reference_values, run_reference

__all__ = ["Operands", "Results", "has_meaning", "meaning", "reference_values", "run_reference"]

del convolutions, elementwise, moves, pools  # imported for their registrations
