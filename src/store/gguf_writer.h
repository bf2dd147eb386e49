// Writes GGUF version 3 (see gguf.h): what was read from another file, with other tensors.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>

#include "base/result.h"
#include "store/gguf.h"

namespace mkv {

// Metadata is copied as it is, but for `numbers`, which replace or add unsigned 32-bit values; the
// data lies on `general.alignment` of the metadata, or on 32. Atomic and durable (see AtomicFile);
// the same input gives the same bytes. Errors: a tensor whose bytes are not its shape's.
Result<void> write_gguf(const std::filesystem::path& path, const GgufMetadata& metadata,
                        const std::map<std::string, uint32_t>& numbers,
                        std::span<const TensorView> tensors);

}  // namespace mkv
