#!/usr/bin/env python3
"""Checks that what docs/ names is there: tests as `Suite.Test`, files as `folder/file.h` or `.cc` of src/,
and files that links point to. usage: check_docs.py [CHECKOUT]
"""

import re

import reporting

TEST = re.compile(r"^TEST(?:_[FP])?\(\s*(\w+),\s*(\w+)\)", re.MULTILINE)
NAMED_TEST = re.compile(r"`([A-Z]\w*\.[A-Z]\w*)`")
NAMED_FILE = re.compile(r"`(?:src/)?(\w+/\w+\.(?:h|cc))`")
LINK = re.compile(r"\]\(([^)#:]+)\)")


def tests_of(checkout):
    found = set()
    for path in (checkout / "tests").rglob("*.cc"):
        found |= {".".join(pair) for pair in TEST.findall(path.read_text(encoding="utf-8"))}
    return found


def problems(checkout):
    pages = [*sorted((checkout / "docs").rglob("*.md")), *sorted(checkout.glob("*.md"))]
    if not pages:
        return [f"{checkout}: no page found"]
    found, tests = [], tests_of(checkout)
    for page in pages:
        text, where = page.read_text(encoding="utf-8"), page.relative_to(checkout)
        found += [f"{where}: no test {name}" for name in NAMED_TEST.findall(text) if name not in tests]
        found += [f"{where}: no file src/{name}" for name in NAMED_FILE.findall(text)
                  if not (checkout / "src" / name).is_file()]
        found += [f"{where}: the link to {target} leads nowhere" for target in LINK.findall(text)
                  if not (page.parent / target).exists()]
    return found


if __name__ == "__main__":
    reporting.run(problems)
