// PreTokenizer: cuts text into the pieces within which a tokenizer merges.
#pragma once

#include <deque>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/regex.h"
#include "text/tokenizer_data.h"

namespace mkv {

// Views of the text that was cut, or of `owned` where a step changed it.
struct Pieces {
  std::vector<std::string_view> list;
  std::deque<std::string> owned;  // a deque, so that growing it leaves the strings where they are
};

// Immutable: safe from many threads, each with its own scratch.
class PreTokenizer {
 public:
  static Result<PreTokenizer> create(std::span<const PreTokenizerStep> steps);
  // Cuts the text. `at_start`: nothing stands in front of it (PrependScheme::first). Runs of bytes
  // that are not valid UTF-8 are pieces of their own where a step looks at characters.
  Result<void> split(std::string_view text, bool at_start, RegexScratch& scratch,
                     Pieces& pieces) const;

 private:
  struct Step {
    PreTokenizerStep spec;
    std::optional<Regex> regex;
  };
  static Result<void> split_by_matches(std::string_view valid, const Step& step,
                                       RegexScratch& scratch, std::vector<std::string_view>& out);
  std::vector<Step> steps_;
};

}  // namespace mkv
