#include "model/model.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "model/model_parts.h"
#include "ops/planes.h"
#include "store/hash.h"
#include "store/mapped_file.h"
#include "store/message.h"

namespace mkv {
namespace {

// Tensors in the order of their names, so that the order in the file does not matter.
std::string hash_tensors(const TensorTable& tensors) {
  std::vector<const TensorView*> sorted;
  for (const TensorView& tensor : tensors) sorted.push_back(&tensor);
  std::ranges::sort(sorted, {},
                    [](const TensorView* tensor) -> const std::string& { return tensor->name; });
  Sha256 hash;
  for (const TensorView* tensor : sorted) {
    // The line is unambiguous: only the name, which comes last, may hold anything.
    const std::string line =
        concat(info(tensor->type).name, " ", shape_text(tensor->shape), " ", tensor->size_bytes,
               " ", tensor->name.size(), " ", tensor->name, "\n");
    hash.update(std::as_bytes(std::span(line)));
    hash.update({tensor->data, tensor->size_bytes});
    drop_pages({tensor->data, tensor->size_bytes});
  }
  return hash.hex();
}

}  // namespace

Model::Model(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
Model::Model(Model&&) noexcept = default;
Model& Model::operator=(Model&&) noexcept = default;
Model::~Model() = default;

const ModelConfig& Model::config() const { return parts_->config; }

const Tokenizer& Model::tokenizer() const { return *parts_->tokenizer; }

const std::optional<std::string>& Model::chat_template() const { return parts_->chat_template; }

const Weight& Model::output_projection(size_t layer) const {
  MKV_CHECK(layer < parts_->weights.layers.size());
  return parts_->weights.layers[layer].output;
}

const ModelWeights& Model::weights() const { return parts_->weights; }

bool Model::interleaved_qk() const { return parts_->interleaved_qk; }

size_t Model::weight_bytes() const { return count(parts_->weights).bytes; }

size_t Model::weight_bytes_of_token() const {
  const ModelWeights& w = parts_->weights;
  const bool tied = w.output.data == w.embedding.data;
  return weight_bytes() - (tied ? 0 : w.embedding.bytes()) - rest_bytes(w.output);
}

size_t Model::parameters() const { return count(parts_->weights).parameters; }

std::string Model::weights_hash() const {
  std::call_once(parts_->hash_once, [this] { parts_->hash = hash_tensors(parts_->tensors()); });
  return parts_->hash;
}

KvCache Model::exact_cache(size_t capacity, KvOptions options) const {
  return KvCache(parts_->config.kv_shape(), parts_->config.layer_types, capacity, options);
}

}  // namespace mkv
