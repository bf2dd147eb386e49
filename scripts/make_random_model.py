#!/usr/bin/env python3
"""Writes a GGUF file with random weights in the shape of LLaMA-3.2-1B (or any other), to measure speed with.

usage: make_random_model.py OUT.gguf [--type q8_0|q4_k|q6_k] [--embedding q8_0|q4_k|q6_k] [--layers 16]
                            [--hidden 2048] [--feed-forward 8192] [--heads 32] [--kv-heads 8] [--vocab 128256]

The embedding, which is the output projection as well, has the type of the other matrices unless one is given:
`--type q4_k --embedding q6_k` is what llama.cpp's Q4_K_M has.

Needs nothing but Python. The blocks of a matrix are a random megabyte, repeated: enough for speed, as every
byte is read from memory all the same. The text that such a model writes means nothing.
"""

import argparse
import pathlib
import random
import struct

ALIGNMENT = 32
F32, Q8_0, Q4_K, Q6_K = 0, 8, 12, 14  # ggml's tensor types
U32, FLOAT, STRING, ARRAY = 4, 6, 8, 9  # GGUF's value types
INT32 = 5
WEIGHT_SIZE = 0.02  # standard deviation, about


def q8_0_block(rng):
    # Bytes are uniform: their standard deviation is 74.
    return struct.pack("<e", WEIGHT_SIZE / 74) + rng.randbytes(32)


def q4_k_block(rng):
    # d * scale * quant - dmin * min, with scales and minima around 32 and quants around 7.5.
    scale = WEIGHT_SIZE / (32 * 5)
    return struct.pack("<ee", scale, 7.5 * scale) + rng.randbytes(12 + 128)


def q6_k_block(rng):
    # d * scale * (quant - 32), with signed scales around 64 and quants 18 from the middle.
    return rng.randbytes(128 + 64 + 16) + struct.pack("<e", WEIGHT_SIZE / (64 * 18))


TYPES = {
    "q8_0": (Q8_0, 32, 34, q8_0_block),
    "q4_k": (Q4_K, 256, 144, q4_k_block),
    "q6_k": (Q6_K, 256, 210, q6_k_block),
}


def text(value):
    data = value.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def array(kind, values):
    pack = text if kind == STRING else lambda v: struct.pack("<i", v)
    return struct.pack("<IQ", kind, len(values)) + b"".join(map(pack, values))


def metadata(shape):
    """[(key, type, packed value)]. The vocabulary is the 256 bytes, one merge, and control tokens to fill it."""
    byte_chars = [chr(b) if 33 <= b < 127 or 161 <= b < 173 or b > 173 else None for b in range(256)]
    hidden = iter(range(256, 512))
    tokens = [c if c is not None else chr(next(hidden)) for c in byte_chars]
    tokens.append("ab")
    kinds = [1] * len(tokens)  # normal
    tokens += [f"<|{i}|>" for i in range(len(tokens), shape.vocab)]
    kinds += [3] * (shape.vocab - len(kinds))  # control
    head = shape.hidden // shape.heads
    number = lambda value: struct.pack("<I", value)
    return [
        ("general.architecture", STRING, text("llama")),
        ("general.name", STRING, text("random")),
        ("general.alignment", U32, number(ALIGNMENT)),
        ("llama.vocab_size", U32, number(shape.vocab)),
        ("llama.context_length", U32, number(131072)),
        ("llama.embedding_length", U32, number(shape.hidden)),
        ("llama.block_count", U32, number(shape.layers)),
        ("llama.feed_forward_length", U32, number(shape.feed_forward)),
        ("llama.attention.head_count", U32, number(shape.heads)),
        ("llama.attention.head_count_kv", U32, number(shape.kv_heads)),
        ("llama.rope.dimension_count", U32, number(head)),
        ("llama.rope.freq_base", FLOAT, struct.pack("<f", 500000)),
        ("llama.attention.layer_norm_rms_epsilon", FLOAT, struct.pack("<f", 1e-5)),
        ("tokenizer.ggml.model", STRING, text("gpt2")),
        ("tokenizer.ggml.pre", STRING, text("llama-bpe")),
        ("tokenizer.ggml.tokens", ARRAY, array(STRING, tokens)),
        ("tokenizer.ggml.token_type", ARRAY, array(INT32, kinds)),
        ("tokenizer.ggml.merges", ARRAY, array(STRING, ["a b"])),
        ("tokenizer.ggml.bos_token_id", U32, number(257)),
        ("tokenizer.ggml.eos_token_id", U32, number(258)),
    ]


