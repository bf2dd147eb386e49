#include "nest/later_sinks.h"

#include <algorithm>
#include <cmath>

#include "ops/ops.h"

namespace mkv {
namespace {

// Where the first token is a sink its value is a seventh to 0.37 of the others', elsewhere 0.45 and
// more; other sinks have cosines of 0.6 and more with it, and of 0.85 and more between keys, other
// tokens 0.4 and 0.45 at most (docs/decisions/0021).
constexpr double kSmallFirst = 0.42;  // of others' values
constexpr double kSmall = 0.5;        // the same, of a token that was a sink in the layer before
constexpr double kLarger = 2.0;       // than the first value
constexpr double kValueCosine = 0.55;
constexpr double kKeyCosine = 0.6;

double size_of(std::span<const float> x) { return std::sqrt(static_cast<double>(dot(x, x))); }

}  // namespace

SinkLikeness::SinkLikeness(View<const float> keys, View<const float> values) {
  if (values.rows < 2) return;
  key_.assign(keys.row(0).begin(), keys.row(0).end());
  value_.assign(values.row(0).begin(), values.row(0).end());
  key_size_ = size_of(key_);
  value_size_ = size_of(value_);
  for (size_t t = 1; t < values.rows; ++t) others_ += size_of(values.row(t));
  others_ /= static_cast<double>(values.rows - 1);
  sink_ = value_size_ < kSmallFirst * others_;
}

bool SinkLikeness::value_like(std::span<const float> value, bool before) const {
  const double size = size_of(value);
  if (before && size < kSmall * others_) return true;
  const double product = static_cast<double>(dot(value, value_));
  const bool small = size < kLarger * value_size_;
  return sink_ && small && product > kValueCosine * size * value_size_;
}

bool SinkLikeness::key_like(std::span<const float> key, bool before) const {
  return before || static_cast<double>(dot(key, key_)) > kKeyCosine * size_of(key) * key_size_;
}

LaterSinkRule later_sink_rule(const LayerTypes& types, size_t layer, size_t most) {
  if (most == 0) return {};
  const bool whole = types.of(layer).window == kWholeContext;
  return {whole ? most : kWholeContext,
          layer > 0 && types.index_of(layer) == types.index_of(layer - 1)};
}

std::vector<uint32_t> find_later_sinks(View<const float> keys, View<const float> values,
                                       size_t sinks, const LaterSinkRule& rule,
                                       std::span<const uint32_t> before) {
  std::vector<uint32_t> found;
  if (rule.most == 0 || keys.rows <= sinks) return found;
  if (!rule.as_before) before = {};
  const SinkLikeness like({keys.data, sinks, keys.cols, keys.stride},
                          {values.data, sinks, values.cols, values.stride});
  if (!like.possible(!before.empty())) return found;
  for (size_t t = sinks; t < keys.rows && found.size() < rule.most; ++t) {
    const auto token = static_cast<uint32_t>(t);
    const bool was = std::ranges::binary_search(before, token);
    if (like.value_like(values.row(t), was) && like.key_like(keys.row(t), was)) {
      found.push_back(token);
    }
  }
  return found;
}

}  // namespace mkv
