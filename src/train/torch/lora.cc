#include "train/torch/lora.h"

#include <algorithm>
#include <cmath>

#include "base/rng.h"
#include "store/message.h"

namespace mkv::training {
namespace {

struct Shape {
  size_t rows, cols;
};

Shape shape_of(Projection projection, const ModelConfig& c) {
  const size_t queries = c.num_heads * c.head_dim, keys = c.num_kv_heads * c.head_dim;
  switch (projection) {
    case Projection::query:
      return {queries, c.hidden_size};
    case Projection::key:
    case Projection::value:
      return {keys, c.hidden_size};
    case Projection::output:
      return {c.hidden_size, queries};
    case Projection::gate:
    case Projection::up:
      return {c.intermediate_size, c.hidden_size};
    case Projection::down:
      return {c.hidden_size, c.intermediate_size};
  }
  return {0, 0};
}

Adapter& adapter_of(LayerAdapters& layer, Projection projection) {
  Adapter* const all[kProjections] = {&layer.query, &layer.key, &layer.value, &layer.output,
                                      &layer.gate,  &layer.up,  &layer.down};
  return *all[static_cast<size_t>(projection)];
}

Tensor uniform(size_t rows, size_t cols, double bound, Rng& rng) {
  Tensor out = torch::empty({static_cast<int64_t>(rows), static_cast<int64_t>(cols)});
  float* data = out.data_ptr<float>();
  for (size_t i = 0; i < rows * cols; ++i) {
    data[i] = static_cast<float>((2.0 * rng.uniform() - 1.0) * bound);
  }
  return out;
}

Matrix<float> to_matrix(const Tensor& tensor) {
  const Tensor values = tensor.detach().to(torch::kCPU, torch::kFloat32).contiguous();
  Matrix<float> out(static_cast<size_t>(values.size(0)), static_cast<size_t>(values.size(1)));
  std::copy_n(values.data_ptr<float>(), values.numel(), out.data());
  return out;
}

}  // namespace

Result<Lora> Lora::create(const ModelConfig& config, const SftOptions& options) {
  if (options.lora_rank == 0) {
    return make_error(ErrorCode::invalid_argument, "train: LoRA of rank 0");
  }
  std::vector<Projection> chosen;
  for (const std::string& name : options.projections) {
    const auto* found = std::ranges::find(kProjectionNames, name);
    if (found == std::end(kProjectionNames)) {
      return make_error(ErrorCode::invalid_argument,
                        concat("train: projection ", printable(name),
                               ", expected q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj or "
                               "down_proj"));
    }
    chosen.push_back(static_cast<Projection>(found - std::begin(kProjectionNames)));
  }
  if (chosen.empty()) {
    return make_error(ErrorCode::invalid_argument, "train: LoRA on no projection");
  }
  std::ranges::sort(chosen);
  chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
  const torch::Device device(options.device);
  Lora lora;
  lora.layers_ = config.num_layers;
  lora.scale_ = options.lora_alpha / static_cast<double>(options.lora_rank);
  Rng rng(options.schedule.seed);
  for (size_t l = 0; l < config.num_layers; ++l) {
    for (const Projection projection : chosen) {
      const auto [rows, cols] = shape_of(projection, config);
      const double bound = 1.0 / std::sqrt(static_cast<double>(cols));
      lora.places_.push_back({l, projection});
      lora.tensors_.push_back(uniform(options.lora_rank, cols, bound, rng).to(device));
      lora.tensors_.push_back(torch::zeros(
          {static_cast<int64_t>(rows), static_cast<int64_t>(options.lora_rank)}, device));
    }
  }
  return lora;
}

std::vector<LayerAdapters> Lora::adapters(const std::vector<Tensor>& tensors) const {
  std::vector<LayerAdapters> layers(layers_);
  for (size_t i = 0; i < places_.size(); ++i) {
    adapter_of(layers[places_[i].layer], places_[i].projection) = {tensors[2 * i],
                                                                   tensors[2 * i + 1], scale_};
  }
  return layers;
}

WeightChanges Lora::changes() const {
  WeightChanges out;
  for (size_t i = 0; i < places_.size(); ++i) {
    out.push_back({places_[i].layer, places_[i].projection, to_matrix(tensors_[2 * i + 1]),
                   to_matrix(tensors_[2 * i]), static_cast<float>(scale_)});
  }
  return out;
}

}  // namespace mkv::training
