// A fine-tuned model as a file of its own: the model that it was made from, with changed
// projections.
#pragma once

#include <filesystem>
#include <optional>

#include "base/dtype.h"
#include "base/result.h"
#include "model/model.h"
#include "model/weight_change.h"

namespace mkv {

// Copies the model at `source` (which `model` was loaded from) to `target` with W + scale up down
// in place of W: a GGUF file to a GGUF file, a Hugging Face folder to a folder with one
// model.safetensors and all that lies beside the weights. Changed matrices get `type`, one of F32,
// F16, BF16 and (GGUF) Q8_0; without one, F16 in a GGUF file and the tensor's own in a folder. All
// else stays as it is, byte by byte. Needs memory for what changes.
// Errors: a type that does not fit, a change of another shape than its matrix, files.
Result<void> export_model(const Model& model, const std::filesystem::path& source,
                          const WeightChanges& changes, std::optional<DType> type,
                          const std::filesystem::path& target);

}  // namespace mkv
