#!/usr/bin/env python3
"""Checks that includes only go downwards, and that only cli/ prints.

CMakeLists.txt says which module may use which (its mkv_module lines); ORDER says that those lines
themselves only point downwards. usage: check_layering.py [CHECKOUT]
"""

import re

import reporting

# Folders of one row do not use each other unless CMakeLists.txt says so.
ORDER = [
    ["base"],
    ["store", "ops"],
    ["text", "nest"],
    ["model"],
    ["engine"],
    ["eval"],
    ["fit", "train", "pilot", "serve"],
    ["cli"],
]
ROW = {name: row for row, names in enumerate(ORDER) for name in names}
TOP = "cli"
PACKAGES = {"hwy"}  # Highway asks for quotes around its headers

INCLUDE = re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE)
PRINTS = re.compile(r"#\s*include\s*<iostream>|\b(?:std::)?(?:printf|fprintf|puts|fputs|putchar)\s*\(")
MAY_PRINT = {"base/check.cc"}  # the last words of a failed MKV_CHECK


def module_graph(cmake_text):
    """{module: modules it names} of the mkv_module lines."""
    graph = {}
    for name, rest in re.findall(r"^mkv_module\((\w+)([^)]*)\)", cmake_text, re.MULTILINE):
        graph[name] = re.findall(r"\bmkv_(\w+)", rest)
    return graph


def reachable(graph, name):
    seen, todo = {name}, [name]
    while todo:
        for used in graph.get(todo.pop(), []):
            if used not in seen:
                seen.add(used)
                todo.append(used)
    return seen


def graph_problems(graph):
    for name, used_names in graph.items():
        for used in [name, *used_names]:
            if used not in ROW:
                yield f"CMakeLists.txt: module {used} has no place in the order"
            elif used != name and name in ROW and ROW[used] >= ROW[name]:
                yield f"CMakeLists.txt: {name} may not use {used}, which is not below it"


def file_problems(source_root, graph):
    for path in sorted(source_root.rglob("*")):
        if path.suffix not in {".h", ".cc"}:
            continue
        relative = path.relative_to(source_root)
        module = relative.parts[0]
        if module not in ROW:
            yield f"src/{relative}: folder {module} has no place in the order"
            continue
        allowed = set(ROW) if module == TOP else reachable(graph, module)
        text = path.read_text(encoding="utf-8")
        for included in INCLUDE.findall(text):
            if included.split("/")[0] not in allowed | PACKAGES:
                yield f"src/{relative}: {module} may not include {included}"
        if module != TOP and relative.as_posix() not in MAY_PRINT and PRINTS.search(text):
            yield f"src/{relative}: only {TOP}/ prints; use the caller's sink"


def problems(checkout):
    graph = module_graph((checkout / "CMakeLists.txt").read_text(encoding="utf-8"))
    if not graph:
        return ["CMakeLists.txt: no mkv_module line found"]
    return [*graph_problems(graph), *file_problems(checkout / "src", graph)]


if __name__ == "__main__":
    reporting.run(problems)
