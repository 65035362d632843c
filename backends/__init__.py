"""Where networks run: the NumPy reference, and the lowerings to other libraries (each loads its library lazily)."""

from .examples import Examples

__all__ = ["Examples"]
