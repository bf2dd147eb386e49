#!/usr/bin/env python3
"""Writes what the `tokenizers` library (Hugging Face) makes of awkward strings.

tokenizer/<name>.json, for each tiny model (see make_tiny_models.py) and for `smollm2` and
`gemma3_270m`, the tokenizers of the real models, rebuilt from their GGUFs (no part of them is
committed but ids):

  model, vocab_size, adds_bos       adds_bos: encode() with special tokens puts BOS in front
  cases[]:
    name, text        JSON escapes only, so every file is ASCII
    ids               special tokens of the text taken as plain text, none added
                      (llama.cpp: add_special=false, parse_special=false)
    ids_special       special tokens of the text parsed, none added; absent when equal to `ids`
    ids_without_nfc, ids_special_without_nfc
                      where the tokenizer.json asks for NFC (qwen2) and that changes the ids: the
                      ids without it. llama.cpp has no NFC and gives these; the GGUF cannot tell.
    decoded           decode(ids), special tokens kept; absent when equal to `text`

Non-special added tokens (qwen3's <think>) are always parsed, as llama.cpp's USER_DEFINED ones are.
Names that end in `_unicode15` or `_unicode16` hold letters newer than Unicode 14 (PCRE2 10.42):
an engine with older tables may differ there.

tokenizer/smollm2_files.json and gemma3_270m_files.json, a check over the data folder (all of it, and
GEMMA_FILES; nothing of it is committed):

  files{path: {ids, fnv1a64, first_ids}}
    .raw and .txt: the whole file is one text, byte for byte.
    .jsonl: split at "\\n" (nothing else); of every non-empty line one text: the string of its
      "text" field, or, when it has none, the raw line without its "\\n". The ids of all lines are
      put one after the other.
    Every text: add_special=false, parse_special=false, no BOS between lines.
    fnv1a64: h = 0xcbf29ce484222325; for each id, for each of its 4 bytes, lowest first:
      h = (h ^ byte) * 0x100000001b3 mod 2^64; as 16 hex digits.

Rerun, in the venv of make_tiny_models.py (and after it):
  scripts/get_model.sh
  scripts/get_model.sh --model gemma3
  python make_tokenizer_cases.py --smollm2 ~/.cache/mkv-models/SmolLM2-135M-Instruct.Q4_1.gguf \
      --gemma3 ~/.cache/mkv-models/gemma-3-270m-q4_k_m.gguf --data DATA
The rebuilt tokenizer is checked against two known counts (WIKITEXT_IDS). transformers' own GGUF
reader is not used: in 5.23 it drops the Digits step of `smollm` and gets the second one wrong.
"""

import argparse
import json
import pathlib
import random
import unicodedata

import gguf
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers import processors

HERE = pathlib.Path(__file__).resolve().parent
TINY = ["llama", "llama3", "mistral", "qwen2", "qwen3", "llama_spm", "gemma3"]
# Text, code, and lists of many kinds.
GEMMA_FILES = ["lm_eval/wikitext2.test.raw", "lm_eval/wikitext2.valid.raw",
               "train/code_redpajama.jsonl", "train/stackexchange_redpajama.jsonl"]
WIKITEXT_IDS = {"lm_eval/wikitext2.test.raw": 303415, "lm_eval/wikitext2.valid.raw": 266981}
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|eot_id|>",
            "<|start_header_id|>", "<s>", "</s>", "<unk>", "<think>", "</think>", "<repo_name>"]

