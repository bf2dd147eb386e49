// The nest's half of `matryoshka inspect`.
#pragma once

#include <string>

#include "nest/nest.h"

namespace mkv::cli {

bool is_nest(const std::string& path);
Result<void> print_nest_json(const Nest& nest);
Result<void> print_nest_text(const Nest& nest);

}  // namespace mkv::cli
