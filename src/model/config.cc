#include "model/config.h"

#include <cmath>
#include <string>

#include "store/message.h"

namespace mkv {
namespace {

struct Limit {
  std::string_view key;
  size_t value, most;
};

}  // namespace

Error bad_value(ErrorCode code, std::string_view key, std::string_view found,
                std::string_view expected) {
  return make_error(code, concat(key, ": found ", printable(found), ", expected ", expected));
}

Result<void> check_config(const ModelConfig& c) {
  // Well above any model of today, and low enough that no product of them overflows.
  const Limit limits[] = {
      {"vocab_size", c.vocab_size, size_t{1} << 22},
      {"hidden_size", c.hidden_size, size_t{1} << 16},
      {"intermediate_size", c.intermediate_size, size_t{1} << 19},
      {"num_hidden_layers", c.num_layers, 1024},
      {"num_attention_heads", c.num_heads, 1024},
      {"num_key_value_heads", c.num_kv_heads, 1024},
      {"head_dim", c.head_dim, kMaxHeadDim},
      {"max_position_embeddings", c.max_position_embeddings, size_t{1} << 26},
  };
  for (const Limit& limit : limits) {
    if (limit.value < 1 || limit.value > limit.most) {
      return bad_value(ErrorCode::corrupt, limit.key, std::to_string(limit.value),
                       "1 ... " + std::to_string(limit.most));
    }
  }
  if (c.num_heads % c.num_kv_heads != 0) {
    return bad_value(ErrorCode::corrupt, "num_attention_heads", std::to_string(c.num_heads),
                     "a multiple of " + std::to_string(c.num_kv_heads) + " KV heads");
  }
  if (c.head_dim % 2 != 0) {
    return bad_value(ErrorCode::corrupt, "head_dim", std::to_string(c.head_dim),
                     "an even number, for RoPE");
  }
  if (!std::isfinite(c.rms_norm_epsilon) || c.rms_norm_epsilon < 0 || c.rms_norm_epsilon > 1) {
    return bad_value(ErrorCode::corrupt, "rms_norm_eps", std::to_string(c.rms_norm_epsilon),
                     "0 ... 1");
  }
  return {};
}

float ModelConfig::attention_scale() const {
  const auto scalar = static_cast<float>(query_pre_attn_scalar);
  return 1.0f / std::sqrt(scalar == 0.0f ? static_cast<float>(head_dim) : scalar);
}

}  // namespace mkv
