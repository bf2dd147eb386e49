// What fine-tuning changes of a model: low-rank additions to its projections (LoRA,
// arXiv:2106.09685).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/buffer.h"

namespace mkv {

enum class Projection : uint8_t { query, key, value, output, gate, up, down };
inline constexpr size_t kProjections = 7;
// As Hugging Face calls them: q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj.
inline constexpr std::string_view kProjectionNames[kProjections] = {
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"};

// W + scale up down; rows in Hugging Face's order.
struct WeightChange {
  size_t layer = 0;
  Projection projection = Projection::query;
  Matrix<float> up;    // [rows x rank]
  Matrix<float> down;  // [rank x cols]
  float scale = 1.0f;
};
using WeightChanges = std::vector<WeightChange>;

}  // namespace mkv
