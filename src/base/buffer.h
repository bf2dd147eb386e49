// Buffer<T>: zeroed, 64-byte aligned storage of trivial elements; moves, never copies silently.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <span>
#include <type_traits>
#include <utility>

#include "base/check.h"
#include "base/large_pages.h"
#include "base/view.h"

namespace mkv {

template <class T>
class Buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  static constexpr size_t kAlignment = 64;

  Buffer() = default;
  explicit Buffer(size_t size) { resize(size); }
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(std::exchange(other.size_, 0)),
        capacity_(std::exchange(other.capacity_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { std::free(data_); }

  Buffer clone() const {
    Buffer copy(size_);
    if (size_ != 0) std::memcpy(copy.data_, data_, size_ * sizeof(T));
    return copy;
  }
  // Keeps the leading elements and zeroes what is added. Never gives memory back.
  void resize(size_t size) {
    if (size > capacity_) reallocate(size);
    if (size > size_) std::memset(static_cast<void*>(data_ + size_), 0, (size - size_) * sizeof(T));
    size_ = size;
  }
  // Makes room for `capacity` elements without changing the size.
  void reserve(size_t capacity) {
    if (capacity > capacity_) reallocate(capacity);
  }
  // Like resize, but the memory is exactly what `size` needs.
  void resize_exactly(size_t size) {
    if (size != capacity_) {
      size_ = std::min(size_, size);
      reallocate(size);
    }
    resize(size);
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  size_t bytes() const { return capacity_ * sizeof(T); }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }
  std::span<T> span() { return {data_, size_}; }
  std::span<const T> span() const { return {data_, size_}; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }

 private:
  void reallocate(size_t capacity) {
    T* fresh = nullptr;
    if (capacity != 0) {
      MKV_CHECK(capacity <= (size_t{1} << 60) / sizeof(T));
      const size_t bytes = (capacity * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
      fresh = static_cast<T*>(std::aligned_alloc(kAlignment, bytes));
      MKV_CHECK(fresh != nullptr);
      prefer_large_pages(fresh, bytes);
      if (size_ != 0) std::memcpy(static_cast<void*>(fresh), data_, size_ * sizeof(T));
    }
    std::free(data_);
    data_ = fresh;
    capacity_ = capacity;
  }

  T* data_ = nullptr;
  size_t size_ = 0, capacity_ = 0;
};

// A Buffer with a shape, [rows x cols] row-major.
template <class T>
class Matrix {
 public:
  Matrix() = default;
  Matrix(size_t rows, size_t cols) : buffer_(rows * cols), rows_(rows), cols_(cols) {}

  void reshape(size_t rows, size_t cols) {
    buffer_.resize(rows * cols);
    rows_ = rows;
    cols_ = cols;
  }
  Matrix clone() const {
    Matrix copy;
    copy.buffer_ = buffer_.clone();
    copy.rows_ = rows_;
    copy.cols_ = cols_;
    return copy;
  }
  size_t rows() const { return rows_; }
  size_t cols() const { return cols_; }
  T* data() { return buffer_.data(); }
  const T* data() const { return buffer_.data(); }
  std::span<T> row(size_t r) { return {buffer_.data() + r * cols_, cols_}; }
  std::span<const T> row(size_t r) const { return {buffer_.data() + r * cols_, cols_}; }
  T& at(size_t r, size_t c) { return buffer_[r * cols_ + c]; }
  const T& at(size_t r, size_t c) const { return buffer_[r * cols_ + c]; }
  View<T> view() { return {buffer_.data(), rows_, cols_}; }
  View<const T> view() const { return {buffer_.data(), rows_, cols_}; }
  std::span<T> span() { return {buffer_.data(), rows_ * cols_}; }
  std::span<const T> span() const { return {buffer_.data(), rows_ * cols_}; }

 private:
  Buffer<T> buffer_;
  size_t rows_ = 0, cols_ = 0;
};

}  // namespace mkv
