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

// Two quads of a group, [2][kQuadBytes], from what both have in one byte of each plane.
constexpr size_t kQuadBytes = kTileRows * 4;

#if HWY_TARGET == HWY_SCALAR

void JoinQuads(const uint8_t* leading, const uint8_t* rest, uint8_t* to) {
  for (size_t i = 0; i < kQuadBytes; ++i) {
    to[i] = static_cast<uint8_t>(leading[i] << 4 | (rest[i] & 15));
    to[kQuadBytes + i] = static_cast<uint8_t>((leading[i] & 0xf0) | rest[i] >> 4);
  }
}

#else

HWY_INLINE void JoinQuads(const uint8_t* leading, const uint8_t* rest, uint8_t* to) {
  const hn::CappedTag<uint8_t, kQuadBytes> d;
  const hn::Repartition<uint16_t, decltype(d)> d16;  // bytes have no shifts
  const auto low = hn::Set(d, 0x0f), high = hn::Set(d, 0xf0);
  for (size_t i = 0; i < kQuadBytes; i += hn::MaxLanes(d)) {
    const auto upper = hn::LoadU(d, leading + i), lower = hn::LoadU(d, rest + i);
    const auto up = hn::BitCast(d, hn::ShiftLeft<4>(hn::BitCast(d16, upper)));
    const auto down = hn::BitCast(d, hn::ShiftRight<4>(hn::BitCast(d16, lower)));
    hn::StoreU(hn::Or(hn::And(up, high), hn::And(lower, low)), d, to + i);
    hn::StoreU(hn::Or(hn::And(upper, high), hn::And(down, low)), d, to + kQuadBytes + i);
  }
}

#endif

// `groups` groups: a tile of the first plane, whose groups begin with `scales` bytes, and its other
// bits.
void JoinTile(const uint8_t* leading, const uint8_t* rest, size_t groups, size_t scales,
              uint8_t* to) {
  for (size_t g = 0; g < groups; ++g) {
    to = std::copy_n(leading, scales, to);
    leading += scales;
    for (size_t quads = 0; quads < 8; quads += 2) {
      JoinQuads(leading, rest, to);
      leading += kQuadBytes, rest += kQuadBytes, to += 2 * kQuadBytes;
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mkv {
HWY_EXPORT(JoinTile);

namespace {

// Of a group of 16 rows, in bytes.
constexpr size_t kGroup = 32, kScales = kTileRows * 2, kCodes = kTileRows * kGroup;
constexpr size_t kPlane = kCodes / 2;

size_t groups_of(const Weight& w) { return w.cols / kGroup; }
size_t leading_at(const Weight& w, size_t t) { return t * groups_of(w) * (kScales + kPlane); }
size_t rest_at(const Weight& w, size_t t) {
  return leading_at(w, w.tiles()) + t * groups_of(w) * kPlane;
}

void check_planes(const Weight& w, size_t t) {
  MKV_CHECK(w.layout == Layout::planes && has_planes(w.type) && t < w.tiles());
}

}  // namespace

bool has_planes(DType type) { return type == DType::q8_0; }

void split_tile(std::span<const std::byte> tile, const Weight& w, size_t t, std::byte* data) {
  check_planes(w, t);
  MKV_CHECK(tile.size() == groups_of(w) * (kScales + kCodes));
  const std::byte* from = tile.data();
  std::byte *leading = data + leading_at(w, t), *rest = data + rest_at(w, t);
  constexpr size_t kQuad = kTileRows * 4;
  for (size_t g = 0; g < groups_of(w); ++g) {
    leading = std::copy_n(from, kScales, leading);
    from += kScales;
    for (size_t quads = 0; quads < 8; quads += 2, from += 2 * kQuad) {
      for (size_t i = 0; i < kQuad; ++i) {
        const std::byte first = from[i], second = from[kQuad + i];
        *leading++ = first >> 4 | (second & std::byte{0xf0});
        *rest++ = (first & std::byte{0x0f}) | second << 4;
      }
    }
  }
}

const std::byte* leading_tile(const Weight& w, size_t t) {
  check_planes(w, t);
  return w.data + leading_at(w, t);
}

const std::byte* whole_tile(const Weight& w, size_t t) {
  if (w.layout == Layout::tiles) return w.tile(t);
  check_planes(w, t);
  thread_local Buffer<std::byte> kept;
  const size_t groups = groups_of(w), bytes = groups * (kScales + kCodes);
  kept.resize(std::max(kept.size(), bytes));
  const auto* leading = reinterpret_cast<const uint8_t*>(leading_tile(w, t));
  const auto* rest = reinterpret_cast<const uint8_t*>(w.data + rest_at(w, t));
  HWY_DYNAMIC_DISPATCH(JoinTile)
  (leading, rest, groups, kScales, reinterpret_cast<uint8_t*>(kept.data()));
  return kept.data();
}

bool is_even_tile(std::span<const std::byte> tile, size_t cols) {
  constexpr int kMostOfGroup = 2 * 32 * 9 / 2;  // all sums are twice those of rest - 7.5
  const double most =
      2 * 6 * std::sqrt(static_cast<double>(kRestVariance) * static_cast<double>(cols));
  std::array<int, kTileRows> of_row{};
  const auto* group = reinterpret_cast<const uint8_t*>(tile.data());
  for (size_t g = 0; g < cols / kGroup; ++g, group += kScales + kCodes) {
    std::array<uint8_t, kTileRows * 4> sums{};  // at most 8 * 15
    for (size_t quad = 0; quad < kGroup / 4; ++quad) {
      const uint8_t* codes = group + kScales + quad * sums.size();
      for (size_t i = 0; i < sums.size(); ++i) {
        sums[i] = static_cast<uint8_t>(sums[i] + (codes[i] & 15));
      }
    }
    for (size_t r = 0; r < kTileRows; ++r) {
      uint16_t scale;
      std::memcpy(&scale, group + r * sizeof(scale), sizeof(scale));
      if ((scale & 0x7fff) == 0) continue;
      const uint8_t* of_quads = &sums[r * 4];
      const int sum = of_quads[0] + of_quads[1] + of_quads[2] + of_quads[3];
      const int twice = 2 * sum - 15 * static_cast<int>(kGroup);
      if (std::abs(twice) > kMostOfGroup) return false;
      of_row[r] += twice;
    }
  }
  return std::ranges::all_of(of_row, [&](int twice) { return std::abs(twice) <= most; });
}

}  // namespace mkv
#endif  // HWY_ONCE
