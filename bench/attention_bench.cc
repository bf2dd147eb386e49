// Attention over a filled cache of SmolLM2-135M's shape, in microseconds a layer; the inputs are
// random. `bits` is the coded size: 16 an exact cache, 8 half of the 16-bit columns, else codes.
#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>
#include <vector>

#include "base/rng.h"
#include "nest/angle_kernels.h"
#include "nest/beam_kernels.h"
#include "nest/block_kernels.h"
#include "nest/code_tables.h"
#include "nest/kv_cache.h"
#include "nest/row_kernels.h"
#include "nest/score_bytes.h"
#include "nest/slab_kernels.h"
#include "ops/ops.h"

namespace mkv {
namespace {

constexpr KvShape kShape{4, 3, 64};
constexpr size_t kWidth = 192, kQueryWidth = 576, kChunk = 512;

LayerTypes make_types() {
  std::vector<double> frequencies;
  for (int i = 0; i < 32; ++i) frequencies.push_back(std::pow(1e5, -i / 32.0));
  return LayerTypes(Rotary(frequencies));
}

Matrix<float> random_matrix(size_t rows, size_t cols, uint64_t seed) {
  Rng rng(seed);
  Matrix<float> m(rows, cols);
  for (float& x : m.span()) x = static_cast<float>(rng.normal());
  return m;
}

// Bases are the identity (costs do not depend on them); leading columns get more slabs.
Nest make_nest(size_t bits) {
  NestConfig config;
  config.shape = kShape;
  config.group_size = bits == 8 ? 1 : kShape.kv_heads;
  config.slab_kind = bits == 8 ? SlabKind::column : SlabKind::code;
  Nest nest = std::move(Nest::create(config)).value();
  if (bits == 8) return nest;
  Rng rng(bits);
  for (size_t space = 0; space < nest.spaces(); ++space) {
    Basis& basis = nest.basis(nest.unflat(space));
    const size_t groups = kWidth / kSlabColumns;
    std::vector<double> size(groups, 1.0);
    for (size_t s = 0; s < groups * bits; ++s) {
      const size_t at = s < groups ? s : std::min(rng.below(groups), rng.below(groups));
      CodeSlab slab;
      slab.first_column = static_cast<uint16_t>(at * kSlabColumns);
      for (auto& column : slab.codebook.entry) {
        for (float& x : column) x = static_cast<float>(size[at] * rng.normal());
      }
      size[at] *= 0.55;
      basis.slabs.push_back(slab);
    }
  }
  MKV_CHECK(nest.set_ladder(uniform_ladder(nest, 1)).has_value());
  return nest;
}

struct Filled {
  LayerTypes types = make_types();
  Nest nest;
  KvCache cache;
  Workers workers{2};
  AttentionScratch scratch;
  Matrix<float> queries = random_matrix(kChunk, kQueryWidth, 1);
  Matrix<float> keys = random_matrix(kChunk, kWidth, 2), values = random_matrix(kChunk, kWidth, 3);
  Matrix<float> out{kChunk, kQueryWidth};

