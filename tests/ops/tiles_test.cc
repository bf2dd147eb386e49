#include "ops/tiles.h"

#include <gtest/gtest.h>

#include "base/buffer.h"
#include "ops/ops.h"
#include "ops/ops_testing.h"

namespace mkv {
namespace {

using testing::RandomWeight;
using testing::TiledWeight;

TEST(Tiles, AllQuantisedTypesHaveThem) {
  std::vector<DType> tiled;
  for (const DType type : testing::kAllTypes) {
    if (has_tiles(type)) tiled.push_back(type);
  }
  ASSERT_EQ(tiled, std::vector<DType>(std::begin(testing::kQuantisedTypes),
                                      std::end(testing::kQuantisedTypes)));
}

TEST(Tiles, UnpackToTheRowsThatWerePacked) {
  Rng rng(1);
  for (const DType type : testing::kQuantisedTypes) {
    const size_t cols = 3 * info(type).block_elements;
    for (const size_t rows : {1, 15, 16, 17, 40}) {
      const RandomWeight random(rng, type, rows, cols, -8, 2);
      const TiledWeight tiled(random.weight);
      ASSERT_EQ(tiled.weight.tiled_bytes(), (rows + 15) / 16 * 16 * row_bytes(type, cols));
      Buffer<std::byte> row(row_bytes(type, cols));
      for (size_t r = 0; r < rows; ++r) {
        unpack_row(tiled.weight, r, row.span());
        ASSERT_EQ(std::memcmp(row.data(), random.weight.row(r), row.size()), 0)
            << info(type).name << " row " << r;
      }
    }
  }
}

TEST(Tiles, LastTileEndsInZeros) {
  Rng rng(2);
  for (const DType type : testing::kQuantisedTypes) {
    const RandomWeight random(rng, type, 3, info(type).block_elements, -8, 2);
    const TiledWeight tiled(random.weight);
    for (size_t half = 0; half < testing::half_offsets(type).size(); ++half) {
      for (size_t r = 3; r < kTileRows; ++r) {  // their factors
        uint16_t d = 1;
        std::memcpy(&d, tiled.weight.data + (half * kTileRows + r) * 2, sizeof(d));
        ASSERT_EQ(d, 0) << info(type).name;
      }
    }
  }
}

TEST(Tiles, DequantizeAsRows) {
  for_each_instruction_set([] {
    Rng rng(3);
    for (const DType type : testing::kQuantisedTypes) {
      const size_t cols = 2 * info(type).block_elements;
      const RandomWeight random(rng, type, 21, cols, -8, 2);
      const TiledWeight tiled(random.weight);
      std::vector<float> got(cols), expected(cols);
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
