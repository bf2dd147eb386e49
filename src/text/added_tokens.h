// AddedTokens: finds special and user-defined tokens in a text, leftmost first and of those that
// begin at one place the longest, as `tokenizers` does.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/result.h"
#include "text/tokenizer_data.h"

namespace mkv {

// A token, or the text between two.
struct Fragment {
  std::string_view text;
  std::optional<TokenId> token;
};

class AddedTokens {
 public:
  static constexpr size_t kMaxTokenBytes = 4096;  // bounds the time a search takes

  // `pattern`: what to look for, which is token.content unless it was normalised.
  Result<void> add(const AddedToken& token, std::string_view pattern);
  // Without `with_special`, the text of special tokens is text like any other.
  void split(std::string_view text, bool with_special, std::vector<Fragment>& out) const;

 private:
  struct Match {
    size_t length = 0;
    const AddedToken* token = nullptr;
  };
  Match longest_at(std::string_view text, size_t at) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<uint64_t, uint32_t> edges_;  // node << 8 | byte -> node; 0 is the root
  std::vector<uint32_t> token_of_node_{0};        // index + 1 into tokens_
  std::array<bool, 256> can_begin_{};
};

}  // namespace mkv
