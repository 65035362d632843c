"""Templates of GPU kernels; importing registers them."""

from . import convolution, dense, direct, moves, normalization, pointwise, pools

__all__: list[str] = []

del convolution, dense, direct, moves, normalization, pointwise, pools  # imported for their registrations
