#include "text/bpe.h"

#include <algorithm>
#include <bit>
#include <string>

#include "text/byte_chars.h"
#include "text/utf8.h"

namespace mkv {
namespace {

constexpr uint32_t kEnd = UINT32_MAX;
constexpr size_t kMaxCachedBytes = 64;
constexpr size_t kMaxCachedWords = size_t{1} << 18;

uint64_t pair_key(TokenId left, TokenId right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32) | static_cast<uint32_t>(right);
}

// For std::push_heap: true when `a` is to be taken after `b`.
bool is_later(const BpeScratch::Candidate& a, const BpeScratch::Candidate& b) {
  return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
}

Error merge_error(size_t rank, const std::string& left, const std::string& right,
                  const std::string& missing) {
  return make_error(ErrorCode::corrupt, "tokenizer: merge " + std::to_string(rank) + " (\"" + left +
                                            "\" \"" + right + "\"): \"" + missing +
                                            "\" is not in the vocabulary");
}

}  // namespace

void MergeTable::reserve(size_t merges) { slots_.resize(std::bit_ceil(2 * merges + 1)); }

size_t MergeTable::slot(uint64_t key) const {
  const size_t mask = slots_.size() - 1;
  const uint64_t hash = key * 0x9e3779b97f4a7c15u;
  for (size_t i = (hash ^ (hash >> 32)) & mask;; i = (i + 1) & mask) {
    if (slots_[i].key == key || slots_[i].key == kEmpty) return i;
  }
}

void MergeTable::insert(TokenId left, TokenId right, uint32_t rank, TokenId merged) {
  const uint64_t key = pair_key(left, right);
  Merge& merge = slots_[slot(key)];
  if (merge.key == kEmpty) merge = {key, rank, merged};
}

const MergeTable::Merge* MergeTable::find(TokenId left, TokenId right) const {
  if (slots_.empty()) return nullptr;
  const Merge& merge = slots_[slot(pair_key(left, right))];
  return merge.key == kEmpty ? nullptr : &merge;
}

Result<Bpe> Bpe::create(const TokenizerData& data, const Vocabulary& vocabulary) {
  Bpe bpe;
  bpe.vocabulary_ = &vocabulary;
  bpe.bytes_ = data.model == TokenizerModel::byte_bpe;
  bpe.ignore_merges_ = data.ignore_merges;
  bpe.byte_fallback_ = data.byte_fallback;
  bpe.fuse_unknown_ = data.fuse_unknown;
  bpe.unknown_ = data.unknown;
  bpe.merges_.reserve(data.merges.size());
  for (size_t rank = 0; rank < data.merges.size(); ++rank) {
    const auto& [left, right] = data.merges[rank];
    const std::optional<TokenId> a = vocabulary.find(left), b = vocabulary.find(right);
    if (!a || !b) return merge_error(rank, left, right, a ? right : left);
    const std::optional<TokenId> merged = vocabulary.find(left + right);
    if (!merged) return merge_error(rank, left, right, left + right);
    bpe.merges_.insert(*a, *b, static_cast<uint32_t>(rank), *merged);
  }
  return bpe;
}

Result<void> Bpe::encode(std::string_view piece, BpeScratch& scratch,
                         std::vector<TokenId>& out) const {
  if (piece.size() >= kEnd) {
    return make_error(ErrorCode::capacity, "tokenizer: a piece of " + std::to_string(piece.size()) +
                                               " bytes; at most " + std::to_string(kEnd - 1) +
                                               " are taken");
  }
  const auto known = scratch.words.find(piece);
  if (known != scratch.words.end()) {
    out.insert(out.end(), known->second.begin(), known->second.end());
    return {};
  }
  scratch.word.clear();
  first_symbols(piece, scratch.word);
  if (scratch.word.size() > 1) merge(scratch);
  out.insert(out.end(), scratch.word.begin(), scratch.word.end());
  if (piece.size() <= kMaxCachedBytes && scratch.words.size() < kMaxCachedWords) {
    scratch.words.emplace(piece, scratch.word);
  }
  return {};
}

// The whole piece where merges are ignored for it; else a symbol for each byte or character. One
// that the vocabulary has no way to write is left out, as `tokenizers` and llama.cpp do.
void Bpe::first_symbols(std::string_view piece, std::vector<TokenId>& out) const {
  if (ignore_merges_) {
    const std::optional<TokenId> whole =
        bytes_ ? vocabulary_->find_text(bytes_to_chars(piece)) : vocabulary_->find_text(piece);
    if (whole) {
      out.push_back(*whole);
      return;
    }
  }
  bool after_unknown = false;
  for (size_t at = 0; at < piece.size();) {
    const size_t size = bytes_ ? 1 : code_point_at(piece, at).bytes;
    const std::string_view symbol = piece.substr(at, size);
    at += size;
    const std::optional<TokenId> id = bytes_ ? vocabulary_->of_byte(static_cast<uint8_t>(symbol[0]))
                                             : vocabulary_->find_text(symbol);
    bool unknown = false;
    if (id) {
      out.push_back(*id);
    } else if (!byte_fallback_ || !append_bytes(symbol, out)) {
      unknown = unknown_.has_value();
      if (unknown && !(fuse_unknown_ && after_unknown)) out.push_back(*unknown_);
    }
    after_unknown = unknown;
  }
}

// All of them or none.
bool Bpe::append_bytes(std::string_view bytes, std::vector<TokenId>& out) const {
  const size_t size = out.size();
  for (const char c : bytes) {
    const std::optional<TokenId> id = vocabulary_->of_byte(static_cast<uint8_t>(c));
    if (!id) {
      out.resize(size);
      return false;
    }
    out.push_back(*id);
  }
  return true;
}

void Bpe::offer(BpeScratch& scratch, uint32_t position) const {
  const BpeScratch::Symbol& left = scratch.symbols[position];
  if (left.next == kEnd) return;
  const MergeTable::Merge* merge = merges_.find(left.id, scratch.symbols[left.next].id);
  if (merge == nullptr) return;
  scratch.heap.push_back({merge->rank, position, merge->merged});
  std::push_heap(scratch.heap.begin(), scratch.heap.end(), is_later);
}

void Bpe::merge(BpeScratch& scratch) const {
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  const auto count = static_cast<uint32_t>(scratch.word.size());
  symbols.clear();
  heap.clear();
  for (uint32_t i = 0; i < count; ++i) {
    symbols.push_back(
        {scratch.word[i], i == 0 ? kEnd : i - 1, i + 1 == count ? kEnd : i + 1, true});
  }
  for (uint32_t i = 0; i + 1 < count; ++i) offer(scratch, i);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), is_later);
    const BpeScratch::Candidate best = heap.back();
    heap.pop_back();
    BpeScratch::Symbol& left = symbols[best.position];
    if (!left.alive || left.next == kEnd) continue;
    BpeScratch::Symbol& right = symbols[left.next];
    // Either may have been merged meanwhile.
    const MergeTable::Merge* now = merges_.find(left.id, right.id);
    if (now == nullptr || now->rank != best.rank || now->merged != best.merged) continue;
    left.id = best.merged;
    right.alive = false;
    left.next = right.next;
    if (right.next != kEnd) symbols[right.next].previous = best.position;
    if (left.previous != kEnd) offer(scratch, left.previous);
    offer(scratch, best.position);
  }
  scratch.word.clear();
  for (const BpeScratch::Symbol& symbol : symbols) {
    if (symbol.alive) scratch.word.push_back(symbol.id);
  }
}

}  // namespace mkv