  Filled(size_t bits, size_t depth)
      : nest(make_nest(bits == 16 ? 8 : bits)), cache(make_cache(bits, depth + kChunk)) {
    for (size_t t = 0; t < depth; t += kChunk) {
      const size_t n = std::min(kChunk, depth - t);
      for (size_t l = 0; l < kShape.layers; ++l) attend(cache, l, n, workers);
      cache.commit(n);
    }
  }
  KvCache make_cache(size_t bits, size_t capacity) {
    const KvOptions options{.arithmetic = Arithmetic::fast};
    if (bits == 16) return KvCache(kShape, types, capacity, options);
    Ranks ranks = nest.full_ranks();
    if (bits == 8) std::ranges::fill(ranks, uint16_t{32});
    return KvCache(nest, ranks, types, capacity, options);
  }
  void attend(KvCache& to, size_t layer, size_t tokens, Workers& threads) {
    to.attend(layer,
              {queries.view().rows_from(0, tokens), keys.view().rows_from(0, tokens),
               values.view().rows_from(0, tokens), 0.125f},
              out.view().rows_from(0, tokens), scratch, threads);
  }
};

// Kept from one benchmark to the next, as filling takes longer than measuring.
Filled& filled(size_t bits, size_t depth) {
  static std::unique_ptr<Filled> last;
  static size_t last_bits = 0, last_depth = 0;
  if (last == nullptr || last_bits != bits || last_depth != depth) {
    last = std::make_unique<Filled>(bits, depth);
    last_bits = bits, last_depth = depth;
  }
  return *last;
}

void run_attention(benchmark::State& state, size_t tokens) {
  Filled& f = filled(static_cast<size_t>(state.range(0)), static_cast<size_t>(state.range(1)));
  Workers workers(static_cast<size_t>(state.range(2)));
  std::optional<KvCache> cache = f.cache.clone();
  f.attend(*cache, 0, tokens, workers);  // the exact blocks of the new tokens exist from here on
  for (auto _ : state) {
    if (tokens > 1) {  // blocks that leave the window are there once
      state.PauseTiming();
      cache = f.cache.clone();
      state.ResumeTiming();
    }
    for (size_t l = 0; l < kShape.layers; ++l) f.attend(*cache, l, tokens, workers);
  }
  const auto runs = static_cast<double>(state.iterations() * kShape.layers);
  state.counters["us/layer"] =
      benchmark::Counter(runs * 1e-6, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  state.counters["GB/s"] = benchmark::Counter(
      static_cast<double>(f.cache.bytes()) * 1e-9 * static_cast<double>(state.iterations()),
      benchmark::Counter::kIsRate);
}

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"bits", "depth", "workers"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (const int bits : {2, 4, 8, 16}) {
    for (const int depth : {4096, 7680}) {
      for (const int workers : {1, 2}) bench->Args({bits, depth, workers});
    }
  }
}
// A block of 64 tokens of one side of a layer in codes of two bits, by paths that are followed at
// once.
void run_coding(benchmark::State& state) {
  const auto beam = static_cast<size_t>(state.range(0));
  constexpr size_t kStages = 2;
  const Nest nest = make_nest(kStages);
  const Basis& basis = nest.basis({0, 0, Side::key});
  std::vector<std::vector<const CodeSlab*>> stages(kWidth / kSlabColumns);
  for (const CodeSlab& slab : basis.slabs) {
    stages[slab.first_column / kSlabColumns].push_back(&slab);
  }
  const Matrix<float> latents = random_matrix(kWidth, kBlockTokens, 4);
  Matrix<float> left = latents.clone();
  uint8_t codes[kMostSlabsPerColumn][kBlockTokens];
  for (auto _ : state) {
    if (beam == 1) std::ranges::copy(latents.span(), left.span().begin());
    for (size_t i = 0; i < stages.size(); ++i) {
      const float* columns = latents.row(i * kSlabColumns).data();
      if (beam > 1) {
        encode_beam(stages[i], columns, kBlockTokens, beam, codes);
      } else {
        for (const CodeSlab* slab : stages[i]) {
          encode_slab(slab->codebook, left.row(slab->first_column).data(), kBlockTokens, codes[0]);
        }
      }
      benchmark::DoNotOptimize(codes);
    }
  }
}

// A KV head's exact tokens apart from blocks: three queries, scores and weighted sums.
void run_rows(benchmark::State& state) {
  const auto count = static_cast<size_t>(state.range(0));
  const Matrix<float> values = random_matrix(count, kShape.head_dim, 5);
  std::vector<uint16_t> half(values.span().size());
  f32_to_f16(values.span(), half);
  std::vector<const std::byte*> at;
  for (size_t i = 0; i < count; ++i) {
    at.push_back(reinterpret_cast<const std::byte*>(half.data() + i * kShape.head_dim));
  }
  const Rows rows{at, DType::f16};
  const Matrix<float> queries = random_matrix(3, kShape.head_dim, 6);
  Matrix<float> scores(3, count), sums(3, kShape.head_dim);
  for (auto _ : state) {
    score_rows(queries.view(), rows, scores.view());
    weigh_rows(scores.view(), rows, sums.view());
    benchmark::DoNotOptimize(sums.data());
  }
}

// The kernels of coded attention on a run of eight blocks that caches hold, nine heads and two
// slabs a column group: what a run costs beside reading it.
struct Run {
  static constexpr size_t kHeads = 9, kBlocks = 8, kPairs = 32;
  Nest nest = make_nest(2);
  std::span<const CodeSlab> slabs = nest.basis({0, 0, Side::key}).slabs;
  CodePlanes planes = make_code_planes(slabs, std::vector<float>(kWidth, 1.0f));
  Buffer<uint8_t> codes = random_bytes(kBlocks * slabs.size() * 32, 255);
  // As if rounded: neither the largest nor many are of one head.
  Buffer<uint8_t> weights = random_bytes(kHeads * kWeighBlocks * kBlockTokens, 16);
  std::vector<float> units = std::vector<float>(kHeads, 0.01f);
  Matrix<float> scores = random_matrix(kHeads, kBlocks* kBlockTokens, 7);
  Matrix<float> sums = random_matrix(kHeads, kWidth, 8);

