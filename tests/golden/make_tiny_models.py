#!/usr/bin/env python3
"""Makes the tiny random models and the golden logits that `ctest -L golden` compares with.

For each model of MODELS, written beside this file:

  models/<name>/         a Hugging Face folder: config.json, model.safetensors (or shards with an
                         index), tokenizer.json, tokenizer_config.json with a chat template
  models/<name>.gguf     the same weights, written by llama.cpp's own converter
  logits/<name>.json     what transformers computes (float32, eager attention) from that folder

The folder and the GGUF hold the SAME numbers: weights are rounded to the GGUF's type (f16, bf16,
q8_0) before either is written, and `check_gguf` compares them bit for bit. So one golden file
serves both readers, and a difference is never "only quantisation". Weights are scaled so that
attention and logits are not flat, and norm weights and biases are far from 1 and 0, so that a
missed term shows.

  name       what it is there for                                   HF        GGUF   tokenizer
  llama      GQA 4/2, untied, head_dim 16                           F32       f32    smollm, no BOS
  llama3     rope_scaling llama3, tied, 3 layers, GQA 4/2           BF16      bf16   llama-bpe, BOS
  mistral    head_dim 32, not hidden/heads (16)                     F16       f16    gpt-2
  qwen2      q/k/v biases, 1 KV head, padded vocabulary, 2 shards   F32       q8_0   qwen2, NFC
  qwen3      QK norm, head_dim 32, tied, rope_parameters (v5 json)  F32       f32    qwen2
  llama_spm  4 KV heads (no GQA), SentencePiece BPE, byte fallback  BF16      f32    llama, BOS
  gemma3     sliding window of 16 on five layers of six, two RoPE   BF16      bf16   llama without a
             bases, scaled embedding, post-norms, GELU, 1 KV head                    space, BOS

logits/<name>.json:
  ids            48 token ids (seeded, from the whole vocabulary, BOS first where the model has it)
  positions      the positions whose whole logits row is kept
  logits         [len(positions)][vocab_size], as %.8g of the float32 value
  argmax         [48] index of the largest logit at every position
  logsumexp      [48] ln sum exp of every row, in float64 from the float32 logits
  mean_nll       mean over positions 0..46 of -ln p(ids[i+1]), float64
  hidden_last    [layers + 1][hidden_size]: embedding, then the output of each block, of the last
                 position (before the final norm): shows at which layer an engine goes astray
  prompt, prompt_ids, greedy_ids, greedy_text, greedy_margin
                 a text, its ids (with BOS where the model has it), 24 greedy ids after it, their
                 text, and the smallest gap between best and second-best logit on the way

Rerun (any venv that has the packages named in VERSIONS; no network is used):
  pip download --no-deps --no-binary :all: llama-cpp-python==0.3.36   # unpack it: its vendored llama.cpp
  python make_tiny_models.py --llama-cpp ~/.cache/mkv-peers/llama_cpp_python-0.3.36/vendor/llama.cpp \
      --text tinystories.jsonl [--only NAME ...]

Everything is seeded; a rerun with VERSIONS gives the same bytes, except that the last digits of
logits may move with torch's matrix kernels.
"""

import argparse
import contextlib
import json
import pathlib
import shutil
import sys

import numpy as np
import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, utils

from tiny_tokenizers import VOCAB, make_tokenizer, training_text

VERSIONS = {  # made with; other versions should do
    "python": "3.11.7", "numpy": "2.4.6", "torch": "2.15.0", "transformers": "5.23.0",
    "tokenizers": "0.23.3", "safetensors": "0.8.0", "sentencepiece": "0.2.3",
    "llama-cpp-python": "0.3.36",
}
HERE = pathlib.Path(__file__).resolve().parent
NUM_IDS = 48
NUM_GREEDY = 24
PROMPT = "Once upon a time, there was a little girl who had 12 red balls."

