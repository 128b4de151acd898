"""A training in a process of its own, to be killed: WHAT START SCORER OUT."""

import sys
from pathlib import Path

from tests.test_resume import runs

if __name__ == "__main__":
    start, scorer, out = map(Path, sys.argv[2:])
    runs(start, scorer)[sys.argv[1]](out)
