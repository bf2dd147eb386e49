// SentencePiece's BPE, as llama.cpp runs it: of all neighbours that together are a token, the pair
// whose token has the highest score is joined first (of equal ones the leftmost).
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/tokenizer_data.h"
#include "text/vocabulary.h"

namespace mkv {

struct SentencePieceScratch {
  struct Symbol {
    uint32_t begin, size;  // of the text; size 0: merged into the one before
    uint32_t previous, next;
  };
  struct Candidate {
    float score;
    uint32_t left, right, size;  // size of the merged text: tells whether it is out of date
  };
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
};

// Immutable: safe from many threads, each with its own scratch. Keeps a pointer to the vocabulary.
class SentencePiece {
 public:
  static Result<SentencePiece> create(const TokenizerData& data, const Vocabulary& vocabulary);
  // Appends the tokens of a text whose spaces are escaped already. Time n log n in its length.
  Result<void> encode(std::string_view text, SentencePieceScratch& scratch,
                      std::vector<TokenId>& out) const;

 private:
  void offer(std::string_view text, SentencePieceScratch& scratch, uint32_t left) const;
  void merge(std::string_view text, SentencePieceScratch& scratch) const;
  void append(std::string_view symbol, std::vector<TokenId>& out) const;

  const Vocabulary* vocabulary_ = nullptr;
  std::vector<float> scores_;
  size_t max_token_bytes_ = 0;
  std::optional<TokenId> unknown_;
};

}  // namespace mkv
