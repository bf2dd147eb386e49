// What llama.cpp's 8-bit and 4-bit caches do to a row of keys or values: each head's are turned by
// a Hadamard matrix (since April 2026, where head_dim is a multiple of 64), then blocks of 32
// values get a 16-bit scale. For comparisons in one engine; nothing is stored in these formats.
//
//   q8_0  scale = largest |x| / 127, x -> scale * round(x / scale):               8.5 bits a value
//   q4_0  scale = (the x of largest |x|) / -8, x -> scale * (floor(x / scale + 8.5) - 8), at most
//         15 steps up:                                                            4.5 bits a value
//
// Blocks follow the order of a head's dimensions in the cache (Hugging Face's); an engine that
// keeps rotary pairs side by side puts other keys into a block, and the same number of them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace mkv {

enum class Rounding : uint8_t { none, q8_0, q4_0 };

inline constexpr size_t kRoundingBlock = 32;

// Values that are turned together: the largest power of two that divides head_dim, or 1 (nothing
// turns) where head_dim is no multiple of 64.
size_t rounding_rotation(size_t head_dim);

// In place: turned, rounded, turned back. The size is a multiple of kRoundingBlock and of head_dim.
void round_row(Rounding rounding, size_t head_dim, std::span<float> row);

// What a value takes, its share of the scale included. Not for `none`.
double bits_per_value(Rounding rounding);

}  // namespace mkv
