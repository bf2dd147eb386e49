#!/usr/bin/env python3
"""Opens the pilot's page in headless Chromium: it draws all its parts without the network, follows its inputs, and its
recommendation is the program's. Then the autopilot's page. The model is a golden one. Skipped (exit code 77) where there is no Chromium.
usage: pilot_page_test.py CHECKOUT BINARY
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import browser

SKIPPED = 77
found = []


def check(truth, what):
    if not truth:
        found.append(what)


def nest_options(checkout, binary, folder, model, text):
    """The golden Gemma's windows of 16 tokens leave no token to fit codes to."""
    if model != "gemma3":
        return ["--fit-text", text, "--fit-tokens", "1024", "--fit-window", "256"]
    nest = folder / "columns"
    command = [binary, "fit", checkout / f"tests/golden/models/{model}.gguf", "-o", nest, "--kind", "column", "--text", text,
               "--tokens", "1024", "--window", "256"]
    subprocess.run([str(word) for word in command], check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return ["--nest", nest]


def make_report(checkout, binary, folder, model="llama", depths="0,128"):
    text = folder / "text.txt"
    lines = (f"Once upon a time there was a number {i}, </script><b>bold</b> & \"quoted\".\n" for i in range(400))
    text.write_text("".join(lines), encoding="utf-8")
    page = folder / f"{model}.html"
    command = [binary, "pilot", checkout / f"tests/golden/models/{model}.gguf", "--text", text, "-o", page,
               "--max-ppl-increase", "20%", "--context", "256", "--windows", "2", "--depths", depths, "--repetitions", "1",
               "--prompts", "2", "--prompt-tokens", "96", "-n", "8", *nest_options(checkout, binary, folder, model, text)]
    subprocess.run([str(word) for word in command], check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return page


def check_drawing(page, report):
    recommended = report["recommended"]
    check(recommended, "the report recommends nothing at 20 %")
    check(recommended and page.evaluate("choose(report, report.tolerance, false).budget") == recommended["budget"],
          "the page's choice is not the program's")
    confident = page.evaluate("choose(report, report.tolerance, true)?.budget ?? null")
    check(confident == (report["confident"] or {}).get("budget"), "the page's confident choice is not the program's")
    check(page.evaluate("document.getElementById('flags').textContent") == (recommended or {}).get("flags"),
          "the flags are not the program's")
    for name in ("perplexity", "kl", "decode", "prefill"):
        check(page.evaluate(f"document.querySelectorAll('#chart-{name} .dot').length") > 0, f"chart {name} has no dot")
    cells = page.evaluate("document.querySelectorAll('#heat-map .cell').length")
    check(cells == len(report["nest"]["full_slabs"]), f"{cells} cells in the heat map, {len(report['nest']['full_slabs'])} spaces")
    rows = page.evaluate("document.querySelectorAll('#quality-table tbody tr').length")
    check(rows == len(report["quality"]), f"{rows} rows, {len(report['quality'])} caches")
    check(page.evaluate("document.querySelectorAll('#answers .answer').length") == 2, "there are not two answers")
    check(page.evaluate("document.querySelectorAll('b').length") == page.evaluate("document.querySelectorAll('.bars b').length"),
          "text of the model became markup")


def check_inputs(page):
    def hours():
        return float(page.evaluate("document.getElementById('break-even').dataset.hours"))

    page.type("input-tokens", 0)  # so tiny a model may be slower with codes
    before = hours()
    check(0 < before < float("inf"), f"break-even after {before} hours")
    check(page.evaluate("document.querySelectorAll('#chart-cost .dot').length") == 1, "the break-even point is not drawn")
    page.type("input-preparation", 10 * float(page.evaluate("document.getElementById('input-preparation').value")) + 60)
    later = hours()
    check(later > before, f"more preparation: break-even moved from {before} to {later}")
    page.type("input-sessions", 100 * float(page.evaluate("document.getElementById('input-sessions').value")))
    check(hours() < later, f"more sessions: break-even moved from {later} to {hours()}")
    page.type("input-memory-price", 0)
    check(page.evaluate("document.getElementById('break-even').textContent") == "never", "nothing saved, and it pays")
    fitting = "document.querySelector('#chart-sessions b').textContent"
    few = page.evaluate(fitting)
    page.type("memory", 80)
    check(page.evaluate(fitting) != few, "ten times the memory fits as many sessions")
    page.type("tolerance", 0)
    check(page.evaluate("document.getElementById('verdict').classList.contains('none')")
          or page.evaluate("choose(report, 0, false) !== null"), "no size keeps 0 %, and the verdict does not say so")
    page.type("tolerance", 1e6)
    smallest = page.evaluate("ofNest(report).at(-1).budget")
    check(page.evaluate("document.getElementById('flags').textContent").endswith(smallest), "anything goes, but not the smallest")


def check_bytes(page, report):
    """What the page says that a session holds, against what the caches held when their speed was measured."""
    a_block = 64 * report["model"]["exact_bytes_per_token"]  # padding, at most, and where the recent window ends
    checked = 0
    for series in report["speed"]["series"]:
        for each in series["depths"]:
            if each["depth"] == 0:
                continue
            said = page.evaluate(f"sessionBytes(report, pointOf({json.dumps(series['budget'])}), {each['depth']})")
            check(abs(said - each["kv_bytes"]) <= a_block, f"{series['budget']}: {said} bytes at {each['depth']}, held {each['kv_bytes']}")
            checked += 1
    check(checked >= 2, f"{checked} sizes of sessions were checked")
    for point in report["quality"][1:]:
        said = page.evaluate(f"sessionBytes(report, pointOf({json.dumps(point['budget'])}), {point['context']})")
        exact = page.evaluate(f"sessionBytes(report, exactPoint, {point['context']})")
        counted = min(point["kv_bytes_per_token"] * point["context"], exact)
        check(abs(said - counted) < 1, f"{point['budget']}: {said} bytes, counted were {counted}")


def check_autopilot(checkout, binary, folder):
    model, text, nest, path = checkout / "tests/golden/models/llama.gguf", folder / "text.txt", folder / "nest", folder / "fly.html"
    for command in (["fit", model, "-o", nest, "--tokens", "1024", "--window", "256", "--recent", "64", "--measure", text,
                     "--measure-windows", "1", "--measure-rungs", "6"],
                    ["autopilot", model, "--nest", nest, "--stream", text, text, "--max-kl", "0.5", "--requests", "12",
                     "--context", "160", "-o", path]):
        subprocess.run([str(word) for word in [binary, *command]], check=True, stdin=subprocess.DEVNULL, capture_output=True)
    with browser.Page(path) as page:
        dots = page.evaluate("document.querySelectorAll('#chart-kl .dot').length")
        check(dots == 24, f"24 requests, {dots} dots")
        check(page.evaluate("document.querySelectorAll('#chart-kl .change').length") == 1, "the change of text is not marked")
        check(page.evaluate("document.querySelectorAll('#chart-bits .curve').length") == 1, "no curve of bits")
        found.extend(page.problems())


def main():
    if browser.find_chromium() is None:
        print("skipped: no chromium (Debian's package chromium)")
        return SKIPPED
    checkout, binary = pathlib.Path(sys.argv[1]), sys.argv[2]
    with tempfile.TemporaryDirectory() as name:
        path = make_report(checkout, binary, pathlib.Path(name))
        report = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        for dark in (False, True):
            with browser.Page(path, dark=dark) as page:
                check_drawing(page, report)
                check_bytes(page, report)
                check_inputs(page)
                found.extend(page.problems())
        path = make_report(checkout, binary, pathlib.Path(name), "gemma3", "192,256")  # layers with a sliding window
        report = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        check(report["model"]["layer_windows"].count(None) == 1, f"windows {report['model']['layer_windows']}")
        with browser.Page(path) as page:
            check_bytes(page, report)
            found.extend(page.problems())
        check_autopilot(checkout, binary, pathlib.Path(name))
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
