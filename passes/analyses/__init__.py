"""Analyses: facts derived from a graph. Slicing, which follows from one of them, makes new networks."""

from .channel_flow import keeps_channels
from .channel_groups import ChannelGroup, ChannelGroups, channel_groups
from .kernels import Kernel, group_kernels, group_nodes
from .liveness import Liveness, liveness, peak_memory
from .memory_plan import Buffer, MemoryPlan, plan_memory
from .receptive_field import Field, ReceptiveField, receptive_fields
from .slicing import channel_importance, permute_channels, slice_channels, slice_weights

__all__ = [
    "Buffer",
    "ChannelGroup",
    "ChannelGroups",
    "Field",
    "Kernel",
    "Liveness",
    "MemoryPlan",
    "ReceptiveField",
    "channel_groups",
    "channel_importance",
    "group_kernels",
    "group_nodes",
    "keeps_channels",
    "liveness",
    "peak_memory",
    "permute_channels",
    "plan_memory",
    "receptive_fields",
    "slice_channels",
    "slice_weights",
]