# `seed`: of weights and ids. `store`: type of the safetensors. `outtype`: of the GGUF, which
# `round_to` makes exact. `pre`: llama.cpp's name of the pre-tokenizer. Rest: config.json.
MODELS = {
    "llama": dict(
        seed=22, store="F32", outtype="f32", pre="smollm", architecture="LlamaForCausalLM",
        config=dict(model_type="llama", num_hidden_layers=2, num_key_value_heads=2,
                    rms_norm_eps=1e-5, rope_theta=10000.0, tie_word_embeddings=False)),
    "llama3": dict(
        seed=33, store="BF16", outtype="bf16", pre="llama-bpe", architecture="LlamaForCausalLM",
        config=dict(model_type="llama", num_hidden_layers=3, num_key_value_heads=2,
                    rms_norm_eps=1e-5, rope_theta=500000.0, tie_word_embeddings=True,
                    # with head_dim 16 and 64 original positions all three branches of the rule
                    # occur: wavelengths 6.3 (kept), 32 (blended), 167 and more (divided)
                    rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0,
                                      high_freq_factor=4.0,
                                      original_max_position_embeddings=64))),
    "mistral": dict(
        seed=6, store="F16", outtype="f16", pre="gpt-2", architecture="MistralForCausalLM",
        config=dict(model_type="mistral", num_hidden_layers=2, num_key_value_heads=2, head_dim=32,
                    rms_norm_eps=1e-5, rope_theta=1000000.0, sliding_window=None,
                    tie_word_embeddings=False)),
    "qwen2": dict(
        seed=22, store="F32", outtype="q8_0", pre="qwen2", architecture="Qwen2ForCausalLM",
        shards=2,
        config=dict(model_type="qwen2", num_hidden_layers=2, num_key_value_heads=1,
                    rms_norm_eps=1e-6, rope_theta=1000000.0, use_sliding_window=False,
                    tie_word_embeddings=False)),
    "qwen3": dict(
        seed=14, store="F32", outtype="f32", pre="qwen2", architecture="Qwen3ForCausalLM",
        config=dict(model_type="qwen3", num_hidden_layers=2, num_key_value_heads=2, head_dim=32,
                    rms_norm_eps=1e-6, attention_bias=False, use_sliding_window=False,
                    rope_parameters=dict(rope_type="default", rope_theta=1000000.0),
                    tie_word_embeddings=True)),
    "llama_spm": dict(
        seed=37, store="BF16", outtype="f32", pre=None, architecture="LlamaForCausalLM",
        config=dict(model_type="llama", num_hidden_layers=2, num_key_value_heads=4,
                    rms_norm_eps=1e-6, rope_theta=10000.0, tie_word_embeddings=False)),
    "gemma3": dict(
        seed=5, store="BF16", outtype="bf16", pre=None, architecture="Gemma3ForCausalLM",
        config=dict(model_type="gemma3_text", hidden_size=32, intermediate_size=48,
                    num_hidden_layers=6, num_key_value_heads=1,
                    head_dim=32, query_pre_attn_scalar=32, rms_norm_eps=1e-6, sliding_window=16,
                    hidden_activation="gelu_pytorch_tanh", rope_theta=1000000.0,
                    rope_local_base_freq=10000.0, tie_word_embeddings=True)),
}
COMMON = dict(hidden_size=64, intermediate_size=96, num_attention_heads=4, vocab_size=VOCAB,
              max_position_embeddings=512, hidden_act="silu", attention_dropout=0.0)
TORCH_DTYPE = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")


# ------------------------------------------------------------------------------------- weights


def random_weight(rng, name, shape):
    """Scales: q and k give attention scores of a few units, v/o/ffn a residual of order 1, the
    head logits of a few units. Norm weights vary in 0.5..1.5 (of q and k: 1..3), a few negated;
    biases have standard deviation 0.5. The seeds in MODELS are those, of the first few dozen, with
    the widest gap between best and second-best logit on the greedy path."""
    normal = rng.standard_normal(shape).astype(np.float32)
    if name.endswith("norm.weight"):  # Gemma 3's are less 1: see make_weights
        signs = np.where(rng.random(shape) < 0.05, -1.0, 1.0).astype(np.float32)
        sharper = 2.0 if "q_norm" in name or "k_norm" in name else 1.0
        return np.float32(sharper) * signs * (1.0 + 0.25 * np.clip(normal, -2, 2))
    if name.endswith(".bias"):
        return 0.5 * normal
    if "lm_head" in name:
        return 0.3 * normal
    if "embed_tokens" in name:
        return 0.1 * normal
    if "q_proj" in name or "k_proj" in name:
        return 0.2 * normal
    return normal / np.sqrt(np.float32(shape[-1]))


def round_q8_0(w):
    """To the nearest value Q8_0 can hold; doing it twice changes nothing."""
    blocks = w.reshape(-1, 32)
    scale = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    q = np.round(blocks / np.where(scale == 0, 1, scale))
    return (q * scale.astype(np.float16).astype(np.float32)).reshape(w.shape).astype(np.float32)


def round_to(outtype, w):
    if outtype == "q8_0" and w.ndim == 2:
        w = round_q8_0(w)
    return torch.from_numpy(np.ascontiguousarray(w))