def tensors(shape):
    """[(name, columns, rows)]; rows 0: a vector of ones, in F32."""
    head = shape.hidden // shape.heads
    found = [("token_embd.weight", shape.hidden, shape.vocab), ("output_norm.weight", shape.hidden, 0)]
    for layer in range(shape.layers):
        for name, columns, rows in [
            ("attn_norm", shape.hidden, 0),
            ("attn_q", shape.hidden, shape.heads * head),
            ("attn_k", shape.hidden, shape.kv_heads * head),
            ("attn_v", shape.hidden, shape.kv_heads * head),
            ("attn_output", shape.heads * head, shape.hidden),
            ("ffn_norm", shape.hidden, 0),
            ("ffn_gate", shape.hidden, shape.feed_forward),
            ("ffn_up", shape.hidden, shape.feed_forward),
            ("ffn_down", shape.feed_forward, shape.hidden),
        ]:
            found.append((f"blk.{layer}.{name}.weight", columns, rows))
    return found


def padding(size):
    return -size % ALIGNMENT


def write_model(path, shape):
    rng = random.Random(1)
    patterns = {}
    for name in sorted({shape.type, shape.embedding}):
        _, _, block_bytes, make_block = TYPES[name]
        patterns[name] = b"".join(make_block(rng) for _ in range(2**20 // block_bytes))
    header, infos, sizes, offset = b"", b"", [], 0
    for key, value_type, value in metadata(shape):
        header += text(key) + struct.pack("<I", value_type) + value
    for name, columns, rows in tensors(shape):
        of_matrix = shape.embedding if name.startswith("token_embd") else shape.type
        kind, block_elements, block_bytes, _ = TYPES[of_matrix]
        size = columns * 4 if rows == 0 else rows * columns // block_elements * block_bytes
        dims = [columns] if rows == 0 else [columns, rows]
        infos += text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims,
                                          F32 if rows == 0 else kind, offset)
        sizes.append((size, None if rows == 0 else patterns[of_matrix]))
        offset += size + padding(size)
    with open(path, "wb") as out:
        out.write(struct.pack("<4sIQQ", b"GGUF", 3, len(sizes), len(metadata(shape))) + header + infos)
        out.write(bytes(padding(out.tell())))
        for size, pattern in sizes:
            if pattern is None:
                out.write(struct.pack("<f", 1.0) * (size // 4))
            else:
                for _ in range(size // len(pattern)):
                    out.write(pattern)
                out.write(pattern[: size % len(pattern)])
            out.write(bytes(padding(size)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--type", choices=TYPES, default="q8_0")
    parser.add_argument("--embedding", choices=TYPES)
    for name, value in [("layers", 16), ("hidden", 2048), ("feed-forward", 8192), ("heads", 32),
                        ("kv-heads", 8), ("vocab", 128256)]:
        parser.add_argument(f"--{name}", type=int, default=value)
    shape = parser.parse_args()
    shape.embedding = shape.embedding or shape.type
    block_elements = max(TYPES[shape.type][1], TYPES[shape.embedding][1])
    if shape.hidden % block_elements or shape.feed_forward % block_elements:
        parser.error(f"--hidden and --feed-forward have to be multiples of {block_elements} for these types")
    if shape.hidden % shape.heads or shape.heads % shape.kv_heads or shape.vocab < 259:
        parser.error("--heads must divide --hidden, --kv-heads must divide --heads, --vocab be at least 259")
    write_model(shape.out, shape)


if __name__ == "__main__":
    main()
