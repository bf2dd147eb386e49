#include "text/pre_tokenizer.h"

#include <algorithm>

#include "text/utf8.h"

namespace mkv {
namespace {

using Kind = PreTokenizerStep::Kind;

struct Span {
  size_t begin, end;
  bool match;
};

// Matches and the gaps between them, in order; together they cover the text.
Result<void> find_spans(std::string_view text, const Regex& regex, RegexScratch& scratch,
                        std::vector<Span>& spans) {
  size_t covered = 0, from = 0;
  bool after_match = false;
  while (from <= text.size()) {
    MKV_ASSIGN(const RegexMatch match, regex.find(text, from, scratch));
    if (!match.found) break;
    const bool empty = match.begin == match.end;
    if (!empty || !after_match || match.begin != covered) {
      if (covered < match.begin) spans.push_back({covered, match.begin, false});
      spans.push_back({match.begin, match.end, true});
      covered = match.end;
      after_match = true;
    }
    from = match.end;
    if (empty) from += std::max<size_t>(1, code_point_at(text, match.end).bytes);
  }
  if (covered < text.size()) spans.push_back({covered, text.size(), false});
  return {};
}

void find_digits(std::string_view text, std::vector<Span>& spans) {
  size_t covered = 0;
  for (size_t at = 0; at < text.size();) {
    const CodePoint c = code_point_at(text, at);
    if (is_numeric(c.value)) {
      if (covered < at) spans.push_back({covered, at, false});
      spans.push_back({at, at + c.bytes, true});
      covered = at + c.bytes;
    }
    at += c.bytes;
  }
  if (covered < text.size()) spans.push_back({covered, text.size(), false});
}

// Joins neighbouring spans as `behavior` says; a joined span keeps the kind of what it grew from,
// as in `tokenizers`.
void join_spans(std::vector<Span>& spans, SplitBehavior behavior) {
  if (behavior == SplitBehavior::isolated) return;
  if (behavior == SplitBehavior::removed) {
    std::erase_if(spans, [](const Span& span) { return span.match; });
    return;
  }
  const bool backwards = behavior == SplitBehavior::merged_with_next;
  if (backwards) std::reverse(spans.begin(), spans.end());
  std::vector<Span> joined;
  bool previous = false;
  for (const Span& span : spans) {
    const bool joins =
        behavior == SplitBehavior::contiguous ? span.match == previous : span.match && !previous;
    if (joins && !joined.empty()) {
      joined.back().begin = std::min(joined.back().begin, span.begin);
      joined.back().end = std::max(joined.back().end, span.end);
    } else {
      joined.push_back(span);
    }
    previous = span.match;
  }
  if (backwards) std::reverse(joined.begin(), joined.end());
  spans = std::move(joined);
}

std::string with_replaced_spaces(std::string_view text, const PreTokenizerStep& step,
                                 bool at_start) {
  std::string out;
  for (const char c : text) {
    if (c == ' ') {
      out += step.replacement;
    } else {
      out += c;
    }
  }
  const bool wanted =
      step.prepend == PrependScheme::always || (step.prepend == PrependScheme::first && at_start);
  if (wanted && !out.starts_with(step.replacement)) out.insert(0, step.replacement);
  return out;
}

// The replaced text, cut in front of each replacement.
void split_metaspace(std::string_view text, const PreTokenizerStep& step,
                     std::vector<std::string_view>& out) {
  size_t begin = 0;
  while (step.split_words) {
    const size_t next = text.find(step.replacement, begin + (begin < text.size() ? 1 : 0));
    if (next == std::string_view::npos) break;
    out.push_back(text.substr(begin, next - begin));
    begin = next;
  }
  out.push_back(text.substr(begin));
}

Result<void> check_step(const PreTokenizerStep& step) {
  if (step.kind == Kind::metaspace && step.replacement.empty()) {
    return make_error(ErrorCode::corrupt, "Metaspace pre-tokenizer: its replacement is empty");
  }
  if (step.kind == Kind::split && step.pattern.empty()) {
    return make_error(ErrorCode::corrupt, "Split pre-tokenizer: its pattern is empty");
  }
  return {};
}

}  // namespace

Result<PreTokenizer> PreTokenizer::create(std::span<const PreTokenizerStep> steps) {
  PreTokenizer pre_tokenizer;
  for (const PreTokenizerStep& step : steps) {
    MKV_TRY(check_step(step));
    Step& added = pre_tokenizer.steps_.emplace_back();
    added.spec = step;
    if (step.kind == Kind::split) {
      MKV_ASSIGN(added.regex, Regex::compile(step.pattern));
    }
  }
  return pre_tokenizer;
}

Result<void> PreTokenizer::split(std::string_view text, bool at_start, RegexScratch& scratch,
                                 Pieces& pieces) const {
  const bool valid = is_valid_utf8(text);
  std::vector<std::string_view> now{text}, next;
  for (const Step& step : steps_) {
    next.clear();
    for (size_t i = 0; i < now.size(); ++i) {
      if (step.spec.kind == Kind::metaspace) {
        const bool first = at_start && i == 0;
        const std::string& replaced =
            pieces.owned.emplace_back(with_replaced_spaces(now[i], step.spec, first));
        split_metaspace(replaced, step.spec, next);
      } else if (step.spec.kind == Kind::prefix_space) {
        if (!now[i].starts_with(' ')) {
          now[i] = pieces.owned.emplace_back(" " + std::string(now[i]));
        }
        next.push_back(now[i]);
      } else if (valid) {
        MKV_TRY(split_by_matches(now[i], step, scratch, next));
      } else {
        for (const Utf8Run& run : utf8_runs(now[i])) {
          if (!run.valid) next.push_back(run.text);
          if (run.valid) MKV_TRY(split_by_matches(run.text, step, scratch, next));
        }
      }
    }
    now.swap(next);
  }
  pieces.list.insert(pieces.list.end(), now.begin(), now.end());
  return {};
}

Result<void> PreTokenizer::split_by_matches(std::string_view valid, const Step& step,
                                            RegexScratch& scratch,
                                            std::vector<std::string_view>& out) {
  std::vector<Span> spans;
  if (step.spec.kind == Kind::split) {
    MKV_TRY(find_spans(valid, *step.regex, scratch, spans));
  } else {
    find_digits(valid, spans);
  }
  if (step.spec.invert) {
    for (Span& span : spans) span.match = !span.match;
  }
  join_spans(spans, step.spec.behavior);
  for (const Span& span : spans) {
    if (span.begin < span.end) out.push_back(valid.substr(span.begin, span.end - span.begin));
  }
  return {};
}

}  // namespace mkv
