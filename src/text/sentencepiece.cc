#include "text/sentencepiece.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "text/utf8.h"

namespace mkv {
namespace {

constexpr uint32_t kEnd = UINT32_MAX;

// For std::push_heap: true when `a` is to be taken after `b`.
bool is_later(const SentencePieceScratch::Candidate& a, const SentencePieceScratch::Candidate& b) {
  return a.score != b.score ? a.score < b.score : a.left > b.left;
}

}  // namespace

Result<SentencePiece> SentencePiece::create(const TokenizerData& data,
                                            const Vocabulary& vocabulary) {
  if (data.scores.size() != vocabulary.size()) {
    return make_error(ErrorCode::corrupt, "tokenizer: " + std::to_string(vocabulary.size()) +
                                              " tokens, but " + std::to_string(data.scores.size()) +
                                              " scores");
  }
  SentencePiece model;
  model.vocabulary_ = &vocabulary;
  model.scores_ = data.scores;
  model.unknown_ = data.unknown;
  for (size_t i = 0; i < vocabulary.size(); ++i) {
    if (std::isnan(data.scores[i])) {  // would leave the heap without an order
      return make_error(ErrorCode::corrupt,
                        "tokenizer: the score of token " + std::to_string(i) + " is not a number");
    }
    const size_t size = vocabulary.written(static_cast<TokenId>(i)).size();
    model.max_token_bytes_ = std::max(model.max_token_bytes_, size);
  }
  for (unsigned byte = 0; byte < 256 && !model.unknown_; ++byte) {
    if (!vocabulary.of_byte(static_cast<uint8_t>(byte))) {
      return make_error(ErrorCode::corrupt, "tokenizer: no token for byte " + std::to_string(byte) +
                                                " and no unknown token");
    }
  }
  return model;
}

void SentencePiece::offer(std::string_view text, SentencePieceScratch& scratch,
                          uint32_t left) const {
  const SentencePieceScratch::Symbol& a = scratch.symbols[left];
  if (a.next == kEnd) return;
  const uint32_t size = a.size + scratch.symbols[a.next].size;
  if (size > max_token_bytes_) return;
  const std::optional<TokenId> id = vocabulary_->find_text(text.substr(a.begin, size));
  if (!id) return;
  scratch.heap.push_back({scores_[static_cast<size_t>(*id)], left, a.next, size});
  std::push_heap(scratch.heap.begin(), scratch.heap.end(), is_later);
}

void SentencePiece::merge(std::string_view text, SentencePieceScratch& scratch) const {
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), is_later);
    const SentencePieceScratch::Candidate best = heap.back();
    heap.pop_back();
    SentencePieceScratch::Symbol& left = symbols[best.left];
    SentencePieceScratch::Symbol& right = symbols[best.right];
    if (left.size == 0 || right.size == 0 || left.size + right.size != best.size) continue;
    left.size = best.size;
    right.size = 0;
    left.next = right.next;
    if (right.next != kEnd) symbols[right.next].previous = best.left;
    if (left.previous != kEnd) offer(text, scratch, left.previous);
    offer(text, scratch, best.left);
  }
}

void SentencePiece::append(std::string_view symbol, std::vector<TokenId>& out) const {
  const std::optional<TokenId> id = vocabulary_->find_text(symbol);
  if (id) {
    out.push_back(*id);
    return;
  }
  const size_t size = out.size();
  for (const char c : symbol) {
    const std::optional<TokenId> byte = vocabulary_->of_byte(static_cast<uint8_t>(c));
    if (!byte) {
      out.resize(size);
      out.push_back(unknown_.value_or(0));
      return;
    }
    out.push_back(*byte);
  }
}

Result<void> SentencePiece::encode(std::string_view text, SentencePieceScratch& scratch,
                                   std::vector<TokenId>& out) const {
  if (text.size() >= kEnd) {
    return make_error(ErrorCode::capacity, "tokenizer: a text of " + std::to_string(text.size()) +
                                               " bytes; at most " + std::to_string(kEnd - 1) +
                                               " are taken");
  }
  auto& symbols = scratch.symbols;
  symbols.clear();
  scratch.heap.clear();
  for (size_t at = 0; at < text.size();) {
    const auto index = static_cast<uint32_t>(symbols.size());
    const uint32_t size = code_point_at(text, at).bytes;
    symbols.push_back({static_cast<uint32_t>(at), size, index == 0 ? kEnd : index - 1, index + 1});
    at += size;
  }
  if (symbols.empty()) return {};
  symbols.back().next = kEnd;
  for (uint32_t i = 0; i + 1 < symbols.size(); ++i) offer(text, scratch, i);
  merge(text, scratch);
  for (const SentencePieceScratch::Symbol& symbol : symbols) {
    if (symbol.size != 0) append(text.substr(symbol.begin, symbol.size), out);
  }
  return {};
}

}  // namespace mkv
