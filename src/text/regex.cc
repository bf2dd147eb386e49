#include "text/regex.h"

#include <algorithm>
#include <array>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace mkv {
namespace {

// Unicode's White_Space as ranges of a class, and everything else.
constexpr std::string_view kSpace =
    R"(\x09-\x0d\x20\x85\xa0\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNotSpace =
    R"(\x00-\x08\x0e-\x1f\x21-\x84\x86-\x9f\xa1-\x{167f}\x{1681}-\x{1fff}\x{200b}-\x{2027})"
    R"(\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";

constexpr size_t kMaxPatternBytes = 64 << 10;
constexpr size_t kMaxJitStackBytes = 16 << 20;

bool is_alphanumeric(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

Error unsupported(std::string_view pattern, size_t at, std::string_view what) {
  return make_error(ErrorCode::unsupported, "regular expression \"" + std::string(pattern) +
                                                "\": " + std::string(what) + " at byte " +
                                                std::to_string(at) + " is not supported");
}

// Rewrites what PCRE2 would take differently; refuses what cannot be rewritten simply.
class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  Result<std::string> run() {
    for (; at_ < pattern_.size(); ++at_) {
      const char c = pattern_[at_];
      if (c == '\\') {
        MKV_TRY(escape());
        continue;
      }
      if (in_class_) {
        MKV_TRY(class_character(c));
      } else if (c == '[') {
        in_class_ = true;
        out_ += c;
        if (next() == '^') out_ += pattern_[++at_];
        if (next() == ']') return unsupported(pattern_, at_, "a class that begins with ]");
      } else if (c == '}' && next() == '+') {
        return unsupported(pattern_, at_, "'}+'");  // possessive here, repetition there
      } else {
        out_ += c;
      }
    }
    return out_;
  }

 private:
  char next() const { return at_ + 1 < pattern_.size() ? pattern_[at_ + 1] : '\0'; }

  Result<void> escape() {
    const char c = next();
    if (c == 's' || c == 'S') {
      const std::string_view ranges = c == 's' ? kSpace : kNotSpace;
      if (!in_class_) out_ += '[';
      out_ += ranges;
      if (!in_class_) out_ += ']';
    } else if (!is_alphanumeric(c) ||
               std::string_view("pPdDntrfvx").find(c) != std::string_view::npos) {
      out_ += '\\';
      if (at_ + 1 < pattern_.size()) out_ += c;
      copy_braces();
    } else if (c == 'u' && at_ + 5 < pattern_.size()) {
      out_ += "\\x{" + std::string(pattern_.substr(at_ + 2, 4)) + "}";
      at_ += 4;
    } else {
      return unsupported(pattern_, at_, std::string("'\\") + c + "'");
    }
    ++at_;
    return {};
  }

  // What belongs to \p{...} and \x{...}; other braces are quantifiers.
  void copy_braces() {
    const char c = next();
    if ((c != 'p' && c != 'P' && c != 'x') || at_ + 2 >= pattern_.size()) return;
    if (pattern_[at_ + 2] != '{') return;
    const size_t end = std::min(pattern_.find('}', at_ + 2), pattern_.size() - 1);
    out_ += pattern_.substr(at_ + 2, end - at_ - 1);
    at_ = end - 1;
  }

  Result<void> class_character(char c) {
    if (c == '[') return unsupported(pattern_, at_, "a class within a class");
    if (c == '&' && next() == '&') return unsupported(pattern_, at_, "'&&'");
    if (c == ']') in_class_ = false;
    out_ += c;
    return {};
  }

  std::string_view pattern_;
  std::string out_;
  size_t at_ = 0;
  bool in_class_ = false;
};

std::string message_of(int code) {
  std::array<PCRE2_UCHAR, 128> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return std::string(reinterpret_cast<const char*>(text.data()));
}

}  // namespace

RegexScratch::RegexScratch()
    : match_(pcre2_match_data_create(1, nullptr)), context_(pcre2_match_context_create(nullptr)) {}

RegexScratch::~RegexScratch() {
  pcre2_match_data_free(match_);
  pcre2_match_context_free(context_);
  if (stack_ != nullptr) pcre2_jit_stack_free(stack_);
}

bool RegexScratch::grow_stack() {
  if (stack_ != nullptr) return false;
  stack_ = pcre2_jit_stack_create(64 << 10, kMaxJitStackBytes, nullptr);
  if (stack_ == nullptr) return false;
  pcre2_jit_stack_assign(context_, nullptr, stack_);
  return true;
}

void Regex::Free::operator()(pcre2_real_code_8* code) const { pcre2_code_free(code); }

Result<Regex> Regex::compile(std::string_view pattern) {
  if (pattern.size() > kMaxPatternBytes) {
    return make_error(ErrorCode::unsupported,
                      "regular expression of " + std::to_string(pattern.size()) +
                          " bytes; at most " + std::to_string(kMaxPatternBytes) + " are taken");
  }
  MKV_ASSIGN(const std::string translated, Translator(pattern).run());
  int code = 0;
  size_t at = 0;
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  Regex regex;
  regex.code_.reset(pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &code, &at, context));
  pcre2_compile_context_free(context);
  if (!regex.code_) {
    return make_error(ErrorCode::corrupt, "regular expression \"" + std::string(pattern) +
                                              "\" does not compile: " + message_of(code));
  }
  // Where there is no JIT, matching interprets: slower, but the same.
  pcre2_jit_compile(regex.code_.get(), PCRE2_JIT_COMPLETE);
  regex.pattern_ = pattern;
  return regex;
}

Result<RegexMatch> Regex::find(std::string_view text, size_t from, RegexScratch& scratch) const {
  if (scratch.match_ == nullptr || scratch.context_ == nullptr) {
    return make_error(ErrorCode::capacity, "no memory for matching a regular expression");
  }
  while (true) {
    const int count =
        pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                    PCRE2_NO_UTF_CHECK, scratch.match_, scratch.context_);
    if (count >= 0) {
      const size_t* bounds = pcre2_get_ovector_pointer(scratch.match_);
      return RegexMatch{true, bounds[0], bounds[1]};
    }
    if (count == PCRE2_ERROR_NOMATCH) return RegexMatch{};
    if (count == PCRE2_ERROR_JIT_STACKLIMIT && scratch.grow_stack()) continue;
    return make_error(ErrorCode::capacity, "regular expression \"" + pattern_ + "\" at byte " +
                                               std::to_string(from) + " of a text of " +
                                               std::to_string(text.size()) +
                                               " bytes: " + message_of(count));
  }
}

std::string escape_regex(std::string_view text) {
  std::string pattern;
  for (const char c : text) {
    const bool plain = is_alphanumeric(c) || (static_cast<uint8_t>(c) & 0x80u) != 0;
    if (!plain) pattern += '\\';
    pattern += c;
  }
  return pattern;
}

}  // namespace mkv