def make_weights(spec, config):
    """name -> tensor, in the type of the safetensors file."""
    rng = np.random.default_rng(spec["seed"])
    with torch.device("meta"):
        shapes = {n: tuple(t.shape) for n, t in
                  AutoModelForCausalLM.from_config(config).state_dict().items()}
    if config.tie_word_embeddings:
        shapes.pop("lm_head.weight", None)
    weights = {n: random_weight(rng, n, shape) for n, shape in sorted(shapes.items())}
    if config.model_type == "gemma3_text":
        weights = {n: w - np.float32(1) if n.endswith("norm.weight") else w
                   for n, w in weights.items()}
    if config.tie_word_embeddings:
        weights["model.embed_tokens.weight"] *= np.float32(2)
    return {n: round_to(spec["outtype"], w).to(TORCH_DTYPE[spec["store"]])
            for n, w in weights.items()}


def save_weights(folder, weights, shards):
    metadata = {"format": "pt"}
    if shards == 1:
        save_file(weights, folder / "model.safetensors", metadata)
        return
    names = sorted(weights)
    groups = np.array_split(np.array(names), shards)
    index = {"metadata": {"total_size": sum(w.nbytes for w in weights.values())}, "weight_map": {}}
    for number, group in enumerate(groups, 1):
        file = f"model-{number:05d}-of-{shards:05d}.safetensors"
        save_file({str(n): weights[str(n)] for n in group}, folder / file, metadata)
        index["weight_map"].update({str(n): file for n in group})
    write_json(folder / "model.safetensors.index.json", index)


# ------------------------------------------------------------------------- the three deliveries


