// Normalizer: what a tokenizer does to the text before it cuts it up.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/tokenizer_data.h"

namespace mkv {

// Applies the steps; an empty text stays empty. Bytes that are not valid UTF-8 stay as they are.
Result<std::string> normalize(std::string_view text, std::span<const NormalizerStep> steps);

}  // namespace mkv
