#include "ops/planes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "base/buffer.h"
#include "base/check.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "ops/planes.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kQuadBytes = kTileRows * 4;  // of a quad's codes, or of parts of several quads'
using Codes = hn::CappedTag<uint8_t, kQuadBytes>;
using CodesV = hn::Vec<Codes>;

HWY_INLINE CodesV masked(CodesV v, uint8_t mask) { return hn::And(v, hn::Set(Codes(), mask)); }

// A group of Q8_0: eight quads of bytes.
void JoinBytes(const uint8_t* leading, const uint8_t* rest, uint8_t* to) {
  const Codes d;
  for (size_t quads = 0; quads < 4; ++quads, to += 2 * kQuadBytes) {
    for (size_t i = 0; i < kQuadBytes; i += hn::MaxLanes(d)) {
      const CodesV upper = hn::LoadU(d, leading + i), lower = hn::LoadU(d, rest + i);
      hn::StoreU(hn::Or(hn::ShiftLeft<4>(upper), masked(lower, 0x0f)), d, to + i);
      hn::StoreU(hn::Or(masked(upper, 0xf0), hn::ShiftRight<4>(lower)), d, to + kQuadBytes + i);
    }
    leading += kQuadBytes, rest += kQuadBytes;
  }
}

// Two quads of Q6_K, whose rests begin at bit kBit: their nibbles, and their bits above in place.
template <int kBit>
HWY_INLINE void join_nibbles(CodesV leading, CodesV rest, uint8_t* to, CodesV& top) {
  const CodesV first = masked(hn::ShiftRight<kBit>(rest), 3);
  const CodesV second = masked(hn::ShiftRight<kBit + 2>(rest), 3);
  const CodesV nibbles = hn::ShiftLeft<2>(masked(leading, 0x33));
  hn::StoreU(hn::Or(nibbles, hn::Or(first, hn::ShiftLeft<4>(second))), Codes(), to);
  const CodesV above = hn::ShiftRight<2>(leading);  // of the first in bits 0 and 1, then 4 and 5
  const CodesV both = hn::Or(masked(above, 3), masked(hn::ShiftRight<2>(above), 0x0c));
  top = hn::Or(top, hn::ShiftLeft<kBit>(both));
}

