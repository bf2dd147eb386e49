// The parts of tokenizer.json, read into TokenizerData. Used by the reader of Hugging Face folders.
#pragma once

#include "base/result.h"
#include "store/json.h"
#include "text/tokenizer_data.h"

namespace mkv {

Result<void> read_normalizer(const Json& normalizer, TokenizerData& data);
// Also tells the model: byte_bpe if there is a ByteLevel step.
Result<void> read_pre_tokenizer(const Json& pre_tokenizer, TokenizerData& data);
// "Sequence" and "ByteLevel" aside, only a template that puts one token in front of the text.
Result<void> read_post_processor(const Json& post_processor, TokenizerData& data);

}  // namespace mkv