CASES = {
    "empty": "",
    "space": " ",
    "newline": "\n",
    "two_spaces": "  ",
    "word": "Hello",
    "words": "Hello, world! How are you?",
    "leading_space": " Hello",
    "leading_spaces": "   Hello",
    "trailing_space": "Hello ",
    "trailing_spaces": "Hello   ",
    "inner_spaces": "a  b   c    d     e",
    "spaces_before_newline": "end   \n   next",
    "tabs": "\tif x:\n\t\treturn\t1\t \t2",
    "tab_space_word": "\t word \tword",
    "newlines": "a\nb\n\nc\n\n\nd\n\n\n\n",
    "crlf": "one\r\ntwo\r\n\r\nthree\rfour\n\rfive\r\n",
    "crlf_spaces": " \r\n  \r\n \n \r x",
    "contractions_lower": "I'm you're he's she'd we'll they've don't it'd's",
    "contractions_upper": "I'M YOU'RE HE'S SHE'D WE'LL THEY'VE DON'T 'S 'LL 'T",
    "contractions_mixed": "'Re 'rE 'Ve 'vE 'lL 'Ll 'sS 'ſ 'K ’s ’ll",
    "apostrophes": "'' ''' 'quoted' rock 'n' roll 'tis '90s dogs' 's't",
    "long_s_contraction": "it'ſ a tale",
    "digits": "1 12 123 1234 12345 1234567890 3.14159 1,000,000 0x1F 2nd",
    "digits_letters": "abc123def4567 x1y2z3 1a2b3c",
    "number_kinds": "½ ¼ ² ³ ① Ⅷ ٣ ४५६ ７８９ 一二三 𝟘𝟙𝟚 ௧௨ ৳৪৫",
    "long_digits": "7" * 150,
    "long_spaces": " " * 300 + "x",
    "long_spaces_only": " " * 257,
    "long_newlines": "\n" * 130,
    "long_tabs": "\t" * 70 + "x",
    "long_letters": "a" * 200,
    "long_mixed_run": "ab" * 80,
    "long_punctuation": "=" * 100 + "-" * 33 + "!" * 17,
    "long_word": "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
    "punctuation": "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    "punctuation_newlines": "end.\n\nnext!?\r\n(more);\n{\n}\n",
    "punctuation_space": " . , ! ? ( ) [ ] -- ... « » ¿ ¡",
    "underscores": "snake_case __init__ _x _ __",
    "symbols": "€ £ ¥ ₿ © ® ™ § ¶ † ‡ • … ‰ ∑ ∫ √ ∞ ≠ ≤ ± × ÷ → ⇒",
    "code": "for (int i = 0; i < n; ++i) {\n    sum += a[i] * b[i];  // dot\n}\n",
    "python": "def f(x):\n    if x:\n        return {'a': 1}\n    return None\n",
    "url": "https://example.org/a/b?c=d&e=%20f#g user@example.com",
    "latin_accents": "café naïve Ünïcödé Ångström São Łódź Dvořák façade",
    "combining": "e\u0301 a\u0308 n\u0303 o\u0302\u0323 Z\u0351\u036b\u0343 \u0301 x\u0301\u0301\u0301",
    "nfc_order": "q\u0323\u0307 q\u0307\u0323 \u1e0b\u0323 d\u0323\u0307",
    "nfc_singletons": "\u212b \u2126 \u212a \u0340 \uf900 \u0958 \u2adc",
    "hangul_jamo": "\u1112\u1161\u11ab \u1100\u1173\u11af 한글 가\u11a8",
    "compatibility": "ﬁ ﬂ ﬀ ℌ Ａｂｃ ㎏ ㍿ ǆ",
    "greek": "Καλημέρα κόσμε ΆΈ ς σ",
    "cyrillic": "Съешь ещё этих мягких французских булок",
    "hebrew": "שלום עולם בְּרֵאשִׁית",
    "arabic": "مرحبا بالعالم السَّلَامُ ۱۲۳ ١٢٣",
    "rtl_marks": "abc \u200fdef\u200e \u202eghi\u202c \u2067jkl\u2069",
    "devanagari": "नमस्ते दुनिया क्षत्रिय",
    "thai": "สวัสดีชาวโลก กำลัง",
    "khmer": "កាន់តែពិសេស",
    "tamil": "வணக்கம் உலகம்",
    "chinese": "你好，世界！我想在2024年学习机器学习。",
    "chinese_rare": "𠮷野家 𪚥 㐀 龘",
    "japanese": "こんにちは世界、カタカナﾊﾝｶｸ。「テスト」",
    "korean": "안녕하세요 세계",
    "mixed_scripts": "Hello你好Приветمرحبا안녕123",
    "ideographic_space": "你\u3000好\u3000\u3000a",
    "emoji": "😀 😃😄 👍🏽 🚀x🚀 ❤️ ☺",
    "emoji_zwj": "👨‍👩‍👧‍👦 🏳️‍🌈 👩🏽‍💻 😶‍🌫️ 🧑‍🤝‍🧑",
    "emoji_flags": "🇩🇪🇫🇷🇯🇵 🏴󠁧󠁢󠁥󠁮󠁧󠁿 1️⃣2️⃣#️⃣",
    "nul": "a\u0000b \u0000\u0000 \u0000",
    "controls": "".join(chr(c) for c in range(1, 32)) + "\u007f",
    "c1_controls": "".join(chr(c) for c in range(0x80, 0xa0)),
    "control_words": "a\u0001b \u0002c\u001bd \u001b[31mred\u001b[0m \u0008x",
    "separators_1c_1f": "a\u001cb\u001dc\u001ed\u001fe \u001c \u001f",
    "vt_ff": "a\u000bb\u000cc \u000b\u000c d",
    "nel": "a\u0085b\u0085\u0085c \u0085 d\u0085",
    "line_separators": "a\u2028b\u2029c \u2028\u2029 d",
    "nbsp": "a\u00a0b \u00a0c\u00a0\u00a0d\u00a0",
    "unicode_spaces": "a\u1680b\u2000c\u2001d\u2002e\u2003f\u2009g\u200ah\u202fi\u205fj",
    "space_then_unicode_space": "a \u2003b\u2003 c  \u2003  d",
    "mongolian_vowel_separator": "a\u180eb \u180e c\u180e\u180e \u180e",
    "zero_width": "a\u200bb\u200cc\u200dd\u2060e\ufefff \u200b x",
    "bom_first": "\ufeffHello",
    "soft_hyphen": "co\u00adoperate \u00ad",
    "replacement": "\ufffd a\ufffdb \ufffd\ufffd",
    "noncharacters": "\ufffe\uffff \U0001fffe \U0010ffff \ufdd0",
    "private_use": "\ue000\uf8ff \U000f0000 \U0010fffd",
    "variation_selectors": "︎ ☎︎ ☎️ 葛󠄀",
    "math_alphanumerics": "𝐇𝐞𝐥𝐥𝐨 𝓦𝓸𝓻𝓵𝓭 𝟏𝟐",
    "case_pairs": "ß ẞ İ ı ŉ ǰ ΐ Ω",
    "old_scripts": "𐌰𐌱 𓀀𓀁 𒀀𒀁 𐀀",
    "byte_level_alphabet": "Ġhello Ċ ĉ č Ā ā ġ Ń \u0120\u010a",
    "metaspace": "▁Hello ▁▁world a▁b",
    "byte_tokens": "<0x0A> <0x41><0xFF> <0x00>",
    "repeated_pairs": "the the the thethethe ThE tHe\nthe",
    "story": "Once upon a time, there was a little girl named Lily. She loved to play outside.",
    "story_upper": "ONCE UPON A TIME, THERE WAS A LITTLE GIRL NAMED LILY.",
    "unmerged_words": "We read together. everybody together everybody Librarian, the Librarian",
    "nag_mundari_unicode15": "\U0001e4d0\U0001e4d1 a\U0001e4f1",
    "todhri_unicode16": "\U000105c0\U000105c1 \u1c89\u1c8a x",
    "special_alone": "<|im_start|>",
    "special_unclosed": "<|im_start| > <|im_start <|im_ start|>",
    "special_case": "<|IM_START|> <S> </S>",
    "special_spaces": " <|im_start|> user <|im_end|> \n <s> x </s> ",
    "special_doubled": "<|im_end|><|im_end|><s><s></s></s><|eot_id|><|eot_id|>",
    "special_nested": "<|im_<|im_end|>end|> <<s>> </</s>s>",
    "special_chat": "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\n",
    "special_llama3": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>",
    "special_llama2": "<s>[INST] Hi [/INST] Hello </s><s>[INST] Bye [/INST]",
    "special_think": "<think>\nhm\n</think>\n\nx <think></think> <thin k>",
    "special_each": " ".join(SPECIALS),
    "special_in_word": "foo" + "bar".join(SPECIALS) + "baz",
    "unk_text": "<unk> unk <UNK> 🦙 ∰ ꙮ",
}


