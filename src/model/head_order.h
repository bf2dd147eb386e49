// The order of a head's elements. GGUF files of the llama architecture store rows of W_q and W_k
// so that RoPE turns neighbours: their row 2i is Hugging Face's row i, 2i+1 is row i + head_dim/2.
// Everything outside the loaded weights uses Hugging Face's order, in which halves turn together.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>

namespace mkv {

// Brings heads side by side from the interleaved to Hugging Face's order, in place; `scratch` has
// room for one head.
inline void separate_halves(std::span<float> heads, size_t head_dim, std::span<float> scratch) {
  const size_t half = head_dim / 2;
  for (size_t at = 0; at < heads.size(); at += head_dim) {
    float* head = heads.data() + at;
    std::copy_n(head, head_dim, scratch.data());
    for (size_t i = 0; i < half; ++i) {
      head[i] = scratch[2 * i];
      head[i + half] = scratch[2 * i + 1];
    }
  }
}

// The way back, for one head.
inline void interleave_halves(std::span<float> head, std::span<float> scratch) {
  const size_t half = head.size() / 2;
  std::copy_n(head.data(), head.size(), scratch.data());
  for (size_t i = 0; i < half; ++i) {
    head[2 * i] = scratch[i];
    head[2 * i + 1] = scratch[i + half];
  }
}

}  // namespace mkv
