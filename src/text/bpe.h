// Byte-pair encoding by a ranked list of merges: the pair with the lowest rank is joined first,
// of equal ones the leftmost, until none is left.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/result.h"
#include "text/tokenizer_data.h"
#include "text/vocabulary.h"

namespace mkv {

// Memory of one call of encode(). Words repeat: a word's tokens are kept and copied. The keys are
// views of the text, which must outlive it.
struct BpeScratch {
  struct Symbol {
    TokenId id;
    uint32_t previous, next;
    bool alive;
  };
  struct Candidate {
    uint32_t rank, position;
    TokenId merged;
  };
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
  std::vector<TokenId> word;
  std::unordered_map<std::string_view, std::vector<TokenId>> words;
};

// Ranked merges by the pair they join: open addressing, since a look-up for each neighbouring pair
// of symbols is most of what encoding costs.
class MergeTable {
 public:
  struct Merge {
    uint64_t key = kEmpty;
    uint32_t rank = 0;
    TokenId merged = 0;
  };
  void reserve(size_t merges);  // before the first insert; more than that must not be inserted
  void insert(TokenId left, TokenId right, uint32_t rank, TokenId merged);  // the first one stays
  const Merge* find(TokenId left, TokenId right) const;

 private:
  static constexpr uint64_t kEmpty = UINT64_MAX;  // ids are not negative: no pair has this key
  size_t slot(uint64_t key) const;

  std::vector<Merge> slots_;  // a power of two, at most half full
};

// Immutable: safe from many threads, each with its own scratch. Keeps a pointer to the vocabulary.
class Bpe {
 public:
  static Result<Bpe> create(const TokenizerData& data, const Vocabulary& vocabulary);
  // Appends the tokens of one piece. Time n log n in its length.
  Result<void> encode(std::string_view piece, BpeScratch& scratch, std::vector<TokenId>& out) const;

 private:
  void first_symbols(std::string_view piece, std::vector<TokenId>& out) const;
  bool append_bytes(std::string_view bytes, std::vector<TokenId>& out) const;
  void merge(BpeScratch& scratch) const;
  void offer(BpeScratch& scratch, uint32_t position) const;

  const Vocabulary* vocabulary_ = nullptr;
  MergeTable merges_;
  bool bytes_ = true, ignore_merges_ = false, byte_fallback_ = false, fuse_unknown_ = false;
  std::optional<TokenId> unknown_;
};

}  // namespace mkv
