#!/usr/bin/env python3
"""Compares the log-likelihoods of `matryoshka eval tasks` with transformers', which reads the same GGUF
(float32, the cache of both too).

usage: check_tasks.py [--isa ISA] PROGRAM MODEL.gguf LIMIT TASK.jsonl...

It checks how tasks are read, cut into tokens and scored, so both sides multiply floats: ISA is avx2, whose products of
many tokens are of floats, as transformers' are. With --isa auto it shows what integer products with activations of
16 bits (docs/decisions/0008) add to that.

Prints for each task the accuracies of both and the largest difference of a log-likelihood; exits 1 if one is
above 0.01. Needs, from PyPI: torch, transformers, gguf, accelerate.
"""
import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer

BOUND = 0.01


def load(path):
    folder, name = str(Path(path).parent), Path(path).name
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    # Read from a GGUF, the tokenizer of a SmolLM loses that digits are apart.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    return tokenizer, model.eval()


def alternatives(example):
    if "choices" in example:
        return [(example["context"], choice) for choice in example["choices"]]
    if "contexts" in example:
        return [(context, example["continuation"]) for context in example["contexts"]]
    return [(example["context"], example["continuation"])]


def log_likelihood(tokenizer, model, context, continuation):
    """As lm-evaluation-harness: whole text and context are tokenised, the rest is the continuation."""
    ids = tokenizer(context + continuation, add_special_tokens=False)["input_ids"]
    start = len(tokenizer(context, add_special_tokens=False)["input_ids"])
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0]
    scores = torch.log_softmax(logits[start - 1:-1].double(), dim=-1)
    return sum(scores[i, token].item() for i, token in enumerate(ids[start:]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--isa", default="avx2", help="instruction set of the program (default: %(default)s)")
    parser.add_argument("program")
    parser.add_argument("model", metavar="MODEL.gguf")
    parser.add_argument("limit", type=int)
    parser.add_argument("tasks", nargs="+", metavar="TASK.jsonl")
    options = parser.parse_args()
    program, path, limit, isa, tasks = options.program, options.model, str(options.limit), options.isa, options.tasks
    ours = json.loads(subprocess.run([program, "eval", "tasks", path, "--budgets", "f32", "--json", "--examples", "--limit", limit,
                                      "--isa", isa, "--tasks", *tasks], check=True, capture_output=True, text=True).stdout)[0]["tasks"]
    tokenizer, model = load(path)
    worst = 0.0
    print(f"{'task':24} examples    acc  acc (transformers)  largest difference")
    for task, own in zip(tasks, ours):
        with open(task, encoding="utf-8") as file:
            examples = [json.loads(line) for line in file][:int(limit)]
        largest, right = 0.0, 0
        for example, mine in zip(examples, own["log_likelihoods"]):
            theirs = [log_likelihood(tokenizer, model, *pair) for pair in alternatives(example)]
            for a, b in zip(mine["sums"], theirs):
                largest = max(largest, abs(a - b))
            if "label" in example:
                right += max(range(len(theirs)), key=theirs.__getitem__) == example["label"]
        accuracy = f"{100 * right / len(examples):.1f}" if "label" in examples[0] else "-"
        print(f"{own['task']:24} {len(examples):8} {100 * own['acc']:6.1f} {accuracy:>19}  {largest:.5f}")
        worst = max(worst, largest)
    sys.exit(0 if worst <= BOUND else f"the largest difference, {worst:.5f}, is above {BOUND}")


if __name__ == "__main__":
    main()
