"""Arithmetic on float32 vectors that calls no library: maxima, exponential, logarithm, logistic function, powers."""

from __future__ import annotations

from typing import Any

import numpy as np
import tvm.tirx.script.builder as T

from ...targets import Target

__all__ = [
    "constant",
    "exponential",
    "lanes_of",
    "largest",
    "logarithm",
    "logistic",
    "power",
    "smallest",
    "spread",
]

Expression = Any

_EXPONENTIAL = (0.49999993, 0.1666652, 0.04166839, 0.00836878, 0.00138145)
"""exp(r) = 1 + r + r^2 (c0 + c1 r + ...) for |r| <= ln(2) / 2, relative error at most 4e-9: our own minimax fit."""

_LOGARITHM = (
    0.33333332,
    -0.25000821,
    0.20001227,
    -0.16623357,
    0.14201757,
    -0.13160184,
    0.12761582,
    -0.076345,
)
"""ln(1 + t) = t - t^2 / 2 + t^3 (c0 + c1 t + ...) for 1 + t from sqrt(1/2) to sqrt(2), relative error at most 6e-9."""

_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
"""Their sum is ln 2; the first has few bits, so that its product with an exponent is exact."""

_ROUNDING = 12582912.0
"""1.5 * 2^23: added to a number below 2^22, it leaves the nearest integer in the low bits of the sum."""


def lanes_of(value: Expression) -> int:
    """Returns how many lanes an expression has."""
    dtype = str(value.ty.dtype) if hasattr(value, "ty") else str(value.dtype)
    return int(dtype.partition("x")[2] or 1)


def constant(value: float, lanes: int) -> Expression:
    """Returns a float32 number in every lane."""
    return spread(T.float32(float(np.float32(value))), lanes)


def spread(value: Expression, lanes: int) -> Expression:
    """Returns a scalar in every lane."""
    return value if lanes == 1 else T.Broadcast(value, lanes)


def _integer(value: int, lanes: int) -> Expression:
    return spread(T.int32(value), lanes)


def _typed(kind: str, lanes: int) -> str:
    return kind if lanes == 1 else f"{kind}x{lanes}"


def largest(a: Expression, b: Expression, target: Target | None = None) -> Expression:
    """Returns the larger in each lane, in the one instruction that the target has for it."""
    return _extreme(a, b, target, "llvm.maxnum", T.max)


def smallest(a: Expression, b: Expression, target: Target | None = None) -> Expression:
    """Returns the smaller in each lane, in the one instruction that the target has for it."""
    return _extreme(a, b, target, "llvm.minnum", T.min)


def _extreme(a: Expression, b: Expression, target: Target | None, intrinsic: str, otherwise: Any) -> Expression:
    # x86's maxps is a comparison and a choice; ARM's fmaxnm is maxNum of IEEE 754-2008
    if target is not None and target.architecture == "aarch64":
        return T.call_llvm_pure_intrin(_typed("float32", lanes_of(a)), intrinsic, a, b)
    return otherwise(a, b)


def exponential(x: Expression, *, normal: bool = False) -> Expression:
    """Returns e^x, relative error at most 2e-7; 0 below -104 and 3.4e38 above 88.72.

    With `normal`, a little faster, x is held between -87.3 and 88, so that the result is a normal float.
    """
    # with n the integer nearest to x / ln 2, e^x = 2^n e^r, |r| <= ln(2) / 2
    lanes = lanes_of(x)
    low, high = (-87.3, 88.0) if normal else (-104.0, 88.72283)
    x = T.bind(T.max(T.min(x, constant(high, lanes)), constant(low, lanes)))
    shifted = T.bind(x * constant(1.4426950408889634, lanes) + constant(_ROUNDING, lanes))
    # not shifted - _ROUNDING, which the simplifier would undo
    n = T.bind(_bits(shifted) - _bits(constant(_ROUNDING, lanes)))
    whole = T.bind(T.Cast(_typed("float32", lanes), n))
    r = T.bind(x - whole * constant(_LN2_HIGH, lanes) - whole * constant(_LN2_LOW, lanes))
    series = _horner(r, _EXPONENTIAL)
    mantissa = T.bind(series * (r * r) + r + constant(1.0, lanes))
    if normal:
        return mantissa * _power_of_two(n)
    # in two factors, since 2^128 is no float, nor are the powers below 2^-126
    half = T.bind(n >> _integer(1, lanes))
    return mantissa * _power_of_two(half) * _power_of_two(n - half)


def _bits(x: Expression) -> Expression:
    return T.reinterpret(_typed("int32", lanes_of(x)), x)


def _power_of_two(n: Expression) -> Expression:
    lanes = lanes_of(n)
    return T.reinterpret(_typed("float32", lanes), (n + _integer(127, lanes)) << _integer(23, lanes))


def _horner(x: Expression, coefficients: tuple[float, ...]) -> Expression:
    lanes = lanes_of(x)
    result = constant(coefficients[-1], lanes)
    for coefficient in reversed(coefficients[:-1]):
        result = result * x + constant(coefficient, lanes)
    return result


def logistic(x: Expression) -> Expression:
    """Returns 1 / (1 + e^-x); 6e-39 below -88."""
    one = constant(1.0, lanes_of(x))
    return one / (exponential(constant(0.0, lanes_of(x)) - x, normal=True) + one)


def logarithm(x: Expression) -> Expression:
    """Returns ln x for positive, normal x; absolute error about 1e-7 + 1e-7 |ln x|.

    With x = 2^n m, m from sqrt(1/2) to sqrt(2): ln x = n ln 2 + ln m.
    """
    lanes = lanes_of(x)
    # the bits of sqrt(1/2) taken away, the exponent field counts from there
    bits = T.bind(_bits(x) - _integer(0x3F3504F3, lanes))
    n = T.bind(bits >> _integer(23, lanes))
    m = T.reinterpret(_typed("float32", lanes), (bits & _integer(0x007FFFFF, lanes)) + _integer(0x3F3504F3, lanes))
    t = T.bind(m - constant(1.0, lanes))
    square = T.bind(t * t)
    exponent = T.bind(T.Cast(_typed("float32", lanes), n))
    low = _horner(t, _LOGARITHM) * (square * t) + exponent * constant(_LN2_LOW, lanes)
    return low - square * constant(0.5, lanes) + t + exponent * constant(_LN2_HIGH, lanes)


def power(x: Expression, exponent: float) -> Expression:
    """Returns x^exponent for positive x: by roots, thus exactly, where the exponent is a multiple of 1/4 up to 1.

    Else by the logarithm, with relative error about 2e-7 (1 + |exponent ln x|).
    """
    lanes = lanes_of(x)
    quarters = abs(exponent) * 4
    if quarters not in (0, 1, 2, 3, 4):
        return exponential(logarithm(x) * constant(exponent, lanes))
    x = T.bind(x)
    factors = []
    if quarters == 4:
        factors.append(x)
    if quarters in (1, 2, 3):
        root = T.bind(T.sqrt(x))
        factors += [root] if quarters >= 2 else []
        factors += [T.sqrt(root)] if quarters in (1, 3) else []
    result = factors[0] if factors else constant(1.0, lanes)
    for factor in factors[1:]:
        result = result * factor
    return constant(1.0, lanes) / result if exponent < 0 else result
