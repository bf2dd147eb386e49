// Products of quantised weights with activations as 16-bit integers: both sides stay integers
// within a group of 32 elements (IntegerRows) or a run of some groups (WordRows), whose sum is
// exact, and one float multiplication brings it to scale.
//
// The activations of a group of IntegerRows are scale * value with |value| <= kLargestWord, scale =
// largest / kLargestWord. Their rounding is at most 1/65278 of the group's largest element.
// docs/decisions/0008 has the reason for 16 bits: with 8 the model's output changes by a KL of
// 0.003; docs/decisions/0029 that for runs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/buffer.h"
#include "base/view.h"
#include "ops/weight.h"

namespace mkv {

inline constexpr size_t kIntegerGroup = 32;  // elements

// A word splits in two signed bytes, 256 * high + low, both at most 127.
inline constexpr int kLargestWord = 127 * 256 + 127;

// Words of activations, [tokens x groups x 32]: a group's even elements, then its odd ones. Groups
// that follow each other may share a scale.
struct WordsView {
  const int16_t* values;
  const float* scales;  // [tokens x groups / together]
  size_t tokens, groups, together;

  size_t runs() const { return groups / together; }
  const int16_t* row(size_t t) const { return values + t * groups * kIntegerGroup; }
  const float* row_scales(size_t t) const { return scales + t * runs(); }
};

enum class Split : bool { no, yes };

// Activations [tokens x groups * 32]. Reused from call to call: grows, never shrinks.
struct IntegerRows {
  size_t tokens = 0, groups = 0;
  bool split = false;            // whether there are bytes
  Buffer<int16_t> values;        // as of WordsView
  Buffer<int8_t> bytes;          // [tokens x groups x 64]: high bytes in order, then low ones
  Buffer<float> scales, sums;    // [tokens x groups]; sums = scale * sum of the values
  Buffer<int32_t> integer_sums;  // [tokens x groups x 2]: of the first 16 elements, of the last

  void reshape(size_t token_count, size_t cols, Split wanted);
  // A row is asked of the other processors, which have read what was in it, or have made it.
  void prefetch_row_to_write(size_t t) const;
  void prefetch_row(size_t t, bool as_bytes) const;
  WordsView words() const { return {values.data(), scales.data(), tokens, groups, 1}; }
  const int16_t* row(size_t t) const { return values.data() + t * groups * kIntegerGroup; }
  const int8_t* row_bytes(size_t t) const { return bytes.data() + t * groups * 2 * kIntegerGroup; }
  const int32_t* row_integer_sums(size_t t) const { return integer_sums.data() + t * groups * 2; }
  const float* row_scales(size_t t) const { return scales.data() + t * groups; }
  const float* row_sums(size_t t) const { return sums.data() + t * groups; }
};

// Activations for panels of words with one scale a row. As many groups share a scale as divide a
// row's, at most kMostTogether, so that less is brought to scale. What a run's words add up to,
// without signs, times the largest word of a weight is below 2^31: sums of 32 bits hold all
// products of a run, whatever their signs.
inline constexpr size_t kMostTogether = 8;
inline constexpr float kLargestWeightWord = 10600, kLargestWordSum = 202000;
static_assert((kLargestWordSum + kMostTogether * kIntegerGroup / 2 + 4) * (kLargestWeightWord + 2) <
              0x1p31f);  // rounding may add so much

struct WordRows {
  size_t tokens = 0, groups = 0, together = 0;
  Buffer<int16_t> values;
  Buffer<float> scales;

  void reshape(size_t token_count, size_t cols);
  void prefetch_row_to_write(size_t t) const;
  WordsView words() const { return {values.data(), scales.data(), tokens, groups, together}; }
};

// Whether the instruction set in use has these kernels: unless there are no vectors at all.
// Weights in rows are multiplied as floats (ops/weight_kernels.h).
bool has_integer_products();
// Whether panels are worth it: on x86 it is faster than float products, but for
// AVX-512 without VNNI. And up to how many tokens multiply_integer_tiles is faster than it.
bool has_integer_panels();
size_t few_for_integer_panels();

// Rows first ... last-1 of x [tokens x cols] into `out`, which has its shape already. A group with
// an infinity or a NaN gets the scale NaN, so that what it is multiplied into is no number either.
void to_integer_rows(View<const float> x, size_t first, size_t last, IntegerRows& out);
void to_word_rows(View<const float> x, size_t first, size_t last, WordRows& out);

// y[t][r] = x[t] . row r of w, for the rows of the tiles first ... last-1 of w and all tokens of x,
// which are split; for few tokens. What a token gets does not depend on the tokens beside it, nor
// on the range.
void multiply_integer_tiles(const IntegerRows& x, const Weight& w, size_t first, size_t last,
                            View<float> y);

// One token with the first plane of tiles first ... last-1 of w, whose layout is planes
// (ops/planes.h). y [rows] is the product with all rests in the middle. What a row's rests add is
// normal; spread [cols / columns_of_scale] is rest_variance * sum x^2 of the columns of a scale,
// times kRestDeviations^2 (ops/likely_rows.h). most [tiles] is the largest of a tile that is so
// many deviations above a y; infinity if anything there is no number.
void multiply_leading_tiles(const IntegerRows& x, std::span<const float> spread, const Weight& w,
                            size_t first, size_t last, std::span<float> y, std::span<float> most);

// The same for the integer_panel_rows() rows of w from `first` (fewer at its end), for many tokens:
// the rows are unpacked once into a panel that all tokens read.
// Types with exact words, those of 8 bits, keep codes and scales as they are, and give the bits
// that tiles give. Of others every row gets one scale: a weight is off by at most 1.5 /
// kLargestWeightWord of the largest that its row's factors allow.
bool has_exact_words(DType type);
size_t integer_panel_rows();
void multiply_exact_panel(const IntegerRows& x, const Weight& w, size_t first, View<float> y);
void multiply_word_panel(const WordRows& x, const Weight& w, size_t first, View<float> y);

}  // namespace mkv
