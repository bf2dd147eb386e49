// A golden model whose keys and values need only half of their columns, so that a nest with the
// right bases loses nothing at 50 %: every second pair of a key is zero, and the values of a head
// lie in a subspace of their own.
#pragma once

#include <torch/torch.h>

#include <cstring>
#include <filesystem>
#include <vector>

#include "eval/tiny_model.h"
#include "store/safetensors.h"

namespace mkv::training {

// What a head's rows of a projection are multiplied with from the left: [head_dim x head_dim].
inline torch::Tensor half_of(int64_t head_dim, bool key) {
  if (key) {
    const torch::Tensor even =
        torch::arange(head_dim).remainder(2).eq(0);  // also of i + head_dim/2
    return torch::diag(even.to(torch::kFloat32));
  }
  const torch::Tensor basis = std::get<0>(torch::linalg_qr(torch::randn({head_dim, head_dim / 2})));
  return basis.mm(basis.t());
}

// Written to `folder`, which must not be there.
inline Model half_rank_model(const std::filesystem::path& folder) {
  const auto from = std::filesystem::path(MKV_SOURCE_DIR) / "tests/golden/models/llama";
  std::filesystem::copy(from, folder);
  const auto head_dim = static_cast<int64_t>(tiny_model().config().head_dim);
  const SafetensorsFile file = must(SafetensorsFile::open(from / "model.safetensors"));
  std::vector<RawTensor> tensors(file.raw_tensors().begin(), file.raw_tensors().end());
  std::vector<torch::Tensor> changed;
  torch::manual_seed(3);
  for (RawTensor& tensor : tensors) {
    const bool key = tensor.name.ends_with("k_proj.weight");
    if (!key && !tensor.name.ends_with("v_proj.weight")) continue;
    torch::Tensor weight = torch::empty({static_cast<int64_t>(tensor.shape[0]) / head_dim, head_dim,
                                         static_cast<int64_t>(tensor.shape[1])});
    std::memcpy(weight.data_ptr<float>(), tensor.bytes.data(), tensor.bytes.size());
    for (int64_t h = 0; h < weight.size(0); ++h) {
      weight[h].copy_(half_of(head_dim, key).mm(weight[h]));
    }
    tensor.bytes =
        std::as_bytes(std::span(weight.data_ptr<float>(), static_cast<size_t>(weight.numel())));
    changed.push_back(weight);
  }
  EXPECT_TRUE(write_safetensors(folder / "model.safetensors", tensors, {}));
  return must(Model::load(folder));
}

}  // namespace mkv::training
