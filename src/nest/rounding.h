// What other engines' 8-bit and 4-bit caches do to a row of keys or values: blocks of 32 values,
// each with a 16-bit scale. For comparisons in one engine; nothing is stored in these formats.
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

// In place. The size is a multiple of kRoundingBlock.
void round_row(Rounding rounding, std::span<float> row);

// What a value takes, its share of the scale included. Not for `none`.
double bits_per_value(Rounding rounding);

}  // namespace mkv
