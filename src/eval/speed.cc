#include "eval/speed.h"

#include <algorithm>
#include <utility>

#include "base/peak_memory.h"
#include "base/rng.h"
#include "base/stopwatch.h"
#include "ops/ops.h"
#include "store/hash.h"

namespace mkv {
namespace {

constexpr uint64_t kSeed = 1;

std::string hash_of(std::span<const TokenId> tokens) {
  Sha256 hash;
  hash.update(std::as_bytes(tokens));
  return hash.hex().substr(0, 16);
}

}  // namespace

double Samples::median() const {
  if (values.empty()) return 0;
  std::vector<double> sorted = values;
  std::ranges::sort(sorted);
  const size_t middle = sorted.size() / 2;
  return sorted.size() % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
double Samples::min() const { return values.empty() ? 0 : *std::ranges::min_element(values); }
double Samples::max() const { return values.empty() ? 0 : *std::ranges::max_element(values); }

SpeedTest::SpeedTest(const Model& model, MakeCache make_cache, const BenchLengths& lengths,
                     Workers& workers)
    : model_(model),
      make_cache_(std::move(make_cache)),
      lengths_(lengths),
      workers_(workers),
      hidden_(model.config().hidden_size),
      logits_(model.config().vocab_size) {}

Result<void> SpeedTest::repeat(DepthSpeed& speed) {
  if (speed.output_hash.empty()) restart_peak_rss();
  Rng rng(kSeed);
  std::vector<TokenId> tokens(speed.depth + lengths_.prefill + 1);
  for (TokenId& token : tokens) {
    token = static_cast<TokenId>(rng.below(model_.config().vocab_size));
  }
  const std::span<const TokenId> random(tokens);
  KvCache cache = make_cache_(speed.depth + lengths_.prefill + lengths_.decode);
  if (speed.depth > 0) {
    MKV_TRY(add(cache, random.first(speed.depth)));
    speed.kv_bytes = cache.bytes();
  }
  Stopwatch watch;
  MKV_ASSIGN(const std::vector<TokenId> decoded, decode(cache, tokens.back()));
  speed.decode.values.push_back(static_cast<double>(lengths_.decode) / watch.seconds());
  speed.output_hash = hash_of(decoded);

  if (speed.depth == 0) cache.clear();
  watch.lap();
  MKV_TRY(add(cache, random.subspan(speed.depth, lengths_.prefill)));
  speed.prefill.values.push_back(static_cast<double>(lengths_.prefill) / watch.seconds());
  speed.peak_rss_bytes = peak_rss_bytes();
  return {};
}

Result<void> SpeedTest::add(KvCache& cache, std::span<const TokenId> tokens) {
  return prefill(model_, {tokens, &cache}, hidden_, scratch_, workers_);
}

// Greedy tokens after `first`, with it.
Result<std::vector<TokenId>> SpeedTest::decode(KvCache& cache, TokenId first) {
  std::vector<TokenId> tokens{first};
  tokens.reserve(lengths_.decode + 1);
  while (tokens.size() <= lengths_.decode) {
    MKV_TRY(add(cache, {&tokens.back(), 1}));
    tokens.push_back(likeliest());
  }
  return tokens;
}

TokenId SpeedTest::likeliest() {
  model_.likely_logits(hidden_, 0.0f, logits_, workers_);
  return static_cast<TokenId>(index_of_largest(logits_));
}

double read_bandwidth(Workers& workers) {
  constexpr size_t kFloats = size_t{64} << 20, kGrain = size_t{64} << 10;
  constexpr int kRuns = 5;
  Buffer<float> values(kFloats);
  std::fill(values.begin(), values.end(), 1.0f);
  Buffer<float> sums(kFloats / kGrain);  // so that the reading is not left out
  double best = 0;
  for (int run = 0; run < kRuns; ++run) {
    const Stopwatch watch;
    workers.run_ranges(kFloats, kGrain, [&](size_t begin, size_t end, size_t) {
      const std::span<const float> part(values.data() + begin, end - begin);
      sums[begin / kGrain] = dot(part, part);
    });
    best = std::max(best, static_cast<double>(kFloats * sizeof(float)) / watch.seconds());
  }
  return best;
}

}  // namespace mkv