def fuzz_cases(count=40, length=24):
    """Seeded strings of characters that Unicode 14 has, of all kinds, in short runs."""
    rng = random.Random(20241124)
    ranges = [(0x00, 0x7f)] * 6 + [(0x80, 0x24f)] * 2 + [
        (0x250, 0x36f), (0x370, 0x52f), (0x590, 0x6ff), (0x900, 0xdff), (0xe00, 0x11ff),
        (0x1200, 0x1aff), (0x1e00, 0x206f), (0x2070, 0x2bff), (0x3000, 0x30ff), (0x4e00, 0x9fff),
        (0xac00, 0xd7a3), (0xf900, 0xffff), (0x10000, 0x107ff), (0x1d400, 0x1d7ff),
        (0x1f300, 0x1faff), (0xe0100, 0xe01ef)]
    joiners = ["", "", "", " ", "  ", "\n", "'", "\r\n", "\u00a0", "1"]
    for number in range(count):
        text = ""
        while len(text) < length:
            low, high = rng.choice(ranges)
            for _ in range(rng.randint(1, 4)):
                char = chr(rng.randint(low, high))
                if unicodedata.category(char) not in ("Cn", "Cs"):
                    text += char
            text += rng.choice(joiners)
        yield f"fuzz_{number:02d}", text


