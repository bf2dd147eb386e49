#include "ops/tiles.h"

#include <gtest/gtest.h>

#include "base/buffer.h"
#include "ops/ops.h"
#include "ops/ops_testing.h"

namespace mkv {
namespace {

using testing::RandomWeight;
using testing::TiledWeight;

constexpr DType kTiled[] = {DType::q4_0, DType::q4_1, DType::q8_0};

TEST(Tiles, UnpackToTheRowsThatWerePacked) {
  Rng rng(1);
  for (const DType type : kTiled) {
    for (const size_t rows : {1, 15, 16, 17, 40}) {
      const RandomWeight random(rng, type, rows, 96, -8, 2);
      const TiledWeight tiled(random.weight);
      ASSERT_EQ(tiled.weight.tiled_bytes(), (rows + 15) / 16 * 16 * row_bytes(type, 96));
      Buffer<std::byte> row(row_bytes(type, 96));
      for (size_t r = 0; r < rows; ++r) {
        unpack_row(tiled.weight, r, row.span());
        ASSERT_EQ(std::memcmp(row.data(), random.weight.row(r), row.size()), 0) << "row " << r;
      }
    }
  }
}

TEST(Tiles, LastTileEndsInZeros) {
  Rng rng(2);
  const RandomWeight random(rng, DType::q8_0, 3, 32, -8, 2);
  const TiledWeight tiled(random.weight);
  for (size_t r = 3; r < kTileRows; ++r) {  // their factors
    uint16_t d = 1;
    std::memcpy(&d, tiled.weight.data + r * 2, sizeof(d));
    ASSERT_EQ(d, 0);
  }
}

TEST(Tiles, DequantizeAsRows) {
  for_each_instruction_set([] {
    Rng rng(3);
    for (const DType type : kTiled) {
      const RandomWeight random(rng, type, 21, 160, -8, 2);
      const TiledWeight tiled(random.weight);
      std::vector<float> got(160), expected(160);
      for (size_t r = 0; r < 21; ++r) {
        dequantize_row(tiled.weight, r, got);
        dequantize_row(random.weight, r, expected);
        ASSERT_EQ(got, expected) << info(type).name << " row " << r;
      }
    }
  });
}

}  // namespace
}  // namespace mkv
