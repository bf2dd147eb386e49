"""What the checks of the tree end with."""

import pathlib
import sys


def run(problems):
    """Prints the problems of the checkout named by the first argument (default: here); exits 1 if there are any."""
    found = problems(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "."))
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(1 if found else 0)
