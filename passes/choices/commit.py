"""`commit`: a settled choice becomes permanent."""

from __future__ import annotations

from gensynth.ir import Network

from ..base import Pass, PassResult, option
from .restricting import find_alternative, restrict

__all__ = ["Commit"]


class Commit(Pass, name="commit"):
    """Makes one alternative of a choice permanent and removes the choice.

        %a = conv2d(%x) {channels=choice<a.width>[8: 1.20, 16: -0.40], kernel=3}
        --> with choice=a.width, to=8:  %a = conv2d(%x) {channels=8, kernel=3}

    Weights follow: those of other alternatives are dropped, widths keep their first channels.
    """

    choice: str = option(help="the choice's id")
    to: str = option(help="the label of the alternative to keep")

    def run(self, network: Network) -> PassResult:
        """Returns the generator with the choice settled.

        Raises:
            PassError: no such choice or alternative.
        """
        _, index = find_alternative(network.graph, self.choice, self.to, command="commit")
        return PassResult(restrict(network, self.choice, (index,)), True)
