"""The built-in rewrite rules, one a file; importing them registers them."""

from .bottleneck_conv import BottleneckConv
from .bypass_block import BypassBlock
from .collapse_block import CollapseBlock
from .factorize_conv import FactorizeConv
from .fold_batch_norm import FoldBatchNorm
from .group_conv import GroupConv
from .low_rank_conv import LowRankConv
from .pool_early import PoolEarly
from .replace_activation import ReplaceActivation
from .scale_width import ScaleWidth
from .separate_conv import SeparateConv
from .shrink_kernel import ShrinkKernel
from .squeeze_excite import SqueezeExcite

__all__ = [
    "BottleneckConv",
    "BypassBlock",
    "CollapseBlock",
    "FactorizeConv",
    "FoldBatchNorm",
    "GroupConv",
    "LowRankConv",
    "PoolEarly",
    "ReplaceActivation",
    "ScaleWidth",
    "SeparateConv",
    "ShrinkKernel",
    "SqueezeExcite",
]
