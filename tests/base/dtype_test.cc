#include "base/dtype.h"

#include <gtest/gtest.h>

namespace mkv {
namespace {

TEST(DType, RowBytes) {
  EXPECT_EQ(row_bytes(DType::f32, 5), 20u);
  EXPECT_EQ(row_bytes(DType::bf16, 5), 10u);
  EXPECT_EQ(row_bytes(DType::q8_0, 64), 68u);
  EXPECT_EQ(row_bytes(DType::q6_k, 512), 420u);
  EXPECT_EQ(info(DType::q4_k).name, "Q4_K");
  EXPECT_EQ(info(DType::q6_k).block_bytes, 210u);
}

}  // namespace
}  // namespace mkv
