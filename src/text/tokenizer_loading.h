// Readers of tokenizers: the metadata of a GGUF file, and the files of a Hugging Face folder.
//
// What a file asks for and this program does not do is an error that names it, never left out.
#pragma once

#include <filesystem>
#include <string_view>

#include "base/result.h"
#include "store/gguf.h"
#include "text/tokenizer_data.h"

namespace mkv {

// `tokenizer.*` keys, with the defaults of llama.cpp.
Result<TokenizerData> tokenizer_data_from_gguf(const GgufFile& file);

// tokenizer.json and, where they are there: tokenizer_config.json, generation_config.json,
// chat_template.jinja.
Result<TokenizerData> tokenizer_data_from_hf(const std::filesystem::path& folder);

// The text of a tokenizer.json alone; `what` names it in errors.
Result<TokenizerData> tokenizer_data_from_json(std::string_view text, std::string_view what);

// Adds the tokens that end an answer by their usual names ("<|im_end|>", ...), for files that
// name one of several; then eos and eot. Each once.
void add_ends_of_generation(TokenizerData& data);

}  // namespace mkv
