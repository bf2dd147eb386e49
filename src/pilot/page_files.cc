#include "pilot/page_files.h"

#include <algorithm>
#include <functional>
#include <vector>

#include "base/check.h"
#include "store/message.h"

namespace mkv {
namespace {

// A "<" in JSON can only be within a string: written so, no text can end the script element.
std::string json_for_html(std::string_view json) {
  std::string out;
  for (const char c : json) c == '<' ? out += "\\u003c" : out += c;
  return out;
}

struct Part {
  size_t at = 0, size = 0;  // of the name on the page
  std::string_view text;
};

}  // namespace

Result<std::string> fill_page(std::string_view title, std::string_view body,
                              std::span<const std::string_view> scripts, const Json& report) {
  MKV_ASSIGN(const std::string json, dump_json(report));
  const std::string data = json_for_html(json);
  std::string script(page_files::charts_js);
  for (const std::string_view each : scripts) script += each;
  const std::string_view html = page_files::frame_html;
  std::vector<Part> parts;
  const auto add = [&](std::string_view name, std::string_view text) {
    const std::string mark = concat("/*{", name, "}*/");
    const size_t at = html.find(mark);
    MKV_CHECK(at != std::string_view::npos);
    parts.push_back({at, mark.size(), text});
  };
  add("title", title);
  add("page.css", page_files::page_css);
  add("body", body);
  add("report", data);
  add("scripts", script);
  // From the end of the page to its beginning: what was put in is not looked into.
  std::ranges::sort(parts, std::greater<>(), &Part::at);
  std::string page(html);
  for (const Part& part : parts) page.replace(part.at, part.size, part.text);
  return page;
}

}  // namespace mkv
