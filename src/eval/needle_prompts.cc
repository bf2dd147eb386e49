#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/rng.h"
#include "eval/needle.h"
#include "store/message.h"

namespace mkv {
namespace {

constexpr const char* kPlaces[] = {"Lisbon", "Cairo",   "Oslo", "Quito",   "Hanoi",
                                   "Dublin", "Nairobi", "Lima", "Toronto", "Prague"};

Error invalid(std::string message) {
  return make_error(ErrorCode::invalid_argument, "needle: " + std::move(message));
}

// Tokens of `text`, which begins with a space, for the middle of a text: some tokenizers add that
// space themselves.
Result<std::vector<TokenId>> encode_inside(const Tokenizer& tokenizer, std::string_view text) {
  constexpr EncodeOptions kPlain{.add_special = false, .parse_special = false};
  MKV_ASSIGN(std::vector<TokenId> tokens, tokenizer.encode(text, kPlain));
  std::string written;
  for (const TokenId token : tokens) written += tokenizer.decode(token, false);
  if (!written.starts_with("  ")) return tokens;
  return tokenizer.encode(text.substr(1), kPlain);
}

class PromptMaker {
 public:
  PromptMaker(const Tokenizer& tokenizer, std::vector<TokenId> filler)
      : tokenizer_(tokenizer), filler_(std::move(filler)), between_(filler_.size() + 1, false) {
    for (size_t i = 1; i < filler_.size(); ++i) between_[i] = is_between_sentences(i);
  }

  Result<NeedlePrompt> make(size_t length, double depth, Rng& rng) const {
    const std::string place = kPlaces[rng.below(std::size(kPlaces))];
    NeedlePrompt prompt{.length = length,
                        .depth = depth,
                        .needle_at = 0,
                        .key = {},
                        .tokens = {},
                        .key_tokens = {}};
    prompt.key = std::to_string(10000 + rng.below(90000));
    const std::string question = " The special magic number of " + place + " is";
    MKV_ASSIGN(const std::vector<TokenId> needle,
               encode_inside(tokenizer_, question + " " + prompt.key + "."));
    MKV_ASSIGN(const std::vector<TokenId> asked, encode_inside(tokenizer_, question));
    MKV_ASSIGN(prompt.key_tokens, encode_inside(tokenizer_, " " + prompt.key));
    const SpecialTokens& special = tokenizer_.special();
    if (special.add_bos) prompt.tokens.push_back(*special.bos);
    const size_t taken = prompt.tokens.size() + needle.size() + asked.size();
    if (length <= taken) {
      return invalid(concat("a length of ", length, " tokens, needle and question take ", taken));
    }
    const size_t text = length - taken;
    if (filler_.size() < text + 1) {
      return invalid(concat("the filler has ", filler_.size(), " tokens, a length of ", length,
                            " needs ", text + 1));
    }
    const size_t end = nearest(text + rng.below(filler_.size() - text), text, filler_.size() - 1);
    const size_t begin = end - text;
    const size_t wanted =
        begin + static_cast<size_t>(std::lround(depth * static_cast<double>(text)));
    const size_t at = nearest(wanted, begin, end);
    append(prompt.tokens, begin, at);
    prompt.needle_at = prompt.tokens.size();
    prompt.tokens.insert(prompt.tokens.end(), needle.begin(), needle.end());
    append(prompt.tokens, at, end);
    prompt.tokens.insert(prompt.tokens.end(), asked.begin(), asked.end());
    return prompt;
  }

 private:
  void append(std::vector<TokenId>& to, size_t begin, size_t end) const {
    to.insert(to.end(), filler_.begin() + static_cast<std::ptrdiff_t>(begin),
              filler_.begin() + static_cast<std::ptrdiff_t>(end));
  }

  // A full stop in front, and a space or a new line after: single spaces around what comes between.
  bool is_between_sentences(size_t i) const {
    const std::string before = tokenizer_.decode(filler_[i - 1], false);
    const std::string after = tokenizer_.decode(filler_[i], false);
    const bool ended = before.ends_with('.') || before.ends_with('!') || before.ends_with('?');
    return ended && !after.empty() && (after[0] == '\n' || (after[0] == ' ' && after != " "));
  }

  // The nearest place between sentences in [first, last]; where there is none, `wanted` itself.
  size_t nearest(size_t wanted, size_t first, size_t last) const {
    wanted = std::clamp(wanted, first, last);
    for (size_t far = 0; far <= last - first; ++far) {
      if (wanted >= first + far && between_[wanted - far]) return wanted - far;
      if (wanted + far <= last && between_[wanted + far]) return wanted + far;
    }
    return wanted;
  }

  const Tokenizer& tokenizer_;
  std::vector<TokenId> filler_;
  std::vector<bool> between_;
};

Result<void> check(const Model& model, const NeedleOptions& options) {
  if (options.lengths.empty() || options.depths.empty() || options.samples == 0 ||
      options.answer == 0) {
    return invalid("lengths, depths, samples and answer must not be empty or 0");
  }
  for (const double depth : options.depths) {
    if (depth >= 0 && depth <= 1) continue;
    char text[80];
    std::snprintf(text, sizeof text, "a depth of %g, 0 (beginning) to 1 (end) are right", depth);
    return invalid(text);
  }
  const size_t longest = model.config().max_position_embeddings;
  for (const size_t length : options.lengths) {
    if (longest != 0 && length + options.answer > longest) {
      return invalid(concat("a length of ", length, " and an answer of ", options.answer,
                            " tokens, the model's limit is ", longest));
    }
  }
  return {};
}

}  // namespace

Result<std::vector<NeedlePrompt>> make_needles(const Model& model, std::string_view filler,
                                               const NeedleOptions& options) {
  MKV_TRY(check(model, options));
  MKV_ASSIGN(std::vector<TokenId> tokens,
             model.tokenizer().encode(filler, {.add_special = false, .parse_special = false}));
  const PromptMaker maker(model.tokenizer(), std::move(tokens));
  Rng rng(options.seed);
  std::vector<NeedlePrompt> prompts;
  for (const size_t length : options.lengths) {
    for (const double depth : options.depths) {
      for (size_t i = 0; i < options.samples; ++i) {
        MKV_ASSIGN(NeedlePrompt prompt, maker.make(length, depth, rng));
        prompts.push_back(std::move(prompt));
      }
    }
  }
  return prompts;
}

}  // namespace mkv
