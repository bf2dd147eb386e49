// The files of src/pilot/page/, put into the program by cmake/MkvEmbed.cmake.
#pragma once

#include <string_view>

namespace mkv::page_files {

extern const std::string_view page_html, page_css, model_js, charts_js, page_js;

}  // namespace mkv::page_files
