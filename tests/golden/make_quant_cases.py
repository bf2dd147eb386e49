#!/usr/bin/env python3
"""Writes tests/golden/quant/blocks.json: random weight blocks and what gguf-py makes of them.

    python tests/golden/make_quant_cases.py        (needs numpy and gguf)

The bytes of a block are random but for its binary16 scales, which are drawn from both signs and
magnitudes 2^-24 (subnormal) to 2^15. Values are float32, printed so that they read back exactly.
"""
import json
import pathlib

import numpy as np
from gguf import quants
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

# Byte offsets of the binary16 numbers in a block.
HALVES = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
}
ELEMENTS = 512  # of a type, in two rows


def case(rng: np.random.Generator, name: str) -> dict:
    kind = GGMLQuantizationType[name]
    block_elements, block_bytes = GGML_QUANT_SIZES[kind]
    blocks = ELEMENTS // block_elements
    data = rng.integers(0, 256, (blocks, block_bytes), dtype=np.uint8)
    for offset in HALVES[name]:
        exponents = rng.uniform(-24, 15, blocks)
        scales = np.exp2(exponents) * rng.choice([-1.0, 1.0], blocks)
        data[:, offset : offset + 2] = scales.astype("<f2").view(np.uint8).reshape(blocks, 2)
    rows = data.reshape(2, -1)
    values = quants.dequantize(rows, kind).astype(np.float32)
    assert np.isfinite(values).all()
    return {
        "type": name,
        "rows": 2,
        "cols": ELEMENTS // 2,
        "bytes": rows.tobytes().hex(),
        "values": [float(str(v)) for v in values.reshape(-1)],
    }


def main() -> None:
    rng = np.random.default_rng(20240917)
    target = pathlib.Path(__file__).parent / "quant" / "blocks.json"
    target.parent.mkdir(exist_ok=True)
    cases = [case(rng, name) for name in HALVES]
    lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    target.write_text('{"made_by":"tests/golden/make_quant_cases.py","cases":[\n' + lines + "\n]}\n")


if __name__ == "__main__":
    main()
