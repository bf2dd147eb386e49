// Speed of this engine: how fast a prompt is read and how fast tokens come, at a given depth.
#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/workers.h"
#include "engine/prefill.h"

namespace mkv {

// Repetitions of one figure.
struct Samples {
  std::vector<double> values;

  double median() const;
  double min() const;
  double max() const;
};

// Repetitions at one depth: how many tokens the cache holds already.
struct DepthSpeed {
  size_t depth = 0;
  Samples prefill, decode;    // tokens/s
  size_t kv_bytes = 0;        // of the cache at this depth
  size_t peak_rss_bytes = 0;  // of the process, since the first repetition at this depth began
  std::string output_hash;    // of the decoded tokens; the same in every repetition
};

struct BenchLengths {
  size_t prefill = 512, decode = 64;
};

// An empty cache for that many tokens.
using MakeCache = std::function<KvCache(size_t capacity)>;

// Belongs to one thread. Borrows the model and the workers.
class SpeedTest {
 public:
  SpeedTest(const Model& model, MakeCache make_cache, const BenchLengths& lengths,
            Workers& workers);

  // One repetition: fills a cache with `depth` random tokens, then times lengths.decode greedy
  // tokens, then lengths.prefill more tokens of prompt (in an empty cache again for depth 0). The
  // tokens are the same for each repetition.
  Result<void> repeat(DepthSpeed& speed);

 private:
  Result<void> add(KvCache& cache, std::span<const TokenId> tokens);
  Result<std::vector<TokenId>> decode(KvCache& cache, TokenId first);
  TokenId likeliest();

  const Model& model_;
  const MakeCache make_cache_;
  const BenchLengths lengths_;
  Workers& workers_;
  PrefillScratch scratch_;
  std::vector<float> hidden_, logits_;
};

// Bytes per second that all workers together read from memory, by far more bytes than a cache
// holds.
double read_bandwidth(Workers& workers);

}  // namespace mkv
