"""Tokenizers of the tiny models (make_tiny_models.py): one of each kind that the engine reads."""

import json
import pathlib

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers, processors, trainers

VOCAB = 384
TRAINING_CHARS = 12000  # of the text: a few KB are plenty for some hundred merges

LLAMA_BPE_REGEX = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2_REGEX = LLAMA_BPE_REGEX.replace(r"\p{N}{1,3}", r"\p{N}")

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}")
HEADERS = (
    "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + "
    "'<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{% endif %}")
INST = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] + eos_token }}{% else %}"
    "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}")


def training_text(path):
    """The first TRAINING_CHARS characters of the "text" fields of a .jsonl file, as stories."""
    stories, size = [], 0
    for line in pathlib.Path(path).read_text(encoding="utf-8").strip().split("\n"):
        if size >= TRAINING_CHARS:
            break
        stories.append(json.loads(line)["text"])
        size += len(stories[-1])
    return stories


def byte_level_bpe(stories, pre, size, first_specials=(), ignore_merges=False):
    """A byte-level BPE of `size` entries, whose first ones are `first_specials`."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(stories, trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(first_specials), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    return tokenizer


def split_then_bytes(regex):
    return pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(regex), behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def with_unmerged_words(tokenizer, words):
    """Adds vocabulary entries that no merge makes: only `ignore_merges` finds them."""
    state = json.loads(tokenizer.to_str())
    for word in words:
        state["model"]["vocab"].setdefault(word, len(state["model"]["vocab"]))
    return Tokenizer.from_str(json.dumps(state))


def bos_template(bos, tokenizer):
    return processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B",
        special_tokens=[(bos, tokenizer.token_to_id(bos))])


def smollm_tokenizer(stories):
    """SmolLM2: digits one by one, then GPT-2's regex; special tokens come first in the vocabulary."""
    pre = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                   pre_tokenizers.ByteLevel(add_prefix_space=False)])
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    return byte_level_bpe(stories, pre, VOCAB, specials), dict(
        bos_token="<|im_start|>", eos_token="<|im_end|>", unk_token="<|endoftext|>",
        pad_token="<|im_end|>", add_prefix_space=False, chat_template=CHATML)


def llama_bpe_tokenizer(stories):
    """Llama 3: own regex, ignore_merges, specials last, BOS put in front."""
    specials = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>",
                "<|end_header_id|>", "<|eot_id|>"]
    words = ["Ġtogether", "Ġeverybody", "ĠLibrarian"]
    tokenizer = byte_level_bpe(stories, split_then_bytes(LLAMA_BPE_REGEX),
                               VOCAB - len(specials) - len(words), ignore_merges=True)
    tokenizer = with_unmerged_words(tokenizer, words)
    tokenizer.add_special_tokens([AddedToken(s, normalized=False) for s in specials])
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False), bos_template("<|begin_of_text|>", tokenizer)])
    return tokenizer, dict(bos_token="<|begin_of_text|>", eos_token="<|eot_id|>",
                           chat_template=HEADERS)


def gpt2_tokenizer(stories):
    """GPT-2's regex alone. (Real Mistral models use SentencePiece or tekken.)"""
    specials = ["<s>", "</s>"]
    tokenizer = byte_level_bpe(stories, pre_tokenizers.ByteLevel(add_prefix_space=False), VOCAB,
                               specials)
    return tokenizer, dict(bos_token="<s>", eos_token="</s>", add_prefix_space=False,
                           chat_template=INST)


def qwen_tokenizer(stories, vocab_size, normalizer, extra):
    """Qwen: Llama 3's regex with single digits, specials last; `extra` are added, not special."""
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer = byte_level_bpe(stories, split_then_bytes(QWEN2_REGEX),
                               vocab_size - len(specials) - len(extra))
    tokenizer.normalizer = normalizer
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.add_special_tokens([AddedToken(s, normalized=False) for s in specials])
    tokenizer.add_tokens([AddedToken(s, normalized=False, special=False) for s in extra])
    return tokenizer, dict(bos_token=None, eos_token="<|im_end|>", pad_token="<|endoftext|>",
                           add_bos_token=False, add_prefix_space=False, chat_template=CHATML)


def sentencepiece_tokenizer(stories, folder, ids, space_prefix, user_defined=()):
    """Llama 2 and Gemma: SentencePiece BPE with byte fallback (tokenizer.model) and the
    tokenizer.json that transformers derives from such a model: the same pieces, and for each piece
    all pairs that make it as merges, best score first. `ids`: of unk, bos, eos and pad."""
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(line for story in stories for line in story.splitlines()),
        model_prefix=str(folder / "tokenizer"), model_type="bpe", vocab_size=VOCAB,
        byte_fallback=True, character_coverage=0.99, normalization_rule_name="identity",
        add_dummy_prefix=space_prefix, remove_extra_whitespaces=False, split_digits=True,
        allow_whitespace_only_pieces=True, **{f"{kind}_id": i for kind, i in ids.items()},
        user_defined_symbols=list(user_defined), num_threads=1, minloglevel=2)
    (folder / "tokenizer.vocab").unlink()
    spm = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    vocab = {spm.id_to_piece(i): i for i in range(len(spm))}
    merges = []
    for piece, i in vocab.items():
        if spm.is_control(i) or spm.is_unknown(i) or spm.is_byte(i) or piece in user_defined:
            continue
        pairs = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        pairs = [pair for pair in pairs if pair[0] in vocab and pair[1] in vocab]
        pairs.sort(key=lambda pair: (vocab[pair[0]], vocab[pair[1]]))
        merges += [(spm.get_score(i), pair) for pair in pairs]
    merges = [pair for _, pair in sorted(merges, key=lambda entry: -entry[0])]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True,
                                     byte_fallback=True))
    escape, unescape = normalizers.Replace(" ", "▁"), decoders.Replace("▁", " ")
    back = [unescape, decoders.ByteFallback(), decoders.Fuse()]
    if space_prefix:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), escape])
        back.append(decoders.Strip(content=" ", left=1, right=0))
    else:
        tokenizer.normalizer = escape
    tokenizer.decoder = decoders.Sequence(back)
    control = [i for i in range(len(spm)) if spm.is_control(i) or spm.is_unknown(i)]
    tokenizer.add_special_tokens(
        [AddedToken(spm.id_to_piece(i), normalized=False) for i in control])
    tokenizer.add_tokens([AddedToken(s, normalized=False, special=False) for s in user_defined])
    tokenizer.post_processor = bos_template("<s>", tokenizer)
    return tokenizer, dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>",
                           add_bos_token=True, add_eos_token=False, chat_template=INST)


def make_tokenizer(name, stories, folder):
    if name == "llama":
        return smollm_tokenizer(stories)
    if name == "llama3":
        return llama_bpe_tokenizer(stories)
    if name == "mistral":
        return gpt2_tokenizer(stories)
    if name == "qwen2":  # five entries of the embedding have no token, as in the real ones
        return qwen_tokenizer(stories, VOCAB - 5, normalizers.NFC(), [])
    if name == "qwen3":
        return qwen_tokenizer(stories, VOCAB, None, ["<think>", "</think>"])
    if name == "gemma3":  # no space in front, its own order of special tokens, runs of line feeds
        return sentencepiece_tokenizer(stories, folder, dict(pad=0, eos=1, bos=2, unk=3), False,
                                       ["\n\n", "\n\n\n", "[multimodal]"])
    return sentencepiece_tokenizer(stories, folder, dict(unk=0, bos=1, eos=2, pad=-1), True)