// A group of Q6_K: four vectors of nibbles, then two of bits above them.
void JoinSixBits(const uint8_t* leading, const uint8_t* rest, uint8_t* to) {
  const Codes d;
  for (size_t half = 0; half < 2; ++half) {
    for (size_t i = 0; i < kQuadBytes; i += hn::MaxLanes(d)) {
      const size_t at = 2 * half * kQuadBytes + i;
      const CodesV of_half = hn::LoadU(d, rest + half * kQuadBytes + i);
      CodesV top = hn::Zero(d);
      join_nibbles<0>(hn::LoadU(d, leading + at), of_half, to + at, top);
      join_nibbles<4>(hn::LoadU(d, leading + at + kQuadBytes), of_half, to + at + kQuadBytes, top);
      hn::StoreU(top, d, to + (4 + half) * kQuadBytes + i);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mkv {
HWY_EXPORT(JoinBytes);
HWY_EXPORT(JoinSixBits);

namespace {

constexpr size_t kGroup = 32, kQuad = kTileRows * 4;
constexpr size_t kLeading = kTileRows * kGroup / 2;  // bytes of a group

// What planes are made of; sizes in bytes, of 16 rows.
struct Shape {
  int rest_bits = 0;
  size_t groups = 0, factors = 0;                     // of a block
  size_t codes() const { return kLeading + rest(); }  // of a group in a tile
  size_t rest() const { return kTileRows * kGroup * static_cast<size_t>(rest_bits) / 8; }
  size_t tile_block() const { return factors + groups * codes(); }
  size_t leading_block() const { return factors + groups * kLeading; }
};

Shape shape_of(DType type) {
  if (type == DType::q8_0) return {4, 1, kTileRows * 2};
  if (type == DType::q6_k) return {2, 8, kTileRows * 18};
  return {};
}

struct Planes {
  explicit Planes(const Weight& w, size_t t)
      : shape(shape_of(w.type)), blocks(w.cols / info(w.type).block_elements) {
    MKV_CHECK(w.layout == Layout::planes && has_planes(w.type) && t < w.tiles());
    leading = t * blocks * shape.leading_block();
    rest = w.tiles() * blocks * shape.leading_block() + t * blocks * shape.groups * shape.rest();
  }
  Shape shape;
  size_t blocks;
  size_t leading, rest;  // where the tile's are
};

// Quads of a group one after the other, each a byte a column.
void read_codes(const Shape& shape, const uint8_t* from, uint8_t* quads) {
  if (shape.rest_bits == 4) {
    std::copy_n(from, shape.codes(), quads);
    return;
  }
  for (size_t q = 0; q < 8; ++q) {
    for (size_t i = 0; i < kQuad; ++i) {
      const int nibble = from[q / 2 * kQuad + i] >> q % 2 * 4 & 15;
      const int top = from[(4 + q / 4) * kQuad + i] >> q % 4 * 2 & 3;
      quads[q * kQuad + i] = static_cast<uint8_t>(nibble | top << 4);
    }
  }
}

// Finds out whether a tile's rests are even.
class Evenness {
 public:
  Evenness(DType type, size_t cols)
      : middle_(static_cast<float>((1 << shape_of(type).rest_bits) - 1) / 2),
        deviation_(std::sqrt(rest_variance(type))),
        most_of_row_(6 * deviation_ * std::sqrt(static_cast<float>(cols))) {}

  // sums[row][4]: of a group's rests; scales: halves that are 0 where its codes are worth nothing.
  void add(std::span<const uint16_t, kQuad> sums, const uint8_t* scales) {
    const float most = 5.5f * deviation_ * std::sqrt(static_cast<float>(kGroup));
    for (size_t r = 0; r < kTileRows; ++r) {
      uint16_t scale;
      std::memcpy(&scale, scales + r * sizeof(scale), sizeof(scale));
      if ((scale & 0x7fff) == 0) continue;
      const int sum = sums[r * 4] + sums[r * 4 + 1] + sums[r * 4 + 2] + sums[r * 4 + 3];
      const float off = static_cast<float>(sum) - middle_ * static_cast<float>(kGroup);
      even_ = even_ && std::abs(off) <= most;
      rows_[r] += off;
    }
  }
  bool even() const {
    return even_ &&
           std::ranges::all_of(rows_, [&](float off) { return std::abs(off) <= most_of_row_; });
  }

 private:
  float middle_, deviation_, most_of_row_;
  std::array<float, kTileRows> rows_{};
  bool even_ = true;
};

}  // namespace

bool has_planes(DType type) { return shape_of(type).rest_bits > 0; }

float rest_variance(DType type) {
  return static_cast<float>((1 << 2 * shape_of(type).rest_bits) - 1) / 12;
}

size_t columns_of_scale(DType type) { return type == DType::q6_k ? kGroup / 2 : kGroup; }

bool split_tile(std::span<const std::byte> tile, const Weight& w, size_t t, std::byte* data) {
  const Planes planes(w, t);
  const Shape& shape = planes.shape;
  MKV_CHECK(tile.size() == planes.blocks * shape.tile_block());
  const auto* from = reinterpret_cast<const uint8_t*>(tile.data());
  auto* leading = reinterpret_cast<uint8_t*>(data + planes.leading);
  auto* rest = reinterpret_cast<uint8_t*>(data + planes.rest);
  const int bits = shape.rest_bits, in_byte = 8 / bits, mask = (1 << bits) - 1;
  Evenness evenness(w.type, w.cols);
  for (size_t b = 0; b < planes.blocks; ++b) {
    const uint8_t* scales = from;
    leading = std::copy_n(from, shape.factors, leading);
    from += shape.factors;
    for (size_t g = 0; g < shape.groups; ++g, from += shape.codes(), leading += kLeading) {
      std::array<uint8_t, 8 * kQuad> quads;
      std::array<uint16_t, kQuad> sums{};
      read_codes(shape, from, quads.data());
      std::fill_n(leading, kLeading, uint8_t{0});
      std::fill_n(rest, shape.rest(), uint8_t{0});
      for (int q = 0; q < 8; ++q) {
        uint8_t* high = leading + static_cast<size_t>(q / 2) * kQuad;
        uint8_t* low = rest + static_cast<size_t>(q / in_byte) * kQuad;
        const uint8_t* codes = quads.data() + static_cast<size_t>(q) * kQuad;
        for (size_t i = 0; i < kQuad; ++i) {
          high[i] = static_cast<uint8_t>(high[i] | codes[i] >> bits << q % 2 * 4);
          low[i] = static_cast<uint8_t>(low[i] | (codes[i] & mask) << q % in_byte * bits);
          sums[i] = static_cast<uint16_t>(sums[i] + (codes[i] & mask));
        }
      }
      rest += shape.rest();
      evenness.add(sums, scales);
    }
  }
  return evenness.even();
}

const std::byte* leading_tile(const Weight& w, size_t t) { return w.data + Planes(w, t).leading; }

size_t rest_bytes(const Weight& w) {
  if (w.layout != Layout::planes || w.rows == 0) return 0;
  const Planes planes(w, 0);
  return w.tiles() * planes.blocks * planes.shape.groups * planes.shape.rest();
}

const std::byte* whole_tile(const Weight& w, size_t t) {
  if (w.layout == Layout::tiles) return w.tile(t);
  const Planes planes(w, t);
  const Shape& shape = planes.shape;
  thread_local Buffer<uint8_t> kept;
  kept.resize(std::max(kept.size(), planes.blocks * shape.tile_block()));
  const auto* leading = reinterpret_cast<const uint8_t*>(w.data + planes.leading);
  const auto* rest = reinterpret_cast<const uint8_t*>(w.data + planes.rest);
  uint8_t* to = kept.data();
  for (size_t b = 0; b < planes.blocks; ++b) {
    to = std::copy_n(leading, shape.factors, to);
    leading += shape.factors;
    for (size_t g = 0; g < shape.groups; ++g, to += shape.codes()) {
      if (shape.rest_bits == 4) {
        HWY_DYNAMIC_DISPATCH(JoinBytes)(leading, rest, to);
      } else {
        HWY_DYNAMIC_DISPATCH(JoinSixBits)(leading, rest, to);
      }
      leading += kLeading, rest += shape.rest();
    }
  }
  return reinterpret_cast<const std::byte*>(kept.data());
}

}  // namespace mkv
#endif  // HWY_ONCE
