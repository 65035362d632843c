"""`drop`: a dead alternative goes."""

from __future__ import annotations

from gensynth.ir import Network

from ..base import Pass, PassResult, option
from .restricting import find_alternative, restrict

__all__ = ["Drop"]


class Drop(Pass, name="drop"):
    """Removes one alternative of a choice; when one alone is left, it becomes permanent.

    %a = conv2d(%x) {channels=choice<a.width>[4: -3.00, 8: 1.20, 16: -0.40], kernel=3}
    --> with choice=a.width, alternative=4:
    %a = conv2d(%x) {channels=choice<a.width>[8: 1.20, 16: -0.40], kernel=3}
    """

    choice: str = option(help="the choice's id")
    alternative: str = option(help="the label of the alternative to remove")

    def run(self, network: Network) -> PassResult:
        """Returns the generator without the alternative.

        Raises:
            PassError: no such choice or alternative.
        """
        info, index = find_alternative(network.graph, self.choice, self.alternative, command="drop")
        keep = tuple(other for other in range(len(info.labels)) if other != index)
        return PassResult(restrict(network, self.choice, keep), True)
