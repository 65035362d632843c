"""`open-depth`: blocks that may be left out."""

from __future__ import annotations

from gensynth.ir import Network

from ..base import Pass, PassResult, option
from .offer import Offer

__all__ = ["OpenDepth"]


class OpenDepth(Pass, name="open-depth"):
    """Opens the depth: every block that could be left out gets a choice between itself and passing its input through.

    The same as `offer{rewrite=bypass-block}`: one choice a block, so the depth of a stage is how many it keeps.
    """

    where: tuple[str, ...] = option(default=("*",), help="names, globs or scopes of the blocks")
    logit: float = option(default=0.0, help="the logit of leaving a block out (keeping it starts at 0)")

    def run(self, network: Network) -> PassResult:
        """Offers `bypass-block` where `where` lets it."""
        return Offer(rewrite="bypass-block", where=self.where, logit=self.logit).run(network)
