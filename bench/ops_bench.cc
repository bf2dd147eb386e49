// Products of the forward pass. GB/s counts the stored bytes of the weight once a call, GFLOP/s two
// operations a weight and token.
#include <benchmark/benchmark.h>

#include <cstring>

#include "base/buffer.h"
#include "base/half.h"
#include "base/rng.h"
#include "ops/gemm.h"
#include "ops/likely_rows.h"
#include "ops/ops.h"
#include "ops/planes.h"
#include "ops/tiles.h"

namespace mkv {
namespace {

void fill(Rng& rng, std::span<float> values) {
  for (float& v : values) v = static_cast<float>(rng.uniform() - 0.5);
}

// Random bytes, with every 16-bit word below 1 as a half: so every block scale is finite.
Buffer<std::byte> random_weight(Rng& rng, DType type, size_t rows, size_t cols) {
  Buffer<std::byte> bytes(rows * row_bytes(type, cols));
  for (size_t i = 0; i + 2 <= bytes.size(); i += 2) {
    const auto word = static_cast<uint16_t>(rng.below(0x3c00));
    std::memcpy(bytes.data() + i, &word, 2);
  }
  return bytes;
}

void count(benchmark::State& state, double flops, double bytes) {
  const auto runs = static_cast<double>(state.iterations());
  state.counters["GFLOP/s"] = benchmark::Counter(flops * runs * 1e-9, benchmark::Counter::kIsRate);
  state.counters["GB/s"] = benchmark::Counter(bytes * runs * 1e-9, benchmark::Counter::kIsRate);
}

void run_matmul(benchmark::State& state, DType type) {
  const auto tokens = static_cast<size_t>(state.range(0));
  const auto rows = static_cast<size_t>(state.range(1)), cols = static_cast<size_t>(state.range(2));
  Rng rng(1);
  Buffer<std::byte> bytes = random_weight(rng, type, rows, cols);
  Weight w{bytes.data(), type, rows, cols};
  if (has_tiles(type)) {  // as a model has it
    Buffer<std::byte> tiled(bytes.size());
    const size_t tile_bytes = kTileRows * row_bytes(type, cols);
    for (size_t t = 0; t < w.tiles(); ++t) {
      pack_tile(w, t, tiled.span().subspan(t * tile_bytes, tile_bytes));
    }
    bytes = std::move(tiled);
    w = {bytes.data(), type, rows, cols, Layout::tiles};
  }
  Matrix<float> x(tokens, cols), y(tokens, rows);
  fill(rng, x.span());
  Workers workers(static_cast<size_t>(state.range(3)));
  for (auto _ : state) {
    matmul(x.view(), w, y.view(), workers);
    benchmark::DoNotOptimize(y.data());
  }
  count(state, 2.0 * static_cast<double>(tokens * rows * cols), static_cast<double>(w.bytes()));
}

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"tokens", "rows", "cols", "workers"})->UseRealTime();
  for (const int workers : {1, 2}) {
    for (const int tokens : {1, 4, 512}) bench->Args({tokens, 576, 1536, workers});
    for (const int tokens : {1, 512}) bench->Args({tokens, 1536, 576, workers});
  }
  // 768: the K types need 256 n. The last two are larger than caches, as a model is.
  bench->Args({1, 49152, 768, 2})->Args({512, 49152, 768, 2});
  bench->Args({1, 98304, 1536, 1})->Args({1, 98304, 1536, 2});
}
BENCHMARK_CAPTURE(run_matmul, q4_1, DType::q4_1)->Apply(shapes)->Name("matmul/Q4_1");
BENCHMARK_CAPTURE(run_matmul, q8_0, DType::q8_0)->Apply(shapes)->Name("matmul/Q8_0");
BENCHMARK_CAPTURE(run_matmul, q4_k, DType::q4_k)->Apply(shapes)->Name("matmul/Q4_K");
BENCHMARK_CAPTURE(run_matmul, q6_k, DType::q6_k)->Apply(shapes)->Name("matmul/Q6_K");
BENCHMARK_CAPTURE(run_matmul, f16, DType::f16)->Apply(shapes)->Name("matmul/F16");

void other_shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"tokens", "rows", "cols", "workers"})->UseRealTime();
  for (const int tokens : {1, 2, 4, 8, 12, 16, 24, 32, 64}) bench->Args({tokens, 1536, 1536, 1});
}
BENCHMARK_CAPTURE(run_matmul, f32, DType::f32)->Apply(other_shapes)->Name("matmul/F32");
BENCHMARK_CAPTURE(run_matmul, bf16, DType::bf16)->Apply(other_shapes)->Name("matmul/BF16");
BENCHMARK_CAPTURE(run_matmul, q4_0, DType::q4_0)->Apply(other_shapes)->Name("matmul/Q4_0");
BENCHMARK_CAPTURE(run_matmul, q4_1, DType::q4_1)->Apply(other_shapes)->Name("matmul/Q4_1");
BENCHMARK_CAPTURE(run_matmul, q5_0, DType::q5_0)->Apply(other_shapes)->Name("matmul/Q5_0");
BENCHMARK_CAPTURE(run_matmul, q5_1, DType::q5_1)->Apply(other_shapes)->Name("matmul/Q5_1");
BENCHMARK_CAPTURE(run_matmul, q4_k, DType::q4_k)->Apply(other_shapes)->Name("matmul/Q4_K");
BENCHMARK_CAPTURE(run_matmul, q5_k, DType::q5_k)->Apply(other_shapes)->Name("matmul/Q5_K");
BENCHMARK_CAPTURE(run_matmul, q6_k, DType::q6_k)->Apply(other_shapes)->Name("matmul/Q6_K");

