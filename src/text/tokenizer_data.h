// What a tokenizer is made of, as plain data: the readers of GGUF metadata and of tokenizer.json
// fill it, make_tokenizer() turns it into a Tokenizer.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "text/tokenizer.h"

namespace mkv {

enum class TokenizerModel : uint8_t {
  byte_bpe,       // merges over bytes, written as GPT-2's byte characters
  character_bpe,  // merges over characters, <0xXX> tokens for those not in the vocabulary
  sentencepiece,  // no list of merges: the pair whose token has the highest score goes first
};

enum class TokenType : uint8_t {  // values of tokenizer.ggml.token_type
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6,
};

// A token that is found in the text before anything else is done to it. Fields as in
// tokenizer.json; a control token of a GGUF file is `special`, a user-defined one is not.
struct AddedToken {
  TokenId id = 0;
  std::string content;
  bool special = false;      // matched only with parse_special, and hidden by decode
  bool single_word = false;  // not inside a word
  bool left_strip = false;   // takes the white space in front of it
  bool right_strip = false;  // and behind it
  bool normalized = false;   // matched in the normalised text, not in the text as given
};

struct NormalizerStep {
  enum class Kind : uint8_t { nfc, nfd, nfkc, nfkd, prepend, replace, strip };
  Kind kind = Kind::nfc;
  std::string from;                  // replace
  std::string to;                    // replace, prepend
  bool left = false, right = false;  // strip
};

enum class SplitBehavior : uint8_t {
  removed,
  isolated,
  merged_with_previous,
  merged_with_next,
  contiguous,
};

enum class PrependScheme : uint8_t { never, first, always };

struct PreTokenizerStep {
  enum class Kind : uint8_t {
    split,         // by the matches of a regular expression
    digits,        // by characters of category N
    metaspace,     // spaces become `replacement`, which also begins each piece
    prefix_space,  // a space in front of each piece that has none
  };
  Kind kind = Kind::split;
  std::string pattern;  // split
  SplitBehavior behavior = SplitBehavior::isolated;
  bool invert = false;      // split: what does not match is the match
  std::string replacement;  // metaspace
  PrependScheme prepend = PrependScheme::never;
  bool split_words = true;  // metaspace
};

struct TokenizerData {
  TokenizerModel model = TokenizerModel::byte_bpe;
  std::vector<std::string> tokens;  // as written in the vocabulary; an empty one is a hole
  std::vector<float> scores;        // sentencepiece: one a token
  std::vector<TokenType> types;     // one a token
  std::vector<std::pair<std::string, std::string>> merges;  // BPE; first = lowest rank
  std::vector<AddedToken> added;
  std::vector<NormalizerStep> normalizer;
  std::vector<PreTokenizerStep> pre_tokenizer;

  bool ignore_merges = false;      // BPE: a piece that is a token needs no merges
  bool byte_fallback = false;      // character_bpe; sentencepiece always has it
  bool fuse_unknown = false;       // character_bpe: one unknown token for a run of them
  bool add_space_prefix = false;   // sentencepiece: a space at the start and after added tokens
  std::optional<TokenId> unknown;  // what encode writes for what the vocabulary lacks
  SpecialTokens special;
  std::string chat_template;  // empty: the model has none
};

// The data is checked here: an id out of range, a merge of tokens that are not there, a pattern
// that does not compile.
Result<std::unique_ptr<Tokenizer>> make_tokenizer(TokenizerData data);

// The steps that llama.cpp's `tokenizer.ggml.pre` names stand for.
Result<std::vector<PreTokenizerStep>> pre_tokenizer_named(std::string_view name);

// The step that both formats use for GPT-2's words.
PreTokenizerStep split_isolated(std::string pattern);
extern const char* const kGpt2Pattern;

}  // namespace mkv
