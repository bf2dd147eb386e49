// Python's string operations on UTF-8: indices and lengths count code points.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace mkv::jinja {

size_t text_length(std::string_view text);
// The byte at which code point `index` begins; text.size() beyond the end.
size_t byte_of(std::string_view text, size_t index);

enum class Side : uint8_t { left, right, both };
// Without `chars`, white space.
std::string_view strip(std::string_view text, Side side, std::optional<std::string_view> chars);

// str.split and str.rsplit: by `separator`, or by runs of white space; at most `limit` times.
std::vector<std::string_view> split(std::string_view text,
                                    std::optional<std::string_view> separator, size_t limit,
                                    bool from_right);
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);
size_t count_of(std::string_view text, std::string_view part);

}  // namespace mkv::jinja
