// A nest: for every layer, group of KV heads and side, a basis whose latents may be cut anywhere,
// and the ladder that says which cut comes next (arXiv:2410.14731 §3; docs/method.md).
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "base/result.h"
#include "nest/shape.h"

namespace mkv {

// How a mean is taken away before coding (design: docs/method.md "Position mean").
enum class KeyMean : uint8_t {
  none,
  plain,     // one mean of the keys after RoPE
  position,  // R_t mu, mu = mean of the keys before RoPE: no cost in the cache, one term in scores
};

// What a latent space is cut into. A slab is the unit of rank: any prefix of the slabs decodes.
enum class SlabKind : uint8_t {
  column,  // one latent column at 16 bits (f16): the paper's cache
  code,    // 4 bits a token: an entry of a codebook over 4 neighbouring columns' residual
};

inline constexpr size_t kCodebookEntries = 16, kSlabColumns = 4;
inline constexpr size_t kMostSlabsPerColumn = 64;

// The 16 entries of a code slab, column by column.
struct Codebook {
  float entry[kSlabColumns][kCodebookEntries] = {};

  // Half of the entries' squared lengths, for coding. Not kept: it would be a fifth of a nest.
  std::array<float, kCodebookEntries> half_norms() const;
};

// A slab codes what the slabs before it on the same columns left over. A prefix that ends with
// `scale` as the last for its columns decodes them times this: least-error entries shrink every
// vector, var / (var - error) makes them unbiased (docs/method.md "Unbiased decode").
struct CodeSlab {
  uint16_t first_column = 0;
  Codebook codebook;
  float scale[kSlabColumns] = {1, 1, 1, 1};
};

// One latent space. For the dims = group_size * head_dim values x of a token (the heads of the
// group one after the other, Hugging Face order): z = encode (x - mean), x ~ decode z + mean.
struct Basis {
  Matrix<float> encode;  // [dims x dims], row c gives latent c; rows by importance
  Matrix<float> decode;  // [dims x dims], column c takes latent c back; encode^T when orthogonal
  // In place of them, in f16: Nest::compact. Encode times a power of two, for its entries are
  // small.
  Matrix<uint16_t> half_decode, half_encode;
  float half_encode_factor = 1.0f;
  std::vector<float> mean;      // [dims]; keys: see KeyMean; values: plain
  std::vector<CodeSlab> slabs;  // SlabKind::code: in order of importance
};

inline bool is_compact(const Basis& basis) { return !basis.half_decode.span().empty(); }

// Slabs kept for every latent space, by flat index (Nest::flat).
using Ranks = std::vector<uint16_t>;

// One monotone path from full rank to nothing: cut i takes `step` slabs off the space `cuts[i]`.
struct Ladder {
  size_t step = 1;
  std::vector<uint32_t> cuts;

  size_t rungs() const { return cuts.size() + 1; }  // rung 0 keeps everything
};

// What was measured at a rung when the nest was made.
struct RungMeasurement {
  size_t rung = 0;
  double bits_per_value = 0;  // average over the coded tokens
  double kl = 0;
  double perplexity_increase = 0;  // fraction: 0.01 = 1 %
};

inline constexpr size_t kMostLaterSinks = 65536;

struct NestConfig {
  KvShape shape;
  size_t group_size = 1;  // KV heads that share a basis
  SlabKind slab_kind = SlabKind::column;
  KeyMean key_mean = KeyMean::position;
  size_t sinks = 4;        // leading tokens kept exact
  size_t recent = 128;     // most recent tokens kept exact; a multiple of kBlockTokens, 0 = none
  size_t later_sinks = 0;  // most tokens a layer that are kept exact besides (nest/later_sinks.h)
  std::string model_hash;  // SHA-256 of the model's weights
  std::map<std::string, std::string> origin;  // how it was made, for the model card
};

class Nest {
 public:
  // Bases start as the identity, the ladder as the uniform one (see uniform_ladder).
  static Result<Nest> create(NestConfig config);

  const NestConfig& config() const { return config_; }
  // How it was made, for the model card.
  std::map<std::string, std::string>& origin() { return config_.origin; }
  // The model that it goes with from now on, e.g. a fine-tuned one.
  void set_model_hash(std::string hash) { config_.model_hash = std::move(hash); }
  // Most recent tokens that stay exact from now on. Errors: not a multiple of kBlockTokens.
  Result<void> set_recent(size_t recent);
  size_t groups() const { return config_.shape.kv_heads / config_.group_size; }
  size_t dims() const { return config_.group_size * config_.shape.head_dim; }
  size_t spaces() const { return config_.shape.layers * groups() * 2; }
  size_t slabs_in(size_t space) const;  // at full rank
  size_t slab_bits() const { return config_.slab_kind == SlabKind::column ? 16 : 4; }  // a token
  size_t slab_block_bytes() const;  // of one slab of a block of tokens
  size_t flat(GroupId id) const;    // layer-major, then group, then key before value
  GroupId unflat(size_t index) const;

  Basis& basis(GroupId id) { return bases_[flat(id)]; }
  const Basis& basis(GroupId id) const { return bases_[flat(id)]; }

  const Ladder& ladder() const { return ladder_; }
  Result<void> set_ladder(Ladder ladder);
  std::vector<RungMeasurement>& measurements() { return measurements_; }
  const std::vector<RungMeasurement>& measurements() const { return measurements_; }

  Ranks full_ranks() const;
  Ranks ranks_at(size_t rung) const;
  double coded_bits_per_value(const Ranks& ranks) const;
  Nest clone() const;

  // From now on for attention alone, neither to be changed nor saved: the matrices of
  // SlabKind::code are kept in f16. Of decode that is what files have, and half of what attention
  // reads of a basis; encode is rounded by 2^-11 at most, far less than codes are.
  void compact();

  // Largest |encode decode - I| over all bases; for orthogonal ones |U^T U - I|.
  double orthogonality_error() const;

  Result<void> save(const std::filesystem::path& folder) const;
  static Result<Nest> load(const std::filesystem::path& folder);

 private:
  explicit Nest(NestConfig config) : config_(std::move(config)) {}
  NestConfig config_;
  std::vector<Basis> bases_;
  Ladder ladder_;
  std::vector<RungMeasurement> measurements_;
};

// Round-robin over all spaces, `step` slabs at a time: after each full round every space is equal.
Ladder uniform_ladder(const Nest& nest, size_t step);

// "25%" of the 16-bit cache, "2bits" a value of the coded tokens, or "max": the lowest rung that
// does not exceed it. Out of range is an error that names the range.
Result<size_t> rung_for_budget(const Nest& nest, std::string_view budget);

// The most that a user accepts, against the exact cache; infinity: no bound on that figure.
struct Tolerance {
  double kl = std::numeric_limits<double>::infinity();                   // nats a token
  double perplexity_increase = std::numeric_limits<double>::infinity();  // fraction
};

// The lowest rung that keeps a tolerance, itself and all measured rungs above it, by the nest's own
// measurements. Errors: nothing was measured; not even the best measured rung keeps it.
Result<size_t> rung_for_tolerance(const Nest& nest, const Tolerance& tolerance);

// "1%" or "0.01": the fraction. Errors: not a number, negative.
Result<double> parse_fraction(std::string_view text);

}  // namespace mkv