def encode(tokenizer, text, parse_special):
    tokenizer.encode_special_tokens = not parse_special
    return tokenizer.encode(text, add_special_tokens=False).ids


def make_cases(tokenizer, plain):
    """`plain`: the tokenizer without its normalizer if that is NFC, else None."""
    for name, text in [*CASES.items(), *fuzz_cases()]:
        case = {"name": name, "text": text, "ids": encode(tokenizer, text, False)}
        case["ids_special"] = encode(tokenizer, text, True)
        if plain is not None:
            for key, parse in (("ids", False), ("ids_special", True)):
                other = encode(plain, text, parse)
                if other != case[key]:
                    case[f"{key}_without_nfc"] = other
        if case["ids_special"] == case["ids"]:
            case.pop("ids_special")
            case.pop("ids_special_without_nfc", None)
        decoded = tokenizer.decode(case["ids"], skip_special_tokens=False)
        if decoded != text:
            case["decoded"] = decoded
        yield case


def write_cases(name, tokenizer, plain):
    cases = list(make_cases(tokenizer, plain))
    tokenizer.encode_special_tokens = False
    adds_bos = len(tokenizer.encode("a").ids) > len(
        tokenizer.encode("a", add_special_tokens=False).ids)
    path = HERE / "tokenizer" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    path.write_text(f'{{"model": "{name}", "vocab_size": {tokenizer.get_vocab_size()}, '
                    f'"adds_bos": {json.dumps(adds_bos)}, "cases": [\n{lines}\n]}}\n')
    print(f"{path.name}: {len(cases)} cases, {path.stat().st_size} bytes")


def tiny_tokenizer(name):
    """The tokenizer, and the one without NFC."""
    state = json.loads((HERE / "models" / name / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_str(json.dumps(state))
    if (state["normalizer"] or {}).get("type") != "NFC":
        return tokenizer, None
    return tokenizer, Tokenizer.from_str(json.dumps({**state, "normalizer": None}))


def smollm2_tokenizer(path):
    """From the GGUF's vocabulary, token types and merges, with the two steps that the name
    `smollm` stands for: digits one by one, then GPT-2's regex."""
    reader = gguf.GGUFReader(path)
    field = lambda key: reader.get_field(f"tokenizer.ggml.{key}").contents()
    if (field("model"), field("pre")) != ("gpt2", "smollm"):
        raise SystemExit(f"{path}: not a smollm tokenizer")
    tokens, types = field("tokens"), field("token_type")
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)},
                                     merges=[tuple(m.split(" ")) for m in field("merges")]))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    control = gguf.TokenType.CONTROL
    tokenizer.add_special_tokens([AddedToken(token, normalized=False)
                                  for token, kind in zip(tokens, types) if kind == control])
    return tokenizer