// An output projection: GB/s are of all its bytes, of which some are not read.
void run_likely_rows(benchmark::State& state, DType type) {
  const auto rows = static_cast<size_t>(state.range(0)), cols = static_cast<size_t>(state.range(1));
  Rng rng(1);
  const Buffer<std::byte> bytes = random_weight(rng, type, rows, cols);
  const Weight w{bytes.data(), type, rows, cols};
  Buffer<std::byte> planes(w.tiled_bytes()), tile(kTileRows * row_bytes(type, cols));
  const Weight in_planes{planes.data(), type, rows, cols, Layout::planes};
  for (size_t t = 0; t < w.tiles(); ++t) {
    pack_tile(w, t, tile.span());
    (void)split_tile(tile.span(), in_planes, t, planes.data());
  }
  Buffer<float> x(cols), y(rows);
  fill(rng, x.span());
  Workers workers(static_cast<size_t>(state.range(2)));
  for (auto _ : state) {
    multiply_likely_rows(x.span(), in_planes, {}, 0.0f, y.span(), workers);
    benchmark::DoNotOptimize(y.data());
  }
  count(state, 2.0 * static_cast<double>(rows * cols), static_cast<double>(w.bytes()));
}
void likely_shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"rows", "cols", "workers"})->UseRealTime();
  for (const int workers : {1, 2}) bench->Args({49152, 768, workers});
}
BENCHMARK_CAPTURE(run_likely_rows, q8_0, DType::q8_0)
    ->Apply(likely_shapes)
    ->Name("likely_rows/Q8_0");
BENCHMARK_CAPTURE(run_likely_rows, q6_k, DType::q6_k)
    ->Apply(likely_shapes)
    ->Name("likely_rows/Q6_K");

void run_gemm(benchmark::State& state) {
  const auto m = static_cast<size_t>(state.range(0)), n = static_cast<size_t>(state.range(1));
  const auto k = static_cast<size_t>(state.range(2));
  Rng rng(2);
  Matrix<float> a(m, k), b(n, k), c(m, n);
  fill(rng, a.span());
  fill(rng, b.span());
  for (auto _ : state) {
    gemm(a.view(), b.view(), Transpose::yes, 0.0f, c.view());
    benchmark::DoNotOptimize(c.data());
  }
  count(state, 2.0 * static_cast<double>(m * n * k),
        static_cast<double>((m * k + n * k + m * n) * sizeof(float)));
}
BENCHMARK(run_gemm)
    ->Name("gemm")
    ->ArgNames({"m", "n", "k"})
    ->Args({512, 576, 1536})
    ->Args({512, 64, 1536})
    ->Args({192, 64, 512})
    ->Args({64, 64, 64})
    ->Args({8, 128, 576});

void run_dot(benchmark::State& state) {
  const auto size = static_cast<size_t>(state.range(0));
  Rng rng(3);
  Buffer<float> a(size), b(size);
  fill(rng, a.span());
  fill(rng, b.span());
  for (auto _ : state) benchmark::DoNotOptimize(dot(a.span(), b.span()));
  count(state, 2.0 * static_cast<double>(size), static_cast<double>(2 * size * sizeof(float)));
}
BENCHMARK(run_dot)->Name("dot")->Arg(64)->Arg(576)->Arg(1536);

void run_index_of_largest(benchmark::State& state) {
  const auto size = static_cast<size_t>(state.range(0));
  Rng rng(3);
  Buffer<float> x(size);
  fill(rng, x.span());
  for (auto _ : state) benchmark::DoNotOptimize(index_of_largest(x.span()));
  count(state, static_cast<double>(size), static_cast<double>(size * sizeof(float)));
}
BENCHMARK(run_index_of_largest)->Name("index_of_largest")->Arg(49152);

void run_softmax(benchmark::State& state) {
  const auto size = static_cast<size_t>(state.range(0));
  Rng rng(4);
  Buffer<float> x(size);
  fill(rng, x.span());
  for (auto _ : state) {
    softmax(x.span(), 1.0f);
    benchmark::DoNotOptimize(x.data());
  }
  count(state, 0, static_cast<double>(size * sizeof(float)));
}
BENCHMARK(run_softmax)->Name("softmax")->Arg(512)->Arg(49152);

void run_gated(benchmark::State& state, void (*unit)(std::span<float>, std::span<const float>)) {
  const auto size = static_cast<size_t>(state.range(0));
  Rng rng(5);
  Buffer<float> gate(size), up(size);
  fill(rng, gate.span());
  fill(rng, up.span());
  for (auto _ : state) {
    unit(gate.span(), up.span());
    benchmark::DoNotOptimize(gate.data());
  }
  count(state, 0, static_cast<double>(2 * size * sizeof(float)));
}
BENCHMARK_CAPTURE(run_gated, swiglu, swiglu)->Name("swiglu")->Arg(1536);
BENCHMARK_CAPTURE(run_gated, geglu, geglu)->Name("geglu")->Arg(1536);

}  // namespace
}  // namespace mkv
