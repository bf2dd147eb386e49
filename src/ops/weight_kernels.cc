#include "ops/weight_kernels.h"

#include <algorithm>
#include <cstring>

#include "base/buffer.h"
#include "ops/tiles.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/weight_kernels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"
#include "ops/decode-inl.h"

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {

template <class Decoder, size_t kGroup = 0>
HWY_INLINE void store_groups(const Decoder& decoder, float* to) {
  GroupV v[kVectors];
  decoder.template decode<kGroup>(v);
  for (size_t i = 0; i < kVectors; ++i) {
    hn::StoreU(v[i], Group32(), to + kGroup * kGroupElements + i * kLanes);
  }
  if constexpr (kGroup + 1 < Decoder::kGroups) store_groups<Decoder, kGroup + 1>(decoder, to);
}

template <class Decoder>
void dequantize_with(const uint8_t* row, size_t cols, float* out) {
  constexpr size_t kBlock = Decoder::kGroups * kGroupElements;
  for (; cols >= kBlock; cols -= kBlock, row += Decoder::kBytes, out += kBlock) {
    store_groups(Decoder(row), out);
  }
  if constexpr (Decoder::kPlain) {
    if (cols == 0) return;
    uint8_t padded[Decoder::kBytes] = {};
    float values[kBlock];
    std::memcpy(padded, row, cols * (Decoder::kBytes / kBlock));
    store_groups(Decoder(padded), values);
    std::memcpy(out, values, cols * sizeof(float));
  }
}

// Sums of kRows rows with kTokens tokens. Two chains a sum, however many there are: so a token's
// result is the same bit for bit in every tile shape.
template <class Decoder, size_t kRows, size_t kTokens>
struct Tile {
  HWY_INLINE Tile() {}  // an implicit one lacks the target that GCC asks of NEON's vectors
  GroupV sums[kRows][kTokens][2];

  HWY_INLINE void clear() {
    for (auto& row : sums) {
      for (auto& token : row) token[0] = token[1] = hn::Zero(Group32());
    }
  }
  // One block of each row, `stride` bytes apart.
  HWY_INLINE void add(const uint8_t* block, size_t stride, const float* x, size_t x_stride) {
    for (size_t r = 0; r < kRows; ++r) add_groups<0>(Decoder(block + r * stride), r, x, x_stride);
  }
  template <size_t kGroup>
  HWY_INLINE void add_groups(const Decoder& decoder, size_t r, const float* x, size_t x_stride) {
    GroupV w[kVectors];
    decoder.template decode<kGroup>(w);
    for (size_t t = 0; t < kTokens; ++t) {
      const float* from = x + t * x_stride + kGroup * kGroupElements;
      for (size_t i = 0; i < kVectors; ++i) {
        const GroupV in = hn::LoadU(Group32(), from + i * kLanes);
        sums[r][t][i % 2] = hn::MulAdd(w[i], in, sums[r][t][i % 2]);
      }
    }
    if constexpr (kGroup + 1 < Decoder::kGroups) add_groups<kGroup + 1>(decoder, r, x, x_stride);
  }
};

// Adds the last `cols` elements of the rows of a type without blocks, with zeros behind them.
template <class Decoder, size_t kRows, size_t kTokens>
HWY_INLINE void add_padded(Tile<Decoder, kRows, kTokens>& tile, const uint8_t* block, size_t stride,
                           const float* x, size_t x_stride, size_t cols) {
  uint8_t rows[kRows][Decoder::kBytes] = {};
  float tokens[kTokens][kGroupElements] = {};
  for (size_t r = 0; r < kRows; ++r) {
    std::memcpy(rows[r], block + r * stride, cols * (Decoder::kBytes / kGroupElements));
  }
  for (size_t t = 0; t < kTokens; ++t) {
    std::memcpy(tokens[t], x + t * x_stride, cols * sizeof(float));
  }
  tile.add(rows[0], Decoder::kBytes, tokens[0], kGroupElements);
}

template <class Decoder, size_t kRows, size_t kTokens>
void multiply_tile(View<const float> x, const Weight& w, size_t row, size_t token, View<float> y) {
  constexpr size_t kBlock = Decoder::kGroups * kGroupElements;
  const auto* block = reinterpret_cast<const uint8_t*>(w.row(row));
  const float* in = x.data + token * x.stride;
  const size_t stride = row_bytes(w.type, w.cols);
  Tile<Decoder, kRows, kTokens> tile;
  tile.clear();
  size_t cols = w.cols;
  for (; cols >= kBlock; cols -= kBlock, block += Decoder::kBytes, in += kBlock) {
    tile.add(block, stride, in, x.stride);
  }
  if constexpr (Decoder::kPlain) {
    if (cols != 0) add_padded(tile, block, stride, in, x.stride, cols);
  }
  for (size_t r = 0; r < kRows; ++r) {
    for (size_t t = 0; t < kTokens; ++t) {
      const GroupV sum = hn::Add(tile.sums[r][t][0], tile.sums[r][t][1]);
      y.at(token + t, row + r) = hn::GetLane(hn::SumOfLanes(Group32(), sum));
    }
  }
}

// Four tokens with all rows, then the next four: they stay in the L1 cache, and the rows of a task
// in L2.
template <class Decoder>
void multiply_with(View<const float> x, const Weight& w, size_t first, size_t last, View<float> y) {
  size_t t = 0;
  for (; t + 4 <= x.rows; t += 4) {
    for (size_t r = first; r < last; ++r) multiply_tile<Decoder, 1, 4>(x, w, r, t, y);
  }
  for (; t + 2 <= x.rows; t += 2) {
    for (size_t r = first; r < last; ++r) multiply_tile<Decoder, 1, 2>(x, w, r, t, y);
  }
  for (; t < x.rows; ++t) {
    size_t r = first;
    if constexpr (Decoder::kGroups == 1) {  // the code of two K blocks at once spills registers
      for (; r + 2 <= last; r += 2) multiply_tile<Decoder, 2, 1>(x, w, r, t, y);
    }
    for (; r < last; ++r) multiply_tile<Decoder, 1, 1>(x, w, r, t, y);
  }
}

// fn(decoder type) for a type of weights.
template <class T>
struct Type {
  using type = T;
};
template <class Fn>
HWY_INLINE void with_decoder(DType type, const Fn& fn) {
  switch (type) {
    case DType::f32:
      return fn(Type<F32Decoder>());
    case DType::f16:
      return fn(Type<F16Decoder>());
    case DType::bf16:
      return fn(Type<BF16Decoder>());
    case DType::q4_0:
      return fn(Type<NibbleDecoder<false, false>>());
    case DType::q4_1:
      return fn(Type<NibbleDecoder<false, true>>());
    case DType::q5_0:
      return fn(Type<NibbleDecoder<true, false>>());
    case DType::q5_1:
      return fn(Type<NibbleDecoder<true, true>>());
    case DType::q8_0:
      return fn(Type<Q8_0Decoder>());
    case DType::q4_k:
      return fn(Type<K4Decoder<false>>());
    case DType::q5_k:
      return fn(Type<K4Decoder<true>>());
    case DType::q6_k:
      return fn(Type<Q6KDecoder>());
  }
}

void DequantizeRows(const Weight& w, size_t first, View<float> out) {
  with_decoder(w.type, [&](auto decoder) {
    for (size_t r = 0; r < out.rows; ++r) {
      dequantize_with<typename decltype(decoder)::type>(
          reinterpret_cast<const uint8_t*>(w.row(first + r)), w.cols, out.row(r).data());
    }
  });
}

void MultiplyRows(View<const float> x, const Weight& w, size_t first, size_t last, View<float> y) {
  with_decoder(w.type, [&](auto decoder) {
    multiply_with<typename decltype(decoder)::type>(x, w, first, last, y);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mkv {
HWY_EXPORT(DequantizeRows);
HWY_EXPORT(MultiplyRows);

namespace {

// Row r of a weight in tiles as a weight of one row, in a buffer of the calling thread.
Weight unpacked_row(const Weight& w, size_t r) {
  thread_local Buffer<std::byte> kept;
  const size_t bytes = row_bytes(w.type, w.cols);
  kept.resize(std::max(kept.size(), bytes));
  unpack_row(w, r, {kept.data(), bytes});
  return {kept.data(), w.type, 1, w.cols};
}

}  // namespace

void dequantize_rows(const Weight& w, size_t first, View<float> out) {
  MKV_CHECK(first + out.rows <= w.rows && out.cols == w.cols);
  MKV_CHECK(w.cols % info(w.type).block_elements == 0);
  if (w.layout == Layout::rows) return HWY_DYNAMIC_DISPATCH(DequantizeRows)(w, first, out);
  for (size_t r = 0; r < out.rows; ++r) {
    HWY_DYNAMIC_DISPATCH(DequantizeRows)(unpacked_row(w, first + r), 0, out.rows_from(r, 1));
  }
}

void multiply_rows(View<const float> x, const Weight& w, size_t first, size_t last, View<float> y) {
  MKV_CHECK(x.cols == w.cols && y.cols == w.rows && x.rows == y.rows && last <= w.rows);
  MKV_CHECK(w.cols % info(w.type).block_elements == 0);
  if (w.layout == Layout::rows) return HWY_DYNAMIC_DISPATCH(MultiplyRows)(x, w, first, last, y);
  for (size_t r = first; r < last; ++r) {
    const View<float> column(&y.at(0, r), y.rows, 1, y.stride);
    HWY_DYNAMIC_DISPATCH(MultiplyRows)(x, unpacked_row(w, r), 0, 1, column);
  }
}

}  // namespace mkv
#endif  // HWY_ONCE
