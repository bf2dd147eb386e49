// What a Model consists of; shared by the files that implement it, not for others.
#pragma once

#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "model/model.h"
#include "model/pack_weights.h"
#include "model/weights.h"
#include "store/gguf.h"
#include "store/safetensors.h"
#include "text/tokenizer_data.h"

namespace mkv {

struct Model::Parts {
  using File = std::variant<GgufFile, SafetensorsFolder>;
  explicit Parts(File source) : file(std::move(source)) {}

  // Everything else, once the file is open.
  Result<void> assemble(ModelDescription description, const TensorNames& names,
                        TokenizerData tokenizer_data, const std::filesystem::path& path);
  const TensorTable& tensors() const {
    return std::visit([](const auto& f) -> const TensorTable& { return f.tensors(); }, file);
  }

  File file;  // owns the bytes of `weights` that are not packed
  PackedWeights packed;
  ModelConfig config;
  bool interleaved_qk = false;
  ModelWeights weights;
  std::unique_ptr<Tokenizer> tokenizer;
  std::optional<std::string> chat_template;

  std::once_flag hash_once;
  std::string hash;
};

}  // namespace mkv