def gemma3_tokenizer(path):
    """From the GGUF's vocabulary, scores and token types: for each piece all pairs that make it as
    merges, best score first; what is user-defined is found before anything else."""
    reader = gguf.GGUFReader(path)
    field = lambda key: reader.get_field(f"tokenizer.ggml.{key}").contents()
    if field("model") != "llama" or field("add_space_prefix"):
        raise SystemExit(f"{path}: not Gemma's tokenizer")
    tokens, types, scores = field("tokens"), field("token_type"), field("scores")
    normal, control, user_defined = (gguf.TokenType.NORMAL, gguf.TokenType.CONTROL,
                                     gguf.TokenType.USER_DEFINED)
    vocab = {token: i for i, token in enumerate(tokens)}
    merges = []
    for i, piece in enumerate(tokens):
        if types[i] != normal:
            continue
        for cut in range(1, len(piece)):
            left, right = vocab.get(piece[:cut]), vocab.get(piece[cut:])
            if left is not None and right is not None and types[left] == types[right] == normal:
                merges.append((-scores[i], left, right))
    tokenizer = Tokenizer(models.BPE(
        vocab=vocab, merges=[(tokens[a], tokens[b]) for _, a, b in sorted(merges)],
        unk_token=tokens[field("unknown_token_id")], fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    for kind, add in ((control, tokenizer.add_special_tokens), (user_defined, tokenizer.add_tokens)):
        add([AddedToken(token, normalized=False, special=kind == control)
             for token, own in zip(tokens, types) if own == kind])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair=None, special_tokens=[("<bos>", field("bos_token_id"))])
    return tokenizer


def texts_of(path):
    content = path.read_bytes().decode("utf-8")
    if path.suffix != ".jsonl":
        return [content]
    lines = [line for line in content.split("\n") if line]
    return [json.loads(line).get("text", line) for line in lines]


def fnv1a64(ids):
    h = 0xcbf29ce484222325
    for i in ids:
        for byte in i.to_bytes(4, "little"):
            h = ((h ^ byte) * 0x100000001b3) & 0xffffffffffffffff
    return f"{h:016x}"


def write_files(model, tokenizer, data, names, known_ids):
    tokenizer.encode_special_tokens = True
    files = {}
    for name in names:
        encodings = tokenizer.encode_batch_fast(texts_of(data / name), add_special_tokens=False)
        ids = [i for encoding in encodings for i in encoding.ids]
        if len(ids) != known_ids.get(name, len(ids)):
            raise SystemExit(f"{name}: expected {known_ids[name]} ids, got {len(ids)}")
        files[name] = {"ids": len(ids), "fnv1a64": fnv1a64(ids), "first_ids": ids[:16]}
    out = HERE / "tokenizer" / f"{model}_files.json"
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in files.items())
    out.write_text(f'{{"model": "{model}", "files": {{\n' + lines + "\n}}\n")
    print(f"{out.name}: {len(files)} files, {sum(f['ids'] for f in files.values())} ids")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--smollm2", type=pathlib.Path, help="SmolLM2's GGUF; without it only the "
                        "tiny models' cases are written")
    parser.add_argument("--gemma3", type=pathlib.Path, help="Gemma 3 270M's GGUF, likewise")
    parser.add_argument("--data", type=pathlib.Path, help="the data folder, for *_files.json")
    options = parser.parse_args()
    for name in TINY:
        write_cases(name, *tiny_tokenizer(name))
    if options.smollm2:
        tokenizer = smollm2_tokenizer(options.smollm2)
        write_cases("smollm2", tokenizer, None)
        if options.data:
            names = sorted(p.relative_to(options.data).as_posix() for p in options.data.rglob("*")
                           if p.suffix in (".raw", ".txt", ".jsonl"))
            write_files("smollm2", tokenizer, options.data, names, WIKITEXT_IDS)
    if options.gemma3:
        tokenizer = gemma3_tokenizer(options.gemma3)
        write_cases("gemma3_270m", tokenizer, None)
        if options.data:
            write_files("gemma3_270m", tokenizer, options.data, GEMMA_FILES, {})


if __name__ == "__main__":
    main()
