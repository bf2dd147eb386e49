#!/usr/bin/env python3
"""Checks that what the README tells people to type exists: every `matryoshka COMMAND` has a --help
with an example, every option shown is in that help, every scripts/ file is there and executable.
usage: check_readme.py CHECKOUT [BINARY]    (without a binary only the scripts are checked)
"""

import os
import pathlib
import re
import shlex
import subprocess
import sys

BLOCK = re.compile(r"^```(?:sh|bash|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
GROUPS = {"eval"}  # commands whose next word is a command too


def command_lines(markdown):
    """The shell lines of the fenced blocks, continued lines joined, prompts and comments dropped."""
    for block in BLOCK.findall(markdown):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words:
                yield words


def matryoshka_calls(markdown):
    """(command words, options) of each call of the program."""
    for words in command_lines(markdown):
        if pathlib.PurePath(words[0]).name != "matryoshka" or len(words) < 2:
            continue
        command = words[1:3] if words[1] in GROUPS else words[1:2]
        if not command[0].startswith("-"):
            yield command, [w.split("=")[0] for w in words if re.match(r"--?[a-z]", w)]


def scripts_named(markdown):
    return sorted(set(re.findall(r"\bscripts/[\w.-]+\.sh\b", markdown)))


def call_problems(markdown, run_help):
    for command, options in matryoshka_calls(markdown):
        name = " ".join(["matryoshka", *command])
        status, text = run_help(command)
        if status != 0:
            yield f"README: `{name} --help` exits with {status}"
        elif "xample" not in text:
            yield f"`{name} --help` shows no example"
        for option in options:
            if status == 0 and not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text):
                yield f"README: {name} has no option {option}"


def script_problems(markdown, checkout):
    names = scripts_named(markdown)
    if not names:
        yield "README: names no script"
    for name in names:
        if not os.access(checkout / name, os.X_OK):
            yield f"README: {name} is not an executable file"


def main():
    checkout = pathlib.Path(sys.argv[1])
    markdown = (checkout / "README.md").read_text(encoding="utf-8")
    found = list(script_problems(markdown, checkout))
    if len(sys.argv) > 2:
        def run_help(command):
            done = subprocess.run([sys.argv[2], *command, "--help"], stdin=subprocess.DEVNULL,
                                  capture_output=True, text=True, timeout=60, check=False)
            return done.returncode, done.stdout

        if not list(matryoshka_calls(markdown)):
            found.append("README: shows no call of matryoshka")
        found += call_problems(markdown, run_help)
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
