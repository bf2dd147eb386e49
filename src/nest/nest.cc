#include "nest/nest.h"

#include <algorithm>
#include <cmath>

#include "nest/kv_cache.h"
#include "ops/ops.h"

namespace mkv {
namespace {

Error invalid(std::string message) {
  return make_error(ErrorCode::invalid_argument, "nest: " + std::move(message));
}

Result<void> check(const NestConfig& config) {
  const KvShape& shape = config.shape;
  const auto within = [](size_t x, size_t limit) { return x >= 1 && x <= limit; };
  if (!within(shape.layers, 4096) || !within(shape.kv_heads, 4096) ||
      !within(shape.head_dim, 1024) || shape.head_dim % 2 != 0) {
    return invalid("shape of " + std::to_string(shape.layers) + " layers x " +
                   std::to_string(shape.kv_heads) + " KV heads x " +
                   std::to_string(shape.head_dim) + " is out of range");
  }
  if (config.group_size == 0 || shape.kv_heads % config.group_size != 0) {
    return invalid("group size " + std::to_string(config.group_size) + " does not divide " +
                   std::to_string(shape.kv_heads) + " KV heads");
  }
  if (config.recent % kBlockTokens != 0) {
    return invalid("recent window of " + std::to_string(config.recent) +
                   " tokens is not a multiple of " + std::to_string(kBlockTokens));
  }
  if (config.sinks > kBlockTokens) {
    return invalid(std::to_string(config.sinks) + " sinks are more than " +
                   std::to_string(kBlockTokens));
  }
  if (config.later_sinks > kMostLaterSinks) {
    return invalid(std::to_string(config.later_sinks) + " later sinks are more than " +
                   std::to_string(kMostLaterSinks));
  }
  if (config.later_sinks > 0 && config.sinks < 2) {
    return invalid(std::to_string(config.later_sinks) +
                   " later sinks need 2 sinks to be told by, not " + std::to_string(config.sinks));
  }
  return {};
}

// The largest entry comes near 2^14, so that f16 has all its bits for entries 2^28 times smaller.
void compact_encode(Basis& basis) {
  const std::span<float> entries = basis.encode.span();
  float largest = 0.0f;
  for (const float e : entries) largest = std::max(largest, std::abs(e));
  const float factor = largest > 0.0f ? std::exp2(14.0f - std::ceil(std::log2(largest))) : 1.0f;
  for (float& e : entries) e *= factor;
  basis.half_encode = Matrix<uint16_t>(basis.encode.rows(), basis.encode.cols());
  f32_to_f16(entries, basis.half_encode.span());
  basis.half_encode_factor = factor;
  basis.encode = {};
}

}  // namespace

Result<void> Nest::set_recent(size_t recent) {
  NestConfig changed = config_;
  changed.recent = recent;
  MKV_TRY(check(changed));
  config_ = std::move(changed);
  return {};
}

Result<Nest> Nest::create(NestConfig config) {
  MKV_TRY(check(config));
  Nest nest(std::move(config));
  const size_t dims = nest.dims();
  nest.bases_.resize(nest.spaces());
  for (Basis& basis : nest.bases_) {
    basis.encode = Matrix<float>(dims, dims);
    for (size_t i = 0; i < dims; ++i) basis.encode.at(i, i) = 1.0f;
    basis.decode = basis.encode.clone();
    basis.mean.assign(dims, 0.0f);
  }
  nest.ladder_ = uniform_ladder(nest, 1);
  return nest;
}

std::array<float, kCodebookEntries> Codebook::half_norms() const {
  std::array<float, kCodebookEntries> out{};
  for (const auto& column : entry) {
    for (size_t e = 0; e < kCodebookEntries; ++e) out[e] += 0.5f * column[e] * column[e];
  }
  return out;
}

size_t Nest::slabs_in(size_t space) const {
  return config_.slab_kind == SlabKind::column ? dims() : bases_[space].slabs.size();
}

size_t Nest::slab_block_bytes() const { return slab_bits() * kBlockTokens / 8; }

size_t Nest::flat(GroupId id) const {
  return (id.layer * groups() + id.group) * 2 + static_cast<size_t>(id.side);
}

GroupId Nest::unflat(size_t index) const {
  return {index / 2 / groups(), index / 2 % groups(), index % 2 == 0 ? Side::key : Side::value};
}

Result<void> Nest::set_ladder(Ladder ladder) {
  if (ladder.step == 0) return invalid("ladder step is 0");
  std::vector<size_t> cuts(spaces(), 0);
  for (const uint32_t space : ladder.cuts) {
    if (space >= cuts.size()) {
      return invalid("ladder cuts space " + std::to_string(space) + " of " +
                     std::to_string(cuts.size()));
    }
    ++cuts[space];
  }
  for (size_t space = 0; space < cuts.size(); ++space) {
    if (cuts[space] * ladder.step != slabs_in(space)) {
      return invalid("ladder cuts " + std::to_string(cuts[space] * ladder.step) + " of " +
                     std::to_string(slabs_in(space)) + " slabs of space " + std::to_string(space));
    }
  }
  ladder_ = std::move(ladder);
  return {};
}

Ranks Nest::full_ranks() const {
  Ranks ranks(spaces());
  for (size_t i = 0; i < ranks.size(); ++i) ranks[i] = static_cast<uint16_t>(slabs_in(i));
  return ranks;
}

Ranks Nest::ranks_at(size_t rung) const {
  MKV_CHECK(rung < ladder_.rungs());
  Ranks ranks = full_ranks();
  for (size_t i = 0; i < rung; ++i) {
    uint16_t& rank = ranks[ladder_.cuts[i]];
    rank = static_cast<uint16_t>(rank - ladder_.step);
  }
  return ranks;
}

double Nest::coded_bits_per_value(const Ranks& ranks) const {
  size_t bits = 0;
  for (const uint16_t rank : ranks) bits += rank * slab_bits();
  return static_cast<double>(bits) / static_cast<double>(config_.shape.values_per_token());
}

Nest Nest::clone() const {
  Nest copy(config_);
  for (const Basis& basis : bases_) {
    copy.bases_.push_back({basis.encode.clone(), basis.decode.clone(), basis.half_decode.clone(),
                           basis.half_encode.clone(), basis.half_encode_factor, basis.mean,
                           basis.slabs});
  }
  copy.ladder_ = ladder_;
  copy.measurements_ = measurements_;
  return copy;
}

void Nest::compact() {
  if (config_.slab_kind != SlabKind::code) return;
  for (Basis& basis : bases_) {
    if (is_compact(basis)) continue;
    basis.half_decode = Matrix<uint16_t>(dims(), dims());
    f32_to_f16(basis.decode.span(), basis.half_decode.span());
    basis.decode = {};
    compact_encode(basis);
  }
}

double Nest::orthogonality_error() const {
  const size_t n = dims();
  double worst = 0.0;
  std::vector<double> row(n);
  MKV_CHECK(!is_compact(bases_.front()));
  for (const Basis& basis : bases_) {
    for (size_t i = 0; i < n; ++i) {
      std::fill(row.begin(), row.end(), 0.0);
      for (size_t c = 0; c < n; ++c) {
        const double e = basis.encode.at(i, c);
        for (size_t j = 0; j < n; ++j) row[j] += e * basis.decode.at(c, j);
      }
      for (size_t j = 0; j < n; ++j) {
        worst = std::max(worst, std::abs(row[j] - (i == j ? 1.0 : 0.0)));
      }
    }
  }
  return worst;
}

}  // namespace mkv
