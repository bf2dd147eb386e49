#include "nest/angle_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "nest/avx512.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "nest/angle_kernels.cc"
#include "hwy/foreach_target.h"  // IWYU pragma: keep
// After foreach_target.h.
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace mkv {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// A token's cosine and sine are one 32-bit lane; products and sums are 32-bit, as in AVX-512.
void ScoreAngles(const int16_t* terms, const float* unit, const int16_t* angles, size_t pairs,
                 View<float> scores) {
  const hn::ScalableTag<int32_t> d;
  const hn::RebindToFloat<decltype(d)> df;
  const size_t n = hn::Lanes(d);
  for (size_t h = 0; h < scores.rows; ++h) {
    for (size_t t = 0; t < scores.cols; t += n) {
      auto sum = hn::Zero(d);
      for (size_t i = 0; i < pairs; ++i) {
        const int16_t* term = terms + (h * pairs + i) * 2;
        const int16_t* angle = angles + ((t / 64 * pairs + i) * 64 + t % 64) * 2;
        const auto both = hn::LoadU(d, reinterpret_cast<const int32_t*>(angle));
        const auto cos = hn::ShiftRight<16>(hn::ShiftLeft<16>(both));
        sum = hn::Add(sum, hn::Mul(cos, hn::Set(d, term[0])));
        sum = hn::Add(sum, hn::Mul(hn::ShiftRight<16>(both), hn::Set(d, term[1])));
      }
      hn::StoreU(hn::Mul(hn::ConvertTo(df, sum), hn::Set(df, unit[h])), df,
                 scores.row(h).data() + t);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace mkv
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace mkv {
HWY_EXPORT(ScoreAngles);

float round_mean_terms(std::span<const float> a, std::span<const float> b, int16_t* out) {
  float total = 0.0f, largest = 0.0f;
  for (size_t i = 0; i < a.size(); ++i) {
    total += std::abs(a[i]) + std::abs(b[i]);
    largest = std::max({largest, std::abs(a[i]), std::abs(b[i])});
  }
  // The sum of all, rounded up and times kAngleOne, stays below 2^31; each below 2^15.
  const float most_in_all = 65000.0f - static_cast<float>(a.size());
  const float factor = total > 0.0f ? std::min(most_in_all / total, 32000.0f / largest) : 0.0f;
  for (size_t i = 0; i < a.size(); ++i) {
    out[2 * i] = static_cast<int16_t>(std::lrint(a[i] * factor));
    out[2 * i + 1] = static_cast<int16_t>(std::lrint(b[i] * factor));
  }
  return factor > 0.0f ? 1.0f / (factor * kAngleOne) : 0.0f;
}

void score_angles(const int16_t* terms, std::span<const float> unit, const int16_t* angles,
                  size_t pairs, View<float> scores) {
  MKV_CHECK(unit.size() == scores.rows && scores.cols % 64 == 0);
  if (avx512::usable()) return avx512::score_angles(terms, unit, angles, pairs, scores);
  HWY_DYNAMIC_DISPATCH(ScoreAngles)(terms, unit.data(), angles, pairs, scores);
}

}  // namespace mkv
#endif  // HWY_ONCE
