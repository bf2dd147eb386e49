#include "eval/evaluation.h"

#include <algorithm>
#include <string>

namespace mkv {
namespace {

Error invalid(const std::string& message) {
  return make_error(ErrorCode::invalid_argument, "evaluation: " + message);
}

std::string shape_text(const KvShape& shape) {
  return std::to_string(shape.layers) + " layers x " + std::to_string(shape.kv_heads) +
         " KV heads x " + std::to_string(shape.head_dim);
}

}  // namespace

CacheFactory CacheFactory::exact(const Model& model, KvOptions options) {
  CacheFactory factory(model);
  factory.options_ = options;
  return factory;
}

Result<CacheFactory> CacheFactory::rounded(const Model& model, Rounding rounding) {
  const KvShape shape = model.config().kv_shape();
  if (shape.kv_heads * shape.head_dim % kRoundingBlock != 0) {
    return invalid("a token has " + std::to_string(shape.kv_heads * shape.head_dim) +
                   " keys, not a multiple of the " + std::to_string(kRoundingBlock) +
                   " that are rounded together");
  }
  CacheFactory factory(model);
  factory.options_ = {.exact = DType::f32, .rounding = rounding};
  return factory;
}

Result<CacheFactory> CacheFactory::coded(const Model& model, const Nest& nest, Ranks ranks,
                                         KvOptions options) {
  const KvShape expected = model.config().kv_shape();
  if (!(nest.config().shape == expected)) {
    return invalid("the nest is for " + shape_text(nest.config().shape) + ", the model has " +
                   shape_text(expected));
  }
  if (ranks.size() != nest.spaces()) {
    return invalid(std::to_string(ranks.size()) + " ranks for " + std::to_string(nest.spaces()) +
                   " latent spaces");
  }
  for (size_t space = 0; space < ranks.size(); ++space) {
    if (ranks[space] > nest.slabs_in(space)) {
      return invalid("a rank of " + std::to_string(ranks[space]) + " for latent space " +
                     std::to_string(space) + ", which has " + std::to_string(nest.slabs_in(space)) +
                     " slabs");
    }
  }
  CacheFactory factory(model);
  factory.nest_ = &nest;
  factory.ranks_ = std::move(ranks);
  factory.options_ = options;
  return factory;
}

KvCache CacheFactory::make(size_t capacity) const {
  if (nest_ == nullptr) return model_->exact_cache(capacity, options_);
  return KvCache(*nest_, ranks_, model_->config().layer_types, capacity, options_);
}

double CacheFactory::coded_bits_per_value() const {
  if (options_.rounding != Rounding::none) return bits_per_value(options_.rounding);
  if (nest_ == nullptr) return 8.0 * static_cast<double>(row_bytes(options_.exact, 1));
  return nest_->coded_bits_per_value(ranks_);
}

KvFigures kv_figures(const Model& model, const CacheFactory& caches, const KvCache& cache) {
  KvFigures figures;
  const ModelConfig& config = model.config();
  const auto tokens = static_cast<double>(cache.length());
  const auto values =
      static_cast<double>(config.layer_types.values_seen(config.kv_shape(), cache.length()));
  const double bytes = caches.rounding() == Rounding::none
                           ? static_cast<double>(cache.bytes())
                           : values * bits_per_value(caches.rounding()) / 8.0;
  figures.kv_bytes_per_token = bytes / tokens;
  figures.bits_per_value = bytes * 8.0 / values;
  figures.coded_bits_per_value = caches.coded_bits_per_value();
  return figures;
}

Result<void> check_evaluation(const Model& model, const Windows& windows,
                              const EvalOptions& options) {
  if (windows.count() == 0) return invalid("no window to evaluate");
  if (options.chunk == 0 || options.logit_rows == 0) {
    return invalid("chunk (" + std::to_string(options.chunk) + ") and logit_rows (" +
                   std::to_string(options.logit_rows) + ") must be at least 1");
  }
  const size_t longest = model.config().max_position_embeddings;
  if (longest != 0 && windows.context > longest) {
    return invalid("windows of " + std::to_string(windows.context) +
                   " tokens exceed the model's context of " + std::to_string(longest));
  }
  return {};
}

Result<void> TextPass::run(std::span<const TokenId> text, size_t first, KvCache& cache,
                           View<float> kept) {
  MKV_CHECK(first + kept.rows <= text.size());
  for (size_t begin = 0; begin < text.size(); begin += options_.chunk) {
    const size_t count = std::min(options_.chunk, text.size() - begin);
    const SequenceSlice slice{text.subspan(begin, count), &cache};
    MKV_TRY(model_.forward({&slice, 1}, hidden_, scratch_, workers_));
    for (size_t t = std::max(begin, first); t < std::min(begin + count, first + kept.rows); ++t) {
      std::ranges::copy(hidden_.row(t - begin), kept.row(t - first).begin());
    }
  }
  return {};
}

}  // namespace mkv
