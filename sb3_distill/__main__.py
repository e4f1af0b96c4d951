"""``python -m sb3_distill`` is the console script ``sb3-distill``."""

import sys

from sb3_distill.cli import main

if __name__ == "__main__":
    sys.exit(main())
