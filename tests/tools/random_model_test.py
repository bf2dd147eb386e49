#!/usr/bin/env python3
"""Checks that the program runs what scripts/make_random_model.py writes. usage: random_model_test.py CHECKOUT PROGRAM"""

import json
import pathlib
import subprocess
import sys
import tempfile

SHAPE = ["--layers", "2", "--hidden", "256", "--feed-forward", "512", "--heads", "4", "--kv-heads", "2"]


def main():
    checkout, program = map(pathlib.Path, sys.argv[1:])
    script = [sys.executable, "-B", str(checkout / "scripts/make_random_model.py")]
    with tempfile.TemporaryDirectory() as folder:
        bytes_of = {"q8_0": 34 / 32, "q4_k": 144 / 256, "q6_k": 210 / 256}
        for kind, embedding in [("q8_0", None), ("q4_k", None), ("q6_k", None), ("q4_k", "q6_k")]:
            model = str(pathlib.Path(folder) / f"{kind}_{embedding}.gguf")
            options = ["--embedding", embedding] if embedding else []
            subprocess.run([*script, model, "--type", kind, *options, "--vocab", "300", *SHAPE], check=True)
            about = json.loads(subprocess.run([program, "inspect", model, "--json"], check=True,
                                              stdout=subprocess.PIPE).stdout)
            assert about["num_layers"] == 2 and about["vocab_size"] == 300, about
            matrices = 2 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 512)
            expected = matrices * bytes_of[kind] + 300 * 256 * bytes_of[embedding or kind] + 5 * 256 * 4
            assert about["weight_bytes"] == expected, about
            speed = json.loads(subprocess.run([program, "bench", model, "--prefill", "20", "--decode", "3",
                                               "--repetitions", "1", "--json"], check=True,
                                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)
            assert speed[0]["decode_tokens_per_s"] > 0, speed
        wrong = subprocess.run([*script, model, "--hidden", "100"], stderr=subprocess.PIPE, text=True)
        assert wrong.returncode == 2 and "multiples of 32" in wrong.stderr, wrong


if __name__ == "__main__":
    main()
