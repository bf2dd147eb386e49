#include "text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "text/utf8.h"

namespace mkv {
namespace {

using Kind = NormalizerStep::Kind;

int utf8proc_options(Kind kind) {
  switch (kind) {
    case Kind::nfd:
      return UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    case Kind::nfkc:
      return UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT;
    case Kind::nfkd:
      return UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT;
    default:
      return UTF8PROC_STABLE | UTF8PROC_COMPOSE;
  }
}

Result<std::string> unicode_form_of_valid(std::string_view text, Kind kind) {
  utf8proc_uint8_t* mapped = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &mapped,
                   static_cast<utf8proc_option_t>(utf8proc_options(kind)));
  const std::unique_ptr<utf8proc_uint8_t, void (*)(void*)> owner(mapped, std::free);
  if (size < 0) {
    return make_error(ErrorCode::capacity, "Unicode normalization of " +
                                               std::to_string(text.size()) +
                                               " bytes: " + utf8proc_errmsg(size));
  }
  return std::string(reinterpret_cast<const char*>(mapped), static_cast<size_t>(size));
}

Result<std::string> unicode_form(const std::string& text, Kind kind) {
  const auto is_ascii = [](char c) { return (static_cast<uint8_t>(c) & 0x80u) == 0; };
  if (std::all_of(text.begin(), text.end(), is_ascii)) return text;
  std::string out;
  for (const Utf8Run& run : utf8_runs(text)) {
    if (run.valid) {
      MKV_ASSIGN(const std::string form, unicode_form_of_valid(run.text, kind));
      out += form;
    } else {
      out += run.text;
    }
  }
  return out;
}

std::string replace_all(const std::string& text, const std::string& from, const std::string& to) {
  std::string out;
  size_t at = 0;
  for (size_t hit = text.find(from); hit != std::string::npos; hit = text.find(from, at)) {
    out.append(text, at, hit - at);
    out += to;
    at = hit + from.size();
  }
  out.append(text, at);
  return out;
}

std::string strip(const std::string& text, const NormalizerStep& step) {
  size_t begin = 0, end = text.size();
  while (step.left && begin < end) {
    const CodePoint c = code_point_at(text, begin);
    if (!c.valid || !is_space(c.value)) break;
    begin += c.bytes;
  }
  while (step.right && begin < end) {
    const CodePoint c = code_point_before(text, end);
    if (!c.valid || !is_space(c.value)) break;
    end -= c.bytes;
  }
  return text.substr(begin, end - begin);
}

}  // namespace

Result<std::string> normalize(std::string_view text, std::span<const NormalizerStep> steps) {
  std::string out(text);
  for (const NormalizerStep& step : steps) {
    if (out.empty()) break;
    switch (step.kind) {
      case Kind::prepend:
        out.insert(0, step.to);
        break;
      case Kind::replace:
        out = replace_all(out, step.from, step.to);
        break;
      case Kind::strip:
        out = strip(out, step);
        break;
      default: {
        MKV_ASSIGN(out, unicode_form(out, step.kind));
      }
    }
  }
  return out;
}

}  // namespace mkv
