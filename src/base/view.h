// View<T>: a matrix that somebody else owns. Never stored beyond the call it is passed to.
#pragma once

#include <cstddef>
#include <span>

#include "base/check.h"

namespace mkv {

template <class T>
struct View {
  T* data = nullptr;
  size_t rows = 0, cols = 0;
  size_t stride = 0;  // elements from one row to the next

  View() = default;
  View(T* d, size_t r, size_t c, size_t s) : data(d), rows(r), cols(c), stride(s) {}
  View(T* d, size_t r, size_t c) : View(d, r, c, c) {}
  operator View<const T>() const { return {data, rows, cols, stride}; }  // NOLINT: implicit

  std::span<T> row(size_t r) const { return {data + r * stride, cols}; }
  T& at(size_t r, size_t c) const { return data[r * stride + c]; }
  View rows_from(size_t first, size_t count) const {
    MKV_CHECK(first + count <= rows);
    return {data + first * stride, count, cols, stride};
  }
};

}  // namespace mkv
