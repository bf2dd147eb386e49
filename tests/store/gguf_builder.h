// Builds small GGUF and safetensors files, sound or with one thing wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace mkv::testing {

inline std::span<const std::byte> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}

template <class T>
void append(std::string& bytes, T value) {
  const size_t size = bytes.size();
  bytes.resize(size + sizeof(T));
  std::memcpy(bytes.data() + size, &value, sizeof(T));
}

inline void append_string(std::string& bytes, std::string_view text) {
  append<uint64_t>(bytes, text.size());
  bytes += text;
}

class GgufBuilder {
 public:
  static constexpr uint32_t kU8 = 0, kI8 = 1, kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7, kString = 8,
                            kArray = 9, kU64 = 10, kI64 = 11, kF64 = 12;

  std::string magic = "GGUF";
  uint32_t version = 3;
  uint64_t alignment = 32;                   // of the data; the key is not written by itself
  uint64_t more_tensors = 0, more_keys = 0;  // added to the true counts

  template <class T>
  GgufBuilder& scalar(std::string_view key, uint32_t type, T value) {
    begin_key(key, type);
    append(keys_, value);
    return *this;
  }
  GgufBuilder& string(std::string_view key, std::string_view value) {
    begin_key(key, kString);
    append_string(keys_, value);
    return *this;
  }
  GgufBuilder& strings(std::string_view key, const std::vector<std::string>& values) {
    begin_key(key, kArray);
    append(keys_, kString);
    append<uint64_t>(keys_, values.size());
    for (const auto& value : values) append_string(keys_, value);
    return *this;
  }
  template <class T>
  GgufBuilder& array(std::string_view key, uint32_t type, const std::vector<T>& values) {
    begin_key(key, kArray);
    append(keys_, type);
    append<uint64_t>(keys_, values.size());
    for (const T value : values) append(keys_, value);
    return *this;
  }
  // Bytes that follow the key and its type as they are.
  GgufBuilder& raw(std::string_view key, uint32_t type, std::string_view bytes) {
    begin_key(key, type);
    keys_ += bytes;
    return *this;
  }
  // `extents` innermost first, as the file has them; the data goes to the next aligned offset.
  GgufBuilder& tensor(std::string_view name, uint32_t type, const std::vector<uint64_t>& extents,
                      size_t data_bytes) {
    data_.resize((data_.size() + alignment - 1) / alignment * alignment);
    tensor_at(name, type, extents, data_.size());
    for (size_t i = 0; i < data_bytes; ++i) data_ += static_cast<char>(i);
    return *this;
  }
  GgufBuilder& tensor_at(std::string_view name, uint32_t type, const std::vector<uint64_t>& extents,
                         uint64_t offset) {
    append_string(tensors_, name);
    append(tensors_, static_cast<uint32_t>(extents.size()));
    for (const uint64_t extent : extents) append(tensors_, extent);
    append(tensors_, type);
    append(tensors_, offset);
    ++tensor_count_;
    return *this;
  }
  std::string build() const {
    std::string file = magic;
    append(file, version);
    append(file, tensor_count_ + more_tensors);
    append(file, key_count_ + more_keys);
    file += keys_ + tensors_;
    file.resize((file.size() + alignment - 1) / alignment * alignment);
    return file + data_;
  }

 private:
  void begin_key(std::string_view key, uint32_t type) {
    append_string(keys_, key);
    append(keys_, type);
    ++key_count_;
  }

  std::string keys_, tensors_, data_;
  uint64_t key_count_ = 0, tensor_count_ = 0;
};

// One of each kind of value, and three tensors: F32 [3, 4], Q8_0 [2, 32], BF16 [5].
inline GgufBuilder small_gguf() {
  using B = GgufBuilder;
  B builder;
  builder.string("general.architecture", "llama")
      .scalar<uint32_t>("llama.block_count", B::kU32, 2)
      .scalar<uint8_t>("u8", B::kU8, 200)
      .scalar<int64_t>("i64", B::kI64, -5)
      .scalar<float>("llama.rope.freq_base", B::kF32, 10000.0f)
      .scalar<double>("f64", B::kF64, 0.25)
      .scalar<uint8_t>("tokenizer.ggml.add_bos_token", B::kBool, 1)
      .strings("tokenizer.ggml.tokens", {"<s>", "", "a b"})
      .array<int32_t>("tokenizer.ggml.token_type", B::kI32, {3, 1, -1})
      .array<float>("tokenizer.ggml.scores", B::kF32, {0.0f, -1.5f, 2.0f})
      .tensor("token_embd.weight", 0, {4, 3}, 48)
      .tensor("blk.0.attn_q.weight", 8, {32, 2}, 68)
      .tensor("output_norm.weight", 30, {5}, 10);
  return builder;
}

inline std::string safetensors_bytes(std::string_view header, size_t data_bytes) {
  std::string file;
  append<uint64_t>(file, header.size());
  file += header;
  for (size_t i = 0; i < data_bytes; ++i) file += static_cast<char>(i);
  return file;
}

}  // namespace mkv::testing
