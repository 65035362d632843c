"""`python -m gensynth`: the command line."""

import sys

from gensynth.cli import main

if __name__ == "__main__":
    sys.exit(main())
