"""`sort-channels`: the important channels first."""

from __future__ import annotations

import numpy as np

from gensynth.ir import Network, PassError
from gensynth.passes.analyses import channel_groups, channel_importance, permute_channels

from ..base import Pass, PassResult

__all__ = ["SortChannels"]


class SortChannels(Pass, name="sort-channels"):
    """Orders the channels of every group by importance, largest filters first. Exact: the function stays.

    Groups whose channels run through shuffles and splits in a row, or a local response norm, keep their order.

    What opens widths afterwards keeps the first channels, so they had better be the ones that matter.
    """

    def run(self, network: Network) -> PassResult:
        """Returns the network with permuted weights.

        Raises:
            PassError: the network has no weights.
        """
        if network.weights is None:
            raise PassError("sort-channels needs weights", hint="train the network first, or leave the pass out")
        orders: dict[str, list[int]] = {}
        for group in channel_groups(network.graph).groups:
            if group.fixed is not None or not group.exact:
                continue
            order = np.argsort(-channel_importance(network, group), kind="stable").tolist()
            if order != list(range(group.width)):
                orders[group.id] = order
        if not orders:
            return PassResult(network, False)
        return PassResult(permute_channels(network, orders), True, (f"{len(orders)} groups sorted",))
