#!/usr/bin/env python3
"""Draws the log of `matryoshka train --log run.jsonl` as an SVG: divergences by budget over tokens.

usage: scripts/plot_training.py run.jsonl [curves.svg]    (default: the log's name with .svg)

Strong lines with points are held-out text, faint ones the running means of training windows, each
by the budget that is nearest to the window's size. The vertical axis is logarithmic. Logs of several
stages, one after the other in one file, make one picture.
"""
import json
import math
import sys
from pathlib import Path

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 860, 520, 64, 150, 28, 52
COLOURS = ["#1b6ca8", "#2a9d8f", "#5b8c2a", "#b8860b", "#d1662a", "#b5304a", "#6a3d9a", "#555555"]


def read_log(path):
    """(budgets, held out [(tokens, kl by budget)], training [(tokens, running kl by budget)])"""
    budgets, held_out, training, tokens, offset = [], [], [], 0, 0
    for number, text in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        line = json.loads(text)
        if "held_out_kl" in line:
            if budgets and line["budgets"] != budgets:
                raise ValueError(f"{path}:{number}: budgets {line['budgets']}, expected {budgets}")
            budgets = line["budgets"]
            if line["step"] == 0:
                offset = tokens
            held_out.append((tokens, line["held_out_kl"]))
        else:
            tokens = offset + line["tokens"]
            training.append((tokens, line["running_kl"]))
    if not held_out:
        raise ValueError(f"{path}: no measurement on held-out text")
    return budgets, held_out, training


class Axes:
    def __init__(self, most_tokens, least, most):
        self.most_tokens = max(most_tokens, 1)
        self.low, self.high = math.log10(least * 0.9), math.log10(most * 1.1)

    def x(self, tokens):
        return LEFT + (WIDTH - LEFT - RIGHT) * tokens / self.most_tokens

    def y(self, kl):
        part = (math.log10(kl) - self.low) / (self.high - self.low)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part

    def points(self, series):
        return " ".join(f"{self.x(t):.1f},{self.y(kl):.1f}" for t, kl in series if kl > 0)


def label(x, y, text, anchor="start", colour="#222"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" '
            f'font-family="sans-serif" font-size="13">{text}</text>')


def grid(axes):
    out = []
    for exponent in range(math.floor(axes.low), math.ceil(axes.high) + 1):
        for digit in (1, 2, 5):
            kl = digit * 10.0 ** exponent
            if axes.low <= math.log10(kl) <= axes.high:
                y = axes.y(kl)
                out.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" '
                           'stroke="#ddd"/>')
                out.append(label(LEFT - 8, y + 4, f"{kl:g}", "end"))
    for fifth in range(6):
        tokens = axes.most_tokens * fifth / 5
        out.append(label(axes.x(tokens), HEIGHT - BOTTOM + 20, f"{tokens / 1000:.0f} K", "middle"))
    out.append(label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10, "training tokens", "middle"))
    out.append(label(LEFT, TOP - 10, "KL divergence from the exact cache, nats a token"))
    return out


def draw(budgets, held_out, training):
    values = [kl for _, row in held_out + training for kl in row if kl > 0]
    axes = Axes(max(tokens for tokens, _ in held_out + training), min(values), max(values))
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
           f'viewBox="0 0 {WIDTH} {HEIGHT}">',
           f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>']
    out += grid(axes)
    for i, budget in enumerate(budgets):
        colour = COLOURS[i % len(COLOURS)]
        faint = axes.points([(tokens, row[i]) for tokens, row in training])
        out.append(f'<polyline points="{faint}" fill="none" stroke="{colour}" '
                   'stroke-opacity="0.3"/>')
        series = [(tokens, row[i]) for tokens, row in held_out]
        out.append(f'<polyline points="{axes.points(series)}" fill="none" stroke="{colour}" '
                   'stroke-width="2"/>')
        for tokens, kl in series:
            if kl > 0:
                out.append(f'<circle cx="{axes.x(tokens):.1f}" cy="{axes.y(kl):.1f}" r="3" '
                           f'fill="{colour}"/>')
        if series[-1][1] > 0:
            out.append(label(WIDTH - RIGHT + 10, axes.y(series[-1][1]) + 4,
                             f"{budget}: {series[-1][1]:.3f}", colour=colour))
    return "\n".join(out + ["</svg>", ""])


def main(arguments):
    if not 1 <= len(arguments) <= 2 or arguments[0] in ("-h", "--help"):
        print(__doc__.strip())
        return 0 if arguments and arguments[0] in ("-h", "--help") else 2
    target = Path(arguments[1]) if len(arguments) == 2 else Path(arguments[0]).with_suffix(".svg")
    try:
        target.write_text(draw(*read_log(arguments[0])), encoding="utf-8")
    except (OSError, ValueError, KeyError) as error:
        print(f"plot_training.py: {error}", file=sys.stderr)
        return 1
    print(target)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
