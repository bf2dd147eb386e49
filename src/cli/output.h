// Results on stdout: JSON objects and aligned text.
#pragma once

#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace mkv::cli {

using OrderedJson = nlohmann::ordered_json;

// Bytes that are no UTF-8 become U+FFFD.
inline void print_json(const OrderedJson& json) {
  const std::string text = json.dump(2, ' ', false, OrderedJson::error_handler_t::replace);
  std::fprintf(stdout, "%s\n", text.c_str());
}

// printf's format into a string.
[[gnu::format(printf, 1, 2)]] std::string format(const char* pattern, ...);

// "94.3 MB", "512 B": powers of 1000.
std::string byte_text(double bytes);

// Rows under a heading, columns aligned; the first to the left, the rest to the right.
void print_table(const std::vector<std::vector<std::string>>& rows);

}  // namespace mkv::cli
