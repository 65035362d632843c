"""Convolutions."""

from __future__ import annotations

from collections.abc import Sequence

from ..attributes import BoolKind, IntKind, Padding, PaddingKind, Pair, PairKind, attribute, pair
from ..op import Op, Parameter
from ..types import TensorType
from .windows import resolve_padding, window_sizes


class _Convolution(Op):
    channels: int
    groups: int
    bias: bool

    def _grouped(self, operand: TensorType) -> int:
        channels, _, _ = self.image(operand)
        if channels % self.groups or self.channels % self.groups:
            raise self.fail(
                f"groups={self.groups} must divide the {channels} channels of the operand and channels={self.channels}",
                hint="a depthwise convolution has groups equal to the operand's channels",
                attribute="groups",
            )
        return channels

    def _with_bias(self, weight: Parameter) -> tuple[Parameter, ...]:
        return (weight, Parameter("bias", (self.channels,), "zeros")) if self.bias else (weight,)


class Conv2d(_Convolution, name="conv2d"):
    """y[n, o, i, j] = sum_{c, u, v} weight[o, c, u, v] * x[n, g(o) + c, i s + u d - p, j s + v d - p] + bias[o].

    Cross-correlation with stride s, dilation d, padding p; output channel o sees the input channels of its group.
    `weight` has shape [channels, C / groups, kernel height, kernel width].
    """

    channels: int = attribute(IntKind())
    kernel: Pair = attribute(PairKind())
    stride: Pair = attribute(PairKind(), default=1)
    padding: Padding = attribute(PaddingKind(), default="valid")
    dilation: Pair = attribute(PairKind(), default=1)
    groups: int = attribute(IntKind(), default=1)
    bias: bool = attribute(BoolKind(), default=False)

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self._grouped(operands[0])
        _, height, width = self.image(operands[0])
        rows, columns = window_sizes((height, width), self.kernel, self.stride, self.padding, self.dilation)
        if rows < 1 or columns < 1:
            raise self.fail(
                f"a kernel of {self.kernel} does not fit into {operands[0]}",
                hint="use padding=same or a smaller kernel",
                attribute="kernel",
            )
        return self.with_channels(operands[0], self.channels, rows, columns)

    def parameters(self, operands: Sequence[TensorType]) -> tuple[Parameter, ...]:
        per_group = self._grouped(operands[0]) // self.groups
        return self._with_bias(Parameter("weight", (self.channels, per_group, *pair(self.kernel))))

    def pads(self, operand: TensorType) -> tuple[int, int, int, int]:
        """Returns the padding on this operand: (top, bottom, left, right)."""
        _, height, width = self.image(operand)
        return resolve_padding(self.padding, (height, width), self.kernel, self.stride, self.dilation)


class ConvTranspose2d(_Convolution, name="conv_transpose2d"):
    """The gradient of `conv2d` by its input: every input element spreads `weight` over the output, stride s apart.

    Output size (H - 1) s - p_begin - p_end + d (k - 1) + output_padding + 1; with padding=same it is H s.
    `weight` has shape [C, channels / groups, kernel height, kernel width].
    """

    channels: int = attribute(IntKind())
    kernel: Pair = attribute(PairKind())
    stride: Pair = attribute(PairKind(), default=1)
    padding: Padding = attribute(PaddingKind(), default="valid")
    output_padding: Pair = attribute(PairKind(0), default=0)
    dilation: Pair = attribute(PairKind(), default=1)
    groups: int = attribute(IntKind(), default=1)
    bias: bool = attribute(BoolKind(), default=False)

    def pads(self, operand: TensorType) -> tuple[int, int, int, int]:
        """Returns what is cut from the full result: (top, bottom, left, right)."""
        if self.padding != "same":
            return resolve_padding(self.padding, (1, 1), 1, 1)
        cuts: list[int] = []
        for k, s, d, extra in zip(
            pair(self.kernel), pair(self.stride), pair(self.dilation), pair(self.output_padding), strict=True
        ):
            total = d * (k - 1) + 1 - s + extra
            if total < 0:
                raise self.fail(
                    f"padding=same wants a kernel of at least the stride, got kernel={self.kernel} and"
                    f" stride={self.stride}",
                    attribute="kernel",
                )
            cuts += [total // 2, total - total // 2]
        return cuts[0], cuts[1], cuts[2], cuts[3]

    def infer(self, operands: Sequence[TensorType]) -> tuple[TensorType, ...]:
        self._grouped(operands[0])
        _, height, width = self.image(operands[0])
        top, bottom, left, right = self.pads(operands[0])
        stride, dilation, kernel, extra = (
            pair(self.stride),
            pair(self.dilation),
            pair(self.kernel),
            pair(self.output_padding),
        )
        if any(e >= max(s, d) for e, s, d in zip(extra, stride, dilation, strict=True)):
            raise self.fail("output_padding must be smaller than the stride or dilation", attribute="output_padding")
        rows = (height - 1) * stride[0] - top - bottom + dilation[0] * (kernel[0] - 1) + extra[0] + 1
        columns = (width - 1) * stride[1] - left - right + dilation[1] * (kernel[1] - 1) + extra[1] + 1
        if rows < 1 or columns < 1:
            raise self.fail(f"padding={self.padding} leaves nothing of the result", attribute="padding")
        return self.with_channels(operands[0], self.channels, rows, columns)

    def parameters(self, operands: Sequence[TensorType]) -> tuple[Parameter, ...]:
        channels = self._grouped(operands[0])
        return self._with_bias(Parameter("weight", (channels, self.channels // self.groups, *pair(self.kernel))))
