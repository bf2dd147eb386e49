// Regular expressions of tokenizers, matched by PCRE2 (UTF, Unicode properties, JIT) with the
// meaning that Oniguruma gives them, the engine of Hugging Face's `tokenizers`.
//
// The two differ in a few places. \s is spelt out (PCRE2 adds U+180E); constructs that would
// silently mean something else (\w, \b, \h, POSIX and nested classes, {n,m}+) are errors.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"

struct pcre2_real_code_8;
struct pcre2_real_match_data_8;
struct pcre2_real_match_context_8;
struct pcre2_real_jit_stack_8;

namespace mkv {

// Memory for matching: one for each thread, any number of expressions.
class RegexScratch {
 public:
  RegexScratch();
  ~RegexScratch();
  RegexScratch(const RegexScratch&) = delete;
  RegexScratch& operator=(const RegexScratch&) = delete;

 private:
  friend class Regex;
  bool grow_stack();

  pcre2_real_match_data_8* match_ = nullptr;
  pcre2_real_match_context_8* context_ = nullptr;
  pcre2_real_jit_stack_8* stack_ = nullptr;
};

struct RegexMatch {
  bool found = false;
  size_t begin = 0, end = 0;
};

// Immutable: safe from many threads, each with its own scratch.
class Regex {
 public:
  static Result<Regex> compile(std::string_view pattern);
  // The first match that begins at or after `from`. The text must be valid UTF-8.
  Result<RegexMatch> find(std::string_view text, size_t from, RegexScratch& scratch) const;

 private:
  struct Free {
    void operator()(pcre2_real_code_8* code) const;
  };
  std::unique_ptr<pcre2_real_code_8, Free> code_;
  std::string pattern_;
};

// `text` as a pattern that matches exactly it.
std::string escape_regex(std::string_view text);

}  // namespace mkv
