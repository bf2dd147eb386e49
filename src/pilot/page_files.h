// The files of src/pilot/page/, put into the program by cmake/MkvEmbed.cmake, and pages made of
// them.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "store/json.h"

namespace mkv {

namespace page_files {
extern const std::string_view page_html, page_css, model_js, charts_js, page_js, autopilot_html,
    autopilot_js;
}  // namespace page_files

// `html` with each "/*{NAME}*/" replaced by the text of that name, and "/*{report}*/" by the
// report. All names must be there, as the page is ours. Errors: text in the report that is not
// UTF-8.
Result<std::string> fill_page(std::string_view html,
                              std::span<const std::pair<std::string_view, std::string_view>> files,
                              const Json& report);

}  // namespace mkv
