#!/usr/bin/env python3
"""Writes what transformers computes from the real Gemma 3 270M: logits/gemma3_270m.json.

  ids         of the beginning of a text, BOS first: longer than the model's sliding window of 512
  positions   whose logits are kept, before and after the window's length
  vocabulary  the ids of the vocabulary whose logits are kept
  logits      [len(positions)][len(vocabulary)], float32 arithmetic over the dequantised weights
  argmax      at each of the positions

Rerun, in the venv of make_tiny_models.py:
  scripts/get_model.sh --model gemma3
  python make_gemma3_logits.py --model ~/.cache/mkv-models/gemma-3-270m-q4_k_m.gguf \
      --text DATA/lm_eval/wikitext2.test.raw
"""

import argparse
import json
import pathlib

import torch
from transformers import AutoModelForCausalLM

from make_tokenizer_cases import gemma3_tokenizer

HERE = pathlib.Path(__file__).resolve().parent
NUM_IDS = 800
POSITIONS = [0, 1, 100, 510, 511, 512, 513, 600, 799]
VOCABULARY = list(range(0, 262144, 2621))


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=pathlib.Path, required=True)
    parser.add_argument("--text", type=pathlib.Path, required=True)
    options = parser.parse_args()
    text = options.text.read_text(encoding="utf-8")[:8 * NUM_IDS]
    ids = gemma3_tokenizer(options.model).encode(text).ids[:NUM_IDS]
    model = AutoModelForCausalLM.from_pretrained(
        options.model.parent, gguf_file=options.model.name, dtype=torch.float32,
        attn_implementation="eager").eval()
    hidden = model.model(torch.tensor([ids]), use_cache=False).last_hidden_state[0]
    rows = {position: model.lm_head(hidden[position]) for position in POSITIONS}
    fields = {
        "ids": ids, "positions": POSITIONS, "vocabulary": VOCABULARY,
        "logits": [[float(f"{rows[p][v].item():.8g}") for v in VOCABULARY] for p in POSITIONS],
        "argmax": [rows[p].argmax().item() for p in POSITIONS],
    }
    lines = ",\n".join(f'"{key}": {json.dumps(value)}' for key, value in fields.items())
    (HERE / "logits" / "gemma3_270m.json").write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    print(f"argmax {fields['argmax']}, sliding window {model.config.sliding_window}")


if __name__ == "__main__":
    main()
