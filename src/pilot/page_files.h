// The files of src/pilot/page/, put into the program by cmake/MkvEmbed.cmake, and pages made of
// them.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "store/json.h"

namespace mkv {

namespace page_files {
extern const std::string_view frame_html, page_css, charts_js;  // of both pages
extern const std::string_view page_html, model_js, page_js;     // the pilot's
extern const std::string_view autopilot_html, autopilot_js;     // the autopilot's
}  // namespace page_files

// frame.html around a page's body, with its scripts (charts.js before them) and the report as data.
// Errors: text in the report that is not UTF-8.
Result<std::string> fill_page(std::string_view title, std::string_view body,
                              std::span<const std::string_view> scripts, const Json& report);

}  // namespace mkv
