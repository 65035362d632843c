"""A network whose process dies over it; importable, so that it can be sent to a worker."""

import os

from check_targets import Case


class DyingCase(Case):
    def network(self):
        os._exit(3)
