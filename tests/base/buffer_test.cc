#include "base/buffer.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <utility>

#include "base/view.h"

namespace mkv {
namespace {

TEST(Buffer, IsZeroedAndAligned) {
  for (const size_t size : {1u, 15u, 16u, 17u, 1000u}) {
    const Buffer<float> buffer(size);
    EXPECT_EQ(buffer.size(), size);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer.data()) % Buffer<float>::kAlignment, 0u);
    EXPECT_TRUE(std::all_of(buffer.begin(), buffer.end(), [](float x) { return x == 0.0f; }));
  }
  EXPECT_EQ(Buffer<float>().size(), 0u);
  EXPECT_TRUE(Buffer<float>(0).span().empty());
}

TEST(Buffer, ResizeKeepsTheStartAndZeroesTheRest) {
  Buffer<int> buffer(2);
  buffer[0] = 1;
  buffer[1] = 2;
  buffer.resize(100);
  EXPECT_EQ(buffer[1], 2);
  EXPECT_EQ(buffer[99], 0);
  buffer[50] = 5;
  const int* data = buffer.data();
  buffer.resize(1);
  buffer.resize(100);
  EXPECT_EQ(buffer.data(), data);  // never gives memory back
  EXPECT_EQ(buffer[0], 1);
  EXPECT_EQ(buffer[1], 0);
  EXPECT_EQ(buffer[50], 0);
}

TEST(Buffer, ReserveAndResizeExactly) {
  Buffer<int> buffer;
  buffer.reserve(64);
  const int* data = buffer.data();
  EXPECT_EQ(buffer.size(), 0u);
  EXPECT_EQ(buffer.bytes(), 256u);
  buffer.resize(64);
  EXPECT_EQ(buffer.data(), data);
  buffer[0] = 7;
  buffer.resize_exactly(3);
  EXPECT_EQ(buffer.bytes(), 12u);
  EXPECT_EQ(buffer[0], 7);
  buffer.resize_exactly(0);
  EXPECT_EQ(buffer.bytes(), 0u);
  buffer.resize(2);
  EXPECT_EQ(buffer[0], 0);
}

TEST(Buffer, MovesAndClones) {
  Buffer<int> a(3);
  a[2] = 9;
  const Buffer<int> copy = a.clone();
  a[2] = 1;
  EXPECT_EQ(copy[2], 9);
  const int* data = a.data();
  Buffer<int> b = std::move(a);
  EXPECT_EQ(b.data(), data);
  Buffer<int> c(5);
  c = std::move(b);
  EXPECT_EQ(c.data(), data);
  EXPECT_EQ(c.size(), 3u);
}

TEST(Matrix, RowsAndViews) {
  Matrix<float> matrix(3, 4);
  matrix.at(2, 1) = 5.0f;
  EXPECT_EQ(matrix.row(2)[1], 5.0f);
  EXPECT_EQ(matrix.span()[9], 5.0f);
  const View<float> view = matrix.view();
  EXPECT_EQ(view.rows_from(1, 2).at(1, 1), 5.0f);
  const View<const float> columns(matrix.data() + 1, 3, 2, 4);  // the middle two
  EXPECT_EQ(columns.at(2, 0), 5.0f);
  const Matrix<float> copy = matrix.clone();
  matrix.reshape(1, 2);
  EXPECT_EQ(matrix.span().size(), 2u);
  EXPECT_EQ(copy.at(2, 1), 5.0f);
}

}  // namespace
}  // namespace mkv
