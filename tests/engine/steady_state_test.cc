// Decoding allocates nothing once it is warm: every allocation of this test program is counted.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "engine/prefill.h"
#include "engine/sampler.h"
#include "model/golden.h"

namespace {
std::atomic<size_t> allocations{0};

void* counted(void* memory) {
  ++allocations;
  if (memory == nullptr) std::abort();
  return memory;
}
}  // namespace

// Buffer's way to memory, and everybody else's.
extern "C" void* aligned_alloc(size_t alignment, size_t size) {
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment, size) != 0) return nullptr;
  return counted(memory);
}
// Not inlined: a compiler that sees one side of a pair takes it for the wrong one.
[[gnu::noinline]] void* operator new(size_t size) {
  return counted(std::malloc(size == 0 ? 1 : size));
}
[[gnu::noinline]] void* operator new[](size_t size) {
  return counted(std::malloc(size == 0 ? 1 : size));
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory, size_t) noexcept { std::free(memory); }

namespace mkv {
namespace {

// Greedy steps of one token from `token`, as Session and bench take them.
class Decoder {
 public:
  Decoder(const Model& model, KvCache cache, Workers& workers)
      : model_(model),
        cache_(std::move(cache)),
        workers_(workers),
        hidden_(model.config().hidden_size),
        logits_(model.config().vocab_size),
        sampler_(Sampler::create(SamplingOptions::greedy()).value()) {}

  void step(size_t count) {
    for (size_t i = 0; i < count; ++i) {
      ASSERT_TRUE(prefill(model_, {{&token_, 1}, &cache_}, hidden_, scratch_, workers_));
      model_.likely_logits(hidden_, sampler_.exact_within(), logits_, workers_);
      const auto token = sampler_.sample(logits_, {});
      ASSERT_TRUE(token);
      token_ = *token;
    }
  }

 private:
  const Model& model_;
  KvCache cache_;
  Workers& workers_;
  PrefillScratch scratch_;
  std::vector<float> hidden_, logits_;
  Sampler sampler_;
  TokenId token_ = 1;
};

TEST(SteadyState, CountsAllocations) {
  const size_t before = allocations;
  const Buffer<float> buffer(100);
  const auto object = std::make_unique<int>(1);
  EXPECT_EQ(allocations - before, 2u);
}

// Float weights, and Q8_0 ones, which are multiplied as integers.
TEST(SteadyState, DecodingAllocatesNothing) {
  for (const char* name : {"llama", "qwen2"}) {
    const Model model = golden::load(golden::gguf_of(name));
    for (const size_t threads : {1, 3}) {
      Workers workers(threads);
      Decoder decoder(model, model.exact_cache(256), workers);
      decoder.step(70);  // more than a block of the cache
      const size_t before = allocations;
      decoder.step(40);
      EXPECT_EQ(allocations - before, 0u) << name << ", " << threads << " threads";
    }
  }
}

}  // namespace
}  // namespace mkv
