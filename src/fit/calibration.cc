#include "fit/calibration.h"

#include <algorithm>
#include <numeric>

#include "base/rng.h"

namespace mkv {
namespace {

std::vector<size_t> shuffled(size_t count, uint64_t seed) {
  std::vector<size_t> order(count);
  std::iota(order.begin(), order.end(), size_t{0});
  Rng rng(seed);
  for (size_t i = count; i > 1; --i) std::swap(order[i - 1], order[rng.below(i)]);
  return order;
}

}  // namespace

size_t count_tokens(std::span<const std::vector<TokenId>> sequences) {
  size_t tokens = 0;
  for (const auto& sequence : sequences) tokens += sequence.size();
  return tokens;
}

Result<Sequences> calibration_sequences(const Tokenizer& tokenizer,
                                        std::span<const std::string> documents,
                                        const CalibrationOptions& options) {
  if (options.window < options.least || options.least == 0) {
    return make_error(ErrorCode::invalid_argument,
                      "calibration: windows of " + std::to_string(options.window) +
                          " tokens, but at least " + std::to_string(options.least) + " are used");
  }
  const std::vector<size_t> order = shuffled(documents.size(), options.seed);
  Sequences encoded(documents.size()), out;
  size_t tokens = 0;
  bool any = true;
  for (size_t round = 0; any && tokens < options.tokens; ++round) {
    any = false;
    for (const size_t index : order) {
      if (tokens >= options.tokens) break;
      std::vector<TokenId>& document = encoded[index];
      if (round == 0) {
        MKV_ASSIGN(document, tokenizer.encode(documents[index],
                                              {.add_special = true, .parse_special = false}));
      }
      const size_t begin = round * options.window;
      if (document.size() < begin + options.least) continue;
      const size_t left = std::min(document.size() - begin, options.tokens - tokens);
      const auto first = document.begin() + static_cast<ptrdiff_t>(begin);
      out.emplace_back(first, first + static_cast<ptrdiff_t>(std::min(options.window, left)));
      tokens += out.back().size();
      any = true;
    }
  }
  if (out.empty()) {
    return make_error(ErrorCode::invalid_argument,
                      "calibration: none of " + std::to_string(documents.size()) +
                          " documents has " + std::to_string(options.least) + " tokens");
  }
  return out;
}

}  // namespace mkv
