// The nests that ship load, are measured, and their tolerances mean something.
#include <gtest/gtest.h>

#include <filesystem>

#include "nest/nest.h"

namespace mkv {
namespace {

TEST(ShippedNest, LoadsAndPicksByTolerance) {
  const std::filesystem::path folder = std::filesystem::path(MKV_SOURCE_DIR) / "nests";
  size_t nests = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (!entry.is_directory()) continue;
    ++nests;
    const Result<Nest> nest = Nest::load(entry.path());
    ASSERT_TRUE(nest) << nest.error().message;
    EXPECT_LT(nest->orthogonality_error(), 1e-4);
    EXPECT_GE(nest->measurements().size(), 20u);
    const Result<size_t> one_percent = rung_for_tolerance(*nest, {.perplexity_increase = 0.01});
    const Result<size_t> ten_percent = rung_for_tolerance(*nest, {.perplexity_increase = 0.1});
    ASSERT_TRUE(one_percent) << one_percent.error().message;
    ASSERT_TRUE(ten_percent) << ten_percent.error().message;
    EXPECT_GT(*ten_percent, *one_percent);
    EXPECT_LT(nest->coded_bits_per_value(nest->ranks_at(*ten_percent)), 1.5);
  }
  EXPECT_GE(nests, 1u);
}

}  // namespace
}  // namespace mkv
