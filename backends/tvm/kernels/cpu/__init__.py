"""Templates of kernels for CPUs; importing this registers them."""

from . import (
    convolution,
    dense,
    depthwise,
    halo,
    moves,
    normalizations,
    pointwise,
    pools,
    resize,
    transposed,
    winograd,
)

__all__: list[str] = []

del convolution, dense, depthwise, halo, moves, normalizations, pointwise, pools, resize, transposed, winograd