def make_folder(name, spec, stories, folder):
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    tokenizer, special = make_tokenizer(name, stories, folder)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    write_json(folder / "tokenizer_config.json", {
        **special, "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False, "model_max_length": 512})
    ids = {f"{kind}_token_id": tokenizer.token_to_id(special[f"{kind}_token"])
           for kind in ("bos", "eos") if special.get(f"{kind}_token")}
    dtype = str(TORCH_DTYPE[spec["store"]]).removeprefix("torch.")
    write_json(folder / "config.json", {
        "architectures": [spec["architecture"]], **COMMON, **spec["config"], **ids,
        "torch_dtype": dtype})
    weights = make_weights(spec, AutoConfig.from_pretrained(folder))
    save_weights(folder, weights, spec.get("shards", 1))


def convert_to_gguf(llama_cpp, folder, outfile, spec):
    """Runs llama.cpp's converter in this process, with the pre-tokenizer's name given: it would
    look it up by a hash of the ids that a known model gives to a test text."""
    for path in (llama_cpp, llama_cpp / "gguf-py"):
        if str(path) not in sys.path:
            sys.path.insert(0, str(path))
    import conversion
    import convert_hf_to_gguf
    conversion.TextModel.get_vocab_base_pre = lambda self, tokenizer: spec["pre"]
    arguments = ["convert_hf_to_gguf.py", str(folder), "--outfile", str(outfile),
                 "--outtype", spec["outtype"]]
    outfile.unlink(missing_ok=True)
    saved, sys.argv = sys.argv, arguments
    try:
        with open(outfile.with_suffix(".log"), "w") as log, contextlib.redirect_stderr(log):
            convert_hf_to_gguf.main()
    finally:
        sys.argv = saved
    outfile.with_suffix(".log").unlink()


def load_folder(folder):
    weights = {}
    for file in sorted(folder.glob("*.safetensors")):
        weights.update(load_file(file))
    return {n: w.to(torch.float32).numpy() for n, w in weights.items()}


def check_gguf(folder, file):
    """The GGUF holds the folder's numbers exactly (q and k rows of arch llama in the converter's
    order). Needs the gguf package."""
    import gguf
    hf = load_folder(folder)
    config = json.loads((folder / "config.json").read_text())
    reader = gguf.GGUFReader(file)
    tensors = {t.name: gguf.dequantize(t.data, t.tensor_type) for t in reader.tensors}
    arch = reader.get_field("general.architecture").contents()
    names = gguf.get_tensor_name_map(
        {v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[arch], config["num_hidden_layers"])
    for name, want in hf.items():
        if arch == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = config["num_attention_heads" if "q_proj" in name else "num_key_value_heads"]
            want = (want.reshape(heads, 2, want.shape[0] // heads // 2, *want.shape[1:])
                    .swapaxes(1, 2).reshape(want.shape))
        if arch == "gemma3" and name.endswith("norm.weight"):
            want = want + np.float32(1)
        got = tensors.pop(names.get_name(name, try_suffixes=(".weight", ".bias")))
        if not np.array_equal(want, got.reshape(want.shape)):
            raise SystemExit(f"{file.name}: {name} differs from the folder's, by up to "
                             f"{np.abs(want - got.reshape(want.shape)).max()}")
    tensors.pop("rope_freqs.weight", None)
    if tensors:
        raise SystemExit(f"{file.name}: tensors without a counterpart: {sorted(tensors)}")


def check_tokenizer(folder, stories):
    """transformers loads the tokenizer.json as it is, and, where there is a tokenizer.model,
    SentencePiece agrees with it."""
    fast = Tokenizer.from_file(str(folder / "tokenizer.json"))
    auto = AutoTokenizer.from_pretrained(folder)
    for story in stories:
        if auto(story)["input_ids"] != fast.encode(story).ids:
            raise SystemExit(f"{folder.name}: transformers changed the tokenizer")
    if (folder / "tokenizer.model").exists():
        spm = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        for story in stories:
            if spm.encode(story) != fast.encode(story, add_special_tokens=False).ids:
                raise SystemExit(f"{folder.name}: SentencePiece and tokenizer.json differ")
    return fast


@torch.inference_mode()
def make_logits(spec, folder, tokenizer, outfile):
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager").eval()
    rng = np.random.default_rng(1000 + spec["seed"])
    ids = rng.integers(0, VOCAB, NUM_IDS).tolist()
    prompt_ids = tokenizer.encode(PROMPT).ids
    bos = json.loads((folder / "config.json").read_text()).get("bos_token_id")
    if bos is not None and prompt_ids[0] == bos:
        ids[0] = bos

    hidden = []  # of the last position
    hooks = [model.model.embed_tokens.register_forward_hook(
        lambda module, args, out: hidden.append(out[0, -1].tolist()))]
    hooks += [layer.register_forward_hook(lambda module, args, out: hidden.append(
        (out[0] if isinstance(out, tuple) else out)[0, -1].tolist()))
        for layer in model.model.layers]
    logits = model(torch.tensor([ids]), use_cache=False).logits[0]
    for hook in hooks:
        hook.remove()

    log_probs = torch.log_softmax(logits.double(), dim=-1)
    nll = [-log_probs[i, ids[i + 1]].item() for i in range(NUM_IDS - 1)]
    greedy, margin = [], float("inf")
    for _ in range(NUM_GREEDY):
        last = model(torch.tensor([prompt_ids + greedy]), use_cache=False).logits[0, -1]
        best = last.topk(2)
        margin = min(margin, (best.values[0] - best.values[1]).item())
        greedy.append(best.indices[0].item())

    positions = sorted({*range(1, NUM_IDS, 2), 0})
    short = lambda values: [float(f"{v:.8g}") for v in values]
    fields = {
        "model": folder.name, "vocab_size": VOCAB, "ids": ids, "positions": positions,
        "argmax": logits.argmax(dim=-1).tolist(),
        "logsumexp": short(torch.logsumexp(logits.double(), dim=-1).tolist()),
        "mean_nll": float(np.mean(nll)),
        "prompt": PROMPT, "prompt_ids": prompt_ids, "greedy_ids": greedy,
        "greedy_text": tokenizer.decode(greedy, skip_special_tokens=False),
        "greedy_margin": margin,
        "hidden_last": [short(row) for row in hidden],
        "logits": [short(logits[p].tolist()) for p in positions],
    }
    outfile.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(f'"{key}": {json.dumps(value)}' for key, value in fields.items())
    outfile.write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    probabilities = log_probs.exp()
    print(f"{folder.name:10} {outfile.stat().st_size:7} bytes of logits, standard deviation "
          f"{logits.std():.2f}, mean top probability {probabilities.max(dim=-1).values.mean():.2f}, "
          f"greedy margin {margin:.3g}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--llama-cpp", type=pathlib.Path, required=True,
                        help="llama.cpp's source folder, with convert_hf_to_gguf.py")
    parser.add_argument("--text", type=pathlib.Path,
                        default="tinystories.jsonl",
                        help="a .jsonl file with \"text\" fields, to train the tokenizers on")
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME")
    options = parser.parse_args()
    utils.logging.set_verbosity_error()
    utils.logging.disable_progress_bar()
    torch.set_num_threads(1)  # one order of additions, and no spinning on a busy machine
    stories = training_text(options.text)
    for name in options.only:
        spec = MODELS[name]
        folder, file = HERE / "models" / name, HERE / "models" / f"{name}.gguf"
        make_folder(name, spec, stories, folder)
        convert_to_gguf(options.llama_cpp.resolve(), folder, file, spec)
        check_gguf(folder, file)
        tokenizer = check_tokenizer(folder, stories)
        make_logits(spec, folder, tokenizer, HERE / "logits" / f"{name}.json")


if __name__ == "__main__":
    main()
