#!/usr/bin/env python3
"""Checks that no source or test file is longer than 400 lines. usage: check_sizes.py [CHECKOUT]"""

import reporting

MOST_LINES = 400
FOLDERS = ["src", "tests", "fuzz", "bench", "scripts", "cmake"]
SUFFIXES = {".h", ".cc", ".py", ".sh", ".cmake"}


def problems(checkout):
    found = []
    files = 0
    for folder in FOLDERS:
        for path in sorted((checkout / folder).rglob("*")):
            if path.suffix not in SUFFIXES or not path.is_file():
                continue
            files += 1
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > MOST_LINES:
                where = path.relative_to(checkout)
                found.append(f"{where}: {lines} lines, and {MOST_LINES} are the most")
    return found if files else [f"{checkout}: no source file found"]


if __name__ == "__main__":
    reporting.run(problems)
