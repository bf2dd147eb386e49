#!/usr/bin/env python3
"""llama-bench, as far as `matryoshka bench --against` asks, for the fork ik_llama.cpp, whose package has no such program.

usage: ik_llama_bench.py -m MODEL -p N -n N -d DEPTH -t THREADS -ctk TYPE -ctv TYPE -fa 0|1 -r REPETITIONS -o json
Needs the PyPI package ik-llama-cpp-python (scripts/get_ik_llama.sh). As llama-bench does it: random tokens, chunks of 512, the
depth is read before the clock starts, one warm-up, a token decoded at a time; choosing tokens is not timed.
"""
import argparse
import ctypes
import json
import random
import sys
import time

from ik_llama_cpp import _ctypes_api as api

CHUNK = 512
TYPES = {"f16": 1, "q4_0": 2, "q8_0": 8}  # of ggml


def arguments():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("-m", dest="model", required=True)
    for flag, name in (("-p", "prefill"), ("-n", "decode"), ("-d", "depth"), ("-t", "threads"), ("-r", "repetitions")):
        parser.add_argument(flag, dest=name, type=int, required=True)
    parser.add_argument("-ctk", dest="keys", choices=TYPES, default="f16")
    parser.add_argument("-ctv", dest="values", choices=TYPES, default="f16")
    parser.add_argument("-fa", dest="flash", type=int, choices=(0, 1), default=1)
    parser.add_argument("-o", dest="output", choices=("json",), required=True)
    return parser.parse_args()


class Engine:
    def __init__(self, options):
        api.llama_backend_init()
        self.model = api.llama_model_load_from_file(options.model.encode(), api.llama_model_default_params())
        if not self.model:
            sys.exit(f"{options.model}: cannot be loaded")
        context = api.llama_context_default_params()
        context.n_ctx = options.depth + max(options.prefill, options.decode)
        context.n_batch = context.n_ubatch = CHUNK
        context.n_threads = context.n_threads_batch = options.threads
        context.type_k, context.type_v = TYPES[options.keys], TYPES[options.values]
        context.flash_attn = bool(options.flash)
        self.context = api.llama_init_from_model(self.model, context)
        if not self.context:
            sys.exit("no context of this kind")
        self.vocabulary = api.llama_vocab_n_tokens(api.llama_model_get_vocab(self.model))
        self.batch = api.llama_batch_init(CHUNK, 0, 1)
        self.random = random.Random(1)

    def read(self, first, count):
        """Tokens at positions first ..., logits of the last one."""
        while count > 0:
            now = min(count, CHUNK)
            self.batch.n_tokens = now
            for i in range(now):
                self.batch.token[i] = self.random.randrange(self.vocabulary)
                self.batch.pos[i] = first + i
                self.batch.n_seq_id[i] = 1
                self.batch.seq_id[i][0] = 0
                self.batch.logits[i] = i + 1 == count
            code = api.llama_decode(self.context, self.batch)
            if code != 0:
                sys.exit(f"llama_decode at position {first}: {code}")
            first, count = first + now, count - now
        # Computation has ended once its logits are there.
        logits = api.llama_get_logits_ith(self.context, self.batch.n_tokens - 1)
        return ctypes.cast(logits, ctypes.POINTER(ctypes.c_float))[0]

    def seconds(self, depth, test):
        api.llama_kv_cache_clear(self.context)
        if depth > 0:
            self.read(0, depth)
        start = time.perf_counter()
        test()
        return time.perf_counter() - start


def main():
    options = arguments()
    engine = Engine(options)

    def decode():
        for i in range(options.decode):
            engine.read(options.depth + i, 1)

    engine.seconds(0, lambda: engine.read(0, 2))
    report = []
    for generated, tokens, test in ((0, options.prefill, lambda: engine.read(options.depth, options.prefill)),
                                    (options.decode, options.decode, decode)):
        speeds = [tokens / engine.seconds(options.depth, test) for _ in range(options.repetitions)]
        report.append({"n_prompt": tokens - generated, "n_gen": generated, "n_depth": options.depth, "type_k": options.keys,
                       "type_v": options.values, "flash_attn": options.flash, "avg_ts": sum(speeds) / len(speeds),
                       "samples_ts": speeds})
    json.dump(report, sys.stdout)


main()
