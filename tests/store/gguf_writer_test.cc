#include "store/gguf_writer.h"

#include <gmock/gmock.h>

#include "store/gguf_builder.h"
#include "store/temp_dir.h"

namespace mkv {
namespace {

using testing::bytes_of;
using ::testing::HasSubstr;
using testing::small_gguf;
using GgufWriterTest = testing::TempDir;

std::vector<TensorView> tensors_of(const GgufFile& file) {
  return {file.tensors().begin(), file.tensors().end()};
}

void expect_same_metadata(const GgufMetadata& a, const GgufMetadata& b) {
  ASSERT_EQ(a.values().size(), b.values().size());
  for (const auto& [key, value] : a.values()) {
    ASSERT_TRUE(b.contains(key)) << key;
    const GgufMetadata::Value& other = b.values().at(key);
    EXPECT_EQ(value.type, other.type) << key;
    EXPECT_EQ(value.array, other.array) << key;
    EXPECT_EQ(value.count, other.count) << key;
    EXPECT_TRUE(std::ranges::equal(value.bytes, other.bytes)) << key;
  }
}

TEST_F(GgufWriterTest, WhatWasReadComesBack) {
  for (const uint64_t alignment : {uint64_t{32}, uint64_t{16}}) {
    auto builder = small_gguf();
    if (alignment != 32) {
      builder.scalar<uint64_t>("general.alignment", testing::GgufBuilder::kU64, alignment);
      builder.alignment = alignment;
    }
    const std::string bytes = builder.build();
    const auto from = GgufFile::parse(bytes_of(bytes), "small.gguf");
    ASSERT_TRUE(from) << from.error().message;
    const auto path = dir_ / "written.gguf";
    ASSERT_TRUE(write_gguf(path, from->metadata(), {}, tensors_of(*from)));
    const auto back = GgufFile::open(path);
    ASSERT_TRUE(back) << back.error().message;
    expect_same_metadata(from->metadata(), back->metadata());
    ASSERT_EQ(back->tensors().size(), from->tensors().size());
    for (const TensorView& tensor : from->tensors()) {
      const auto found = back->get(tensor.name);
      ASSERT_TRUE(found);
      EXPECT_EQ((*found)->type, tensor.type);
      EXPECT_EQ((*found)->shape, tensor.shape);
      EXPECT_TRUE(std::ranges::equal(std::span((*found)->data, (*found)->size_bytes),
                                     std::span(tensor.data, tensor.size_bytes)));
    }
  }
}

TEST_F(GgufWriterTest, NumbersReplaceKeysOrAreAdded) {
  const std::string bytes = small_gguf().build();
  const auto from = GgufFile::parse(bytes_of(bytes), "small.gguf");
  ASSERT_TRUE(from);
  const auto path = dir_ / "written.gguf";
  ASSERT_TRUE(write_gguf(path, from->metadata(),
                         {{"llama.block_count", 7}, {"general.file_type", 1}}, tensors_of(*from)));
  const auto back = GgufFile::open(path);
  ASSERT_TRUE(back) << back.error().message;
  EXPECT_EQ(*back->metadata().get<uint64_t>("llama.block_count"), 7u);
  EXPECT_EQ(*back->metadata().get<uint64_t>("general.file_type"), 1u);
  EXPECT_EQ(back->metadata().values().size(), from->metadata().values().size() + 1);
}

TEST_F(GgufWriterTest, BytesThatAreNotTheShapesAreAnError) {
  const std::string bytes = small_gguf().build();
  const auto from = GgufFile::parse(bytes_of(bytes), "small.gguf");
  ASSERT_TRUE(from);
  std::vector<TensorView> tensors = tensors_of(*from);
  tensors[0].size_bytes -= 4;
  const auto wrong = write_gguf(dir_ / "written.gguf", from->metadata(), {}, tensors);
  ASSERT_FALSE(wrong);
  EXPECT_THAT(wrong.error().message, HasSubstr(tensors[0].name));
  EXPECT_EQ(entries(), 0u);
}

}  // namespace
}  // namespace mkv
