#!/usr/bin/env python3
"""scripts/plot_training.py: a curve for each budget of a log; what is no log. usage: FILE CHECKOUT"""
import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as xml
from pathlib import Path

script = Path(sys.argv[1]) / "scripts/plot_training.py"


def plot(lines, folder):
    log = Path(folder) / "run.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return subprocess.run([sys.executable, "-B", script, log], capture_output=True, text=True)


budgets = ["75%", "50%"]
lines = [{"step": 0, "budgets": budgets, "held_out_kl": [0.5, 1.5]},
         {"step": 0, "tokens": 1024, "running_kl": [0.4, 0.0]},
         {"step": 1, "tokens": 2048, "running_kl": [0.4, 1.2]},
         {"step": 2, "budgets": budgets, "held_out_kl": [0.25, 0.75]}]
with tempfile.TemporaryDirectory() as folder:
    done = plot(lines, folder)
    assert done.returncode == 0, done.stderr
    picture = xml.parse(Path(folder) / "run.svg").getroot()
    curves = picture.findall("{*}polyline")
    assert len(curves) == 2 * len(budgets), len(curves)
    held_out = [p.split(",") for p in curves[1].get("points").split()]
    assert len(held_out) == 2 and float(held_out[1][1]) > float(held_out[0][1]), held_out
    assert len(curves[2].get("points").split()) == 1, "a budget not yet drawn has no point"
    texts = [t.text for t in picture.findall("{*}text")]
    assert "50%: 0.750" in texts, texts
    for wrong in (lines[1:3], lines + [{"step": 3, "budgets": ["1%"], "held_out_kl": [1.0]}]):
        done = plot(wrong, folder)
        assert done.returncode == 1 and "run.jsonl" in done.stderr, (done.returncode, done.stderr)
print("ok")
