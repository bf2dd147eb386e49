#include "text/added_tokens.h"

#include <algorithm>
#include <string>

#include "text/utf8.h"

namespace mkv {
namespace {

uint64_t edge(uint32_t node, char byte) {
  return (static_cast<uint64_t>(node) << 8) | static_cast<uint8_t>(byte);
}

bool is_inside_word(std::string_view text, size_t begin, size_t end) {
  const CodePoint before = code_point_before(text, begin), after = code_point_at(text, end);
  return (before.valid && is_word(before.value)) || (after.valid && is_word(after.value));
}

size_t space_begin(std::string_view text, size_t end, size_t limit) {
  while (end > limit) {
    const CodePoint c = code_point_before(text, end);
    if (!c.valid || !is_space(c.value)) break;
    end -= c.bytes;
  }
  return std::max(end, limit);
}

size_t space_end(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    const CodePoint c = code_point_at(text, begin);
    if (!c.valid || !is_space(c.value)) break;
    begin += c.bytes;
  }
  return begin;
}

}  // namespace

Result<void> AddedTokens::add(const AddedToken& token, std::string_view pattern) {
  if (pattern.empty() || pattern.size() > kMaxTokenBytes) {
    return make_error(ErrorCode::unsupported, "tokenizer: added token " + std::to_string(token.id) +
                                                  " has " + std::to_string(pattern.size()) +
                                                  " bytes; 1 to " + std::to_string(kMaxTokenBytes) +
                                                  " are taken");
  }
  uint32_t node = 0;
  for (const char byte : pattern) {
    const auto [entry, fresh] =
        edges_.emplace(edge(node, byte), static_cast<uint32_t>(token_of_node_.size()));
    if (fresh) token_of_node_.push_back(0);
    node = entry->second;
  }
  tokens_.push_back(token);
  if (token_of_node_[node] == 0) token_of_node_[node] = static_cast<uint32_t>(tokens_.size());
  can_begin_[static_cast<uint8_t>(pattern.front())] = true;
  return {};
}

AddedTokens::Match AddedTokens::longest_at(std::string_view text, size_t at) const {
  Match match;
  uint32_t node = 0;
  for (size_t i = at; i < text.size(); ++i) {
    const auto next = edges_.find(edge(node, text[i]));
    if (next == edges_.end()) break;
    node = next->second;
    if (token_of_node_[node] != 0) match = {i + 1 - at, &tokens_[token_of_node_[node] - 1]};
  }
  return match;
}

void AddedTokens::split(std::string_view text, bool with_special,
                        std::vector<Fragment>& out) const {
  size_t covered = 0;
  for (size_t at = 0; at < text.size();) {
    if (!can_begin_[static_cast<uint8_t>(text[at])]) {
      ++at;
      continue;
    }
    const Match match = longest_at(text, at);
    if (match.token == nullptr) {
      ++at;
      continue;
    }
    size_t begin = at, end = at + match.length;
    at = end;  // a match that is not taken still hides shorter ones, as in `tokenizers`
    const AddedToken& token = *match.token;
    if (token.special && !with_special) continue;
    if (token.single_word && is_inside_word(text, begin, end)) continue;
    if (token.left_strip) begin = space_begin(text, begin, covered);
    if (token.right_strip) end = space_end(text, end);
    begin = std::max(begin, covered);
    if (covered < begin) out.push_back({text.substr(covered, begin - covered), std::nullopt});
    out.push_back({text.substr(begin, std::max(end, begin) - begin), token.id});
    covered = std::max(end, covered);
  }
  if (covered < text.size()) out.push_back({text.substr(covered), std::nullopt});
}

}  // namespace mkv
