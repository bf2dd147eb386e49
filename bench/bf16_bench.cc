// Passes between training's products in bf16, one row at a time. GB/s counts what is read and
// written.
#include <benchmark/benchmark.h>

#include <vector>

#include "base/rng.h"
#include "ops/bf16.h"

namespace mkv {
namespace {

std::vector<float> values(size_t size, uint64_t seed) {
  Rng rng(seed);
  std::vector<float> out(size);
  for (float& x : out) x = static_cast<float>(3.0 * rng.normal());
  return out;
}
std::vector<uint16_t> halves(size_t size, uint64_t seed) {
  std::vector<uint16_t> out(size);
  f32_to_bf16(values(size, seed), out);
  return out;
}

void count(benchmark::State& state, size_t bytes) {
  state.counters["GB/s"] = benchmark::Counter(
      static_cast<double>(bytes) * static_cast<double>(state.iterations()) * 1e-9,
      benchmark::Counter::kIsRate);
}

void run_exp(benchmark::State& state) {
  const auto size = static_cast<size_t>(state.range(0));
  const std::vector<float> scores = values(size, 1);
  std::vector<uint16_t> p(size);
  for (auto _ : state) benchmark::DoNotOptimize(exp_row(scores, size, p));
  count(state, 6 * size);
}
BENCHMARK(run_exp)->Name("bf16/exp_row")->Arg(512)->Arg(1024);

void run_exp_backward(benchmark::State& state) {
  const auto size = static_cast<size_t>(state.range(0));
  const std::vector<float> scores = values(size, 1), d_p = values(size, 2);
  std::vector<uint16_t> p(size), d(size);
  for (auto _ : state) {
    exp_row_backward({.scores = scores, .d_p = d_p, .log_sum = 5.0f}, size, p, d);
    benchmark::DoNotOptimize(d.data());
  }
  count(state, 12 * size);
}
BENCHMARK(run_exp_backward)->Name("bf16/exp_row_backward")->Arg(512)->Arg(1024);

void run_swiglu(benchmark::State& state) {
  const auto size = static_cast<size_t>(state.range(0));
  const std::vector<uint16_t> gate = halves(size, 1), up = halves(size, 2);
  std::vector<uint16_t> out(size);
  for (auto _ : state) {
    swiglu_bf16(gate, up, out);
    benchmark::DoNotOptimize(out.data());
  }
  count(state, 6 * size);
}
BENCHMARK(run_swiglu)->Name("bf16/swiglu")->Arg(1536);

void run_swiglu_backward(benchmark::State& state) {
  const auto size = static_cast<size_t>(state.range(0));
  const std::vector<uint16_t> gate = halves(size, 1), up = halves(size, 2), d = halves(size, 3);
  std::vector<uint16_t> d_gate(size), d_up(size);
  for (auto _ : state) {
    swiglu_bf16_backward({d, gate, up}, d_gate, d_up);
    benchmark::DoNotOptimize(d_gate.data());
  }
  count(state, 10 * size);
}
BENCHMARK(run_swiglu_backward)->Name("bf16/swiglu_backward")->Arg(1536);

void run_loss(benchmark::State& state) {
  const auto size = static_cast<size_t>(state.range(0));
  const std::vector<uint16_t> teacher = halves(size, 1), student = halves(size, 2);
  std::vector<float> scratch(2 * size);
  std::vector<uint16_t> gradient(size);
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        vocabulary_loss({teacher, student, 7, 1.0f, 0.25f}, scratch, gradient));
  }
  count(state, 6 * size);
}
BENCHMARK(run_loss)->Name("bf16/vocabulary_loss")->Arg(49152);

}  // namespace
}  // namespace mkv