  static Buffer<uint8_t> random_bytes(size_t count, uint64_t most) {
    Rng rng(count);
    Buffer<uint8_t> bytes(count);
    for (uint8_t& x : bytes.span()) x = static_cast<uint8_t>(rng.below(most + 1));
    return bytes;
  }
  CodeBlocks blocks(size_t first, size_t count) const {
    const size_t stride = slabs.size() * 32;
    return {codes.data() + first * stride, stride, count, {}};
  }
};

void run_score_slabs(benchmark::State& state) {
  Run run;
  const size_t slabs = run.slabs.size();
  Buffer<uint8_t> entries(Run::kHeads * four_count(slabs) * kFour * kCodebookEntries);
  std::vector<int32_t> factors(Run::kHeads * factor_count(slabs));
  std::vector<float> bases(2 * Run::kHeads), expected(Run::kHeads);
  std::vector<ByteTables> bytes(Run::kHeads * part_count(slabs));
  const ScoreTables tables{
      slabs,          Run::kHeads,      expected.data(), entries.data(),
      factors.data(), run.units.data(), bases.data(),    bases.data() + Run::kHeads,
      bytes.data()};
  std::vector<size_t> all(Run::kHeads);
  std::iota(all.begin(), all.end(), size_t{0});
  const auto which = state.range(0) == 0 ? Slabs::leading : Slabs::rest;
  std::vector<float> values(slabs * kCodebookEntries);
  const Matrix<float> query = random_matrix(1, kWidth, 9);
  tabulate_slabs(run.slabs, query.data(), values.data());
  for (size_t h = 0; h < Run::kHeads; ++h) round_tables(values.data(), h, tables);
  for (auto _ : state) {
    score_slabs(tables, which, run.blocks(0, Run::kBlocks), all, run.scores.view());
    benchmark::DoNotOptimize(run.scores.data());
  }
}

void run_weigh_slabs(benchmark::State& state) {
  Run run;
  for (auto _ : state) {
    for (size_t b = 0; b < Run::kBlocks; b += kWeighBlocks) {
      weigh_slabs(run.planes, run.blocks(b, kWeighBlocks), run.weights.data(), run.units,
                  run.sums.view());
    }
    benchmark::DoNotOptimize(run.sums.data());
  }
}

void run_score_angles(benchmark::State& state) {
  Run run;
  std::vector<double> frequency(Run::kPairs);
  for (size_t i = 0; i < Run::kPairs; ++i) {
    frequency[i] = std::pow(1e5, -static_cast<double>(i) / Run::kPairs);
  }
  const MeanAngles angles = make_mean_angles(frequency);
  const Matrix<float> terms(Run::kHeads, Run::kPairs * 2);
  const std::vector<float> cos(Run::kPairs, 0.6f), sin(Run::kPairs, 0.8f);
  const size_t of_block = Run::kHeads * 2 * angles.scored();
  std::vector<int16_t> first(Run::kHeads * 2 * padded_pairs(Run::kPairs));
  std::vector<int16_t> turned(Run::kBlocks * of_block);
  for (auto _ : state) {
    turn_and_round_mean_terms(terms.view(), cos, sin, first.data());
    turn_to_blocks(angles, first.data(), Run::kHeads, Run::kBlocks, turned.data());
    for (size_t b = 0; b < Run::kBlocks; ++b) {
      score_angles(
          angles, turned.data() + b * of_block, run.units,
          {run.scores.data() + b * kBlockTokens, Run::kHeads, kBlockTokens, run.scores.cols()});
    }
    benchmark::DoNotOptimize(run.scores.data());
  }
}

// A block of 64 tokens brought back from codes, by sums of rows of words.
void run_add_up_codes(benchmark::State& state) {
  const size_t dims = 192, slabs = 103;
  if (!has_code_sums(slabs, dims, dims)) return state.SkipWithError("needs AVX2");
  Rng rng(1);
  std::vector<CodeSlab> of_space(slabs);
  for (size_t s = 0; s < slabs; ++s) {
    of_space[s].first_column = static_cast<uint16_t>(s % (dims / kSlabColumns) * kSlabColumns);
    for (auto& column : of_space[s].codebook.entry) {
      for (float& x : column) x = static_cast<float>(rng.normal());
    }
  }
  Matrix<float> decode(dims, dims), out(dims, kBlockTokens);
  for (float& x : decode.span()) x = static_cast<float>(rng.normal());
  CodeSums sums;
  make_code_sums(of_space, decode.view(), std::vector<float>(dims, 1.0f), sums);
  std::vector<uint8_t> codes(slabs * kBlockTokens / 2);
  for (uint8_t& x : codes) x = static_cast<uint8_t>(rng.below(256));
  Buffer<int16_t> words;
  for (auto _ : state) {
    add_up_codes(sums, codes.data(), out.view(), words);
    benchmark::DoNotOptimize(out.data());
  }
}

// The tokens of a block, one side, to its columns.
void run_store_tokens(benchmark::State& state) {
  const size_t columns = 192;
  Buffer<uint16_t> tokens(kBlockTokens * columns), block(kBlockTokens * columns);
  for (auto _ : state) {
    for (size_t t = 0; t < kBlockTokens; t += kStoredTokens) {
      store_tokens({tokens.data() + t * columns, kStoredTokens, columns}, block.data() + t);
    }
    benchmark::DoNotOptimize(block.data());
  }
}

BENCHMARK(run_store_tokens)->Name("store_tokens")->Unit(benchmark::kMicrosecond);
BENCHMARK(run_add_up_codes)->Name("code_sums")->Unit(benchmark::kMicrosecond);
BENCHMARK(run_score_slabs)
    ->Name("run/score_slabs")
    ->ArgName("rest")
    ->Arg(0)
    ->Arg(1)
    ->Unit(benchmark::kMicrosecond);
BENCHMARK(run_weigh_slabs)->Name("run/weigh_slabs")->Unit(benchmark::kMicrosecond);
BENCHMARK(run_score_angles)->Name("run/score_angles")->Unit(benchmark::kMicrosecond);
BENCHMARK(run_rows)->Name("rows")->ArgName("rows")->Arg(4)->Arg(100);
BENCHMARK(run_coding)
    ->Name("code")
    ->ArgName("beam")
    ->DenseRange(1, kMostBeam)
    ->Unit(benchmark::kMicrosecond);
BENCHMARK_CAPTURE(run_attention, decode, 1)->Apply(shapes)->Name("attend/decode");
BENCHMARK_CAPTURE(run_attention, prefill, kChunk)->Apply(shapes)->Name("attend/prefill512");

}  // namespace
}  // namespace mkv
