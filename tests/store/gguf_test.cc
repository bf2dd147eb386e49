#include "store/gguf.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <string>
#include <vector>

#include "base/rng.h"
#include "store/gguf_builder.h"
#include "store/temp_dir.h"

namespace mkv {
namespace {

using testing::bytes_of;
using ::testing::ElementsAre;
using testing::GgufBuilder;
using ::testing::HasSubstr;
using testing::small_gguf;
using B = GgufBuilder;
using GgufFileTest = testing::TempDir;

Result<GgufFile> parse(std::string_view bytes) {
  return GgufFile::parse(bytes_of(bytes), "t.gguf");
}

std::string error_of(std::string_view bytes) {
  const auto file = parse(bytes);
  return file ? "no error" : file.error().message;
}

// Everything a caller may ask of a file; the sanitizers watch.
size_t walk(const GgufFile& file) {
  size_t sum = 0;
  for (const auto& [key, value] : file.metadata().values()) {
    const auto& metadata = file.metadata();
    if (const auto v = metadata.find<uint64_t>(key)) sum += v->has_value();
    if (const auto v = metadata.find<double>(key)) sum += v->has_value();
    if (const auto v = metadata.find<bool>(key)) sum += v->has_value();
    if (const auto v = metadata.find<std::string_view>(key)) sum += (*v)->size();
    if (const auto v = metadata.find<std::vector<int32_t>>(key)) sum += (*v)->size();
    if (const auto v = metadata.find<std::vector<float>>(key)) sum += (*v)->size();
    if (const auto v = metadata.find<std::vector<std::string_view>>(key)) {
      for (const std::string_view text : **v) sum += std::string(text).size();
    }
  }
  for (const TensorView& tensor : file.tensors()) {
    for (size_t i = 0; i < tensor.size_bytes; ++i) sum += static_cast<size_t>(tensor.data[i]);
  }
  return sum;
}

TEST_F(GgufFileTest, ReadsWhatWasWritten) {
  const auto path = write("small.gguf", small_gguf().build());
  auto opened = GgufFile::open(path);
  ASSERT_TRUE(opened) << opened.error().message;
  const GgufFile file = *std::move(opened);
  EXPECT_EQ(file.path(), path.string());
  ASSERT_EQ(file.tensors().size(), 3u);
  const TensorView* embedding = *file.get("token_embd.weight");
  EXPECT_EQ(embedding->type, DType::f32);
  EXPECT_THAT(embedding->shape, ElementsAre(3, 4));
  EXPECT_EQ(embedding->size_bytes, 48u);
  EXPECT_EQ(embedding->data[7], std::byte{7});
  EXPECT_EQ(reinterpret_cast<uintptr_t>(embedding->data) % 32, 0u);
  EXPECT_EQ((*file.get("blk.0.attn_q.weight"))->type, DType::q8_0);
  EXPECT_EQ((*file.get("output_norm.weight"))->type, DType::bf16);
  EXPECT_EQ(*file.find("rope_freqs.weight"), nullptr);
  EXPECT_THAT(file.get("rope_freqs.weight").error().message,
              HasSubstr("small.gguf: tensor rope_freqs.weight: not there"));
}

TEST(GgufMetadata, ConvertsValues) {
  const std::string bytes = small_gguf().build();
  const auto file = parse(bytes);
  ASSERT_TRUE(file) << file.error().message;
  const GgufMetadata& m = file->metadata();
  EXPECT_EQ(*m.get<std::string_view>("general.architecture"), "llama");
  EXPECT_EQ(*m.get<uint64_t>("llama.block_count"), 2u);
  EXPECT_EQ(*m.get<uint64_t>("u8"), 200u);
  EXPECT_EQ(*m.get<double>("llama.rope.freq_base"), 10000.0);
  EXPECT_EQ(*m.get<double>("f64"), 0.25);
  EXPECT_EQ(*m.get<double>("i64"), -5.0);
  EXPECT_TRUE(*m.get<bool>("tokenizer.ggml.add_bos_token"));
  EXPECT_THAT(*m.get<std::vector<std::string_view>>("tokenizer.ggml.tokens"),
              ElementsAre("<s>", "", "a b"));
  EXPECT_THAT(*m.get<std::vector<int32_t>>("tokenizer.ggml.token_type"), ElementsAre(3, 1, -1));
  EXPECT_THAT(*m.get<std::vector<float>>("tokenizer.ggml.scores"), ElementsAre(0.0f, -1.5f, 2.0f));
  EXPECT_TRUE(m.is_array("tokenizer.ggml.tokens"));
  EXPECT_FALSE(m.is_array("u8"));
  EXPECT_FALSE((*m.find<uint64_t>("absent")).has_value());
  EXPECT_EQ(*m.get_or<uint64_t>("absent", 7), 7u);
  EXPECT_EQ(*m.get_or<uint64_t>("u8", 7), 200u);
}

TEST(GgufMetadata, RefusesOtherTypes) {
  const std::string bytes = small_gguf()
                                .scalar<uint8_t>("two", B::kBool, 2)
                                .array<uint32_t>("big", B::kU32, {1, 3000000000})
                                .build();
  const auto file = parse(bytes);
  ASSERT_TRUE(file) << file.error().message;
  const GgufMetadata& m = file->metadata();
  EXPECT_EQ(m.get<uint64_t>("absent").error().message, "t.gguf: key absent: not there");
  EXPECT_EQ(m.get<uint64_t>("absent").error().code, ErrorCode::not_found);
  EXPECT_EQ(m.get<uint64_t>("i64").error().message,
            "t.gguf: key i64: expected a number from 0 to 18446744073709551615, found -5");
  EXPECT_EQ(m.get<uint64_t>("f64").error().message,
            "t.gguf: key f64: expected an integer, found f64");
  EXPECT_EQ(m.get<double>("general.architecture").error().message,
            "t.gguf: key general.architecture: expected a number, found string");
  EXPECT_EQ(m.get<std::string_view>("tokenizer.ggml.tokens").error().message,
            "t.gguf: key tokenizer.ggml.tokens: expected a string, found an array of string");
  EXPECT_EQ(m.get<bool>("two").error().message, "t.gguf: key two: expected 0 or 1, found 2");
  EXPECT_EQ(m.get<std::vector<int32_t>>("big").error().message,
            "t.gguf: key big: expected a number from -2147483648 to 2147483647, found 3000000000");
  EXPECT_FALSE(m.get<std::vector<int32_t>>("tokenizer.ggml.scores"));
  EXPECT_FALSE(m.get<std::vector<float>>("u8"));
  EXPECT_FALSE(m.get<std::vector<std::string_view>>("general.architecture"));
  EXPECT_FALSE(m.get_or<bool>("u8", false));
}

TEST(GgufFile, ChecksTheHeader) {
  B builder = small_gguf();
  builder.magic = "GG\nX";
  EXPECT_EQ(error_of(builder.build()),
            "t.gguf: not a GGUF file: expected the magic GGUF, found GG\\x0aX");
  builder = small_gguf();
  builder.version = 1;
  EXPECT_EQ(error_of(builder.build()), "t.gguf: expected GGUF version 2 or 3, found 1");
  builder.version = 0x03000000;
  EXPECT_THAT(error_of(builder.build()), HasSubstr("a big-endian file is not supported"));
  builder.version = 2;
  EXPECT_EQ(error_of(builder.build()), "no error");
  EXPECT_THAT(error_of(""), HasSubstr("magic: expected 4 bytes at offset 0, found 0"));
}

TEST(GgufFile, RefusesHostileCounts) {
  for (const uint64_t count : {uint64_t{1} << 63, ~uint64_t{0} - 100, uint64_t{1} << 32}) {
    B builder = small_gguf();
    builder.more_tensors = count;
    EXPECT_THAT(error_of(builder.build()), HasSubstr("tensors: " + std::to_string(count + 3)));
    builder = small_gguf();
    builder.more_keys = count;
    EXPECT_THAT(error_of(builder.build()), HasSubstr("keys: " + std::to_string(count + 10)));
    std::string array;
    testing::append(array, B::kI32);
    testing::append(array, count);
    EXPECT_THAT(error_of(B().raw("a", B::kArray, array).build()),
                HasSubstr("t.gguf: key a: elements: " + std::to_string(count)));
    std::string string;
    testing::append(string, count);
    EXPECT_THAT(error_of(B().raw("s", B::kString, string).build()),
                HasSubstr("expected " + std::to_string(count) + " bytes at offset"));
    EXPECT_NE(error_of(B().tensor_at("t", 0, {count, count, 2, 2}, 0).build()), "no error");
  }
}

TEST(GgufFile, ChecksKeys) {
  EXPECT_EQ(error_of(B().string("k\n", "a").string("k\n", "b").build()),
            "t.gguf: key k\\x0a: expected once, found twice");
  EXPECT_EQ(error_of(B().scalar<uint32_t>("k", 13, 1).build()),
            "t.gguf: key k: expected a value type below 13, found 13");
  std::string nested;
  testing::append(nested, B::kArray);
  testing::append<uint64_t>(nested, 0);
  EXPECT_EQ(error_of(B().raw("k", B::kArray, nested).build()),
            "t.gguf: key k: an array of arrays is not supported");
  for (const uint32_t alignment : {0u, 4u, 48u, 1u << 17}) {
    EXPECT_EQ(error_of(B().scalar("general.alignment", B::kU32, alignment).build()),
              "t.gguf: key general.alignment: expected a power of two from 8 to 65536, found " +
                  std::to_string(alignment));
  }
  B wide;
  wide.alignment = 64;
  wide.scalar<uint32_t>("general.alignment", B::kU32, 64)
      .tensor("a", 0, {1}, 4)
      .tensor("b", 0, {1}, 4);
  EXPECT_EQ(error_of(wide.build()), "no error");
}

TEST(GgufFile, ChecksTensors) {
  EXPECT_EQ(error_of(B().tensor("t", 0, {1, 1, 1, 1, 1}, 4).build()),
            "t.gguf: tensor t: expected 1 to 4 dimensions, found 5");
  EXPECT_EQ(error_of(B().tensor("t", 0, {}, 4).build()),
            "t.gguf: tensor t: expected 1 to 4 dimensions, found 0");
  EXPECT_EQ(error_of(B().tensor("t", 0, {4, 0}, 4).build()),
            "t.gguf: tensor t: expected extents of 1 or more, found 0");
  EXPECT_EQ(error_of(B().tensor("t", 12, {128}, 144).build()),
            "t.gguf: tensor t: expected a multiple of 256 columns for Q4_K, found 128");
  EXPECT_EQ(error_of(B().tensor("t", 0, {1u << 31, 1u << 31}, 4).build()),
            "t.gguf: tensor t: shape [2147483648, 2147483648]: expected at most 2^56 elements");
  EXPECT_EQ(error_of(B().tensor("t", 0, {64}, 128).build()),
            "t.gguf: tensor t: expected 256 bytes for F32 [64] at offset 0 of the data, found 128 "
            "bytes of data");
  EXPECT_EQ(error_of(B().tensor("a", 0, {1}, 4).tensor_at("t", 0, {1}, ~uint64_t{31}).build()),
            "t.gguf: tensor t: expected 4 bytes for F32 [1] at offset 18446744073709551584 of the "
            "data, found 4 bytes of data");
  EXPECT_EQ(error_of(B().tensor("t", 0, {16}, 64).tensor_at("u", 0, {1}, 4).build()),
            "t.gguf: tensor u: expected a multiple of 32 as offset, found 4");
  EXPECT_EQ(error_of(B().tensor("t", 0, {16}, 64).tensor_at("u", 0, {8}, 32).build()),
            "t.gguf: tensor u: expected to begin at 64 or later, where t ends, found 32");
  EXPECT_EQ(error_of(B().tensor("t", 0, {8}, 32).tensor("t", 0, {8}, 32).build()),
            "t.gguf: tensor t: expected once, found twice");
}

TEST(GgufFile, UnknownTypesAreErrorsWhenAskedFor) {
  const std::string bytes =
      B().tensor("a", 23, {256}, 136).tensor("b", 99, {1}, 1).tensor("c", 1, {2}, 4).build();
  const auto file = parse(bytes);
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->tensors().size(), 1u);
  EXPECT_TRUE(file->get("c"));
  EXPECT_EQ(file->find("a").error().message,
            "t.gguf: tensor a: type id 23 (IQ4_XS) is not supported");
  EXPECT_EQ(file->get("b").error().message, "t.gguf: tensor b: type id 99 is not supported");
  EXPECT_EQ(file->get("b").error().code, ErrorCode::unsupported);
}

TEST(GgufFile, EveryTruncationIsAnError) {
  const std::string bytes = small_gguf().build();
  for (size_t size = 0; size < bytes.size(); ++size) {
    const std::vector<char> cut(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size));
    EXPECT_FALSE(parse({cut.data(), cut.size()})) << size;
  }
  EXPECT_TRUE(parse(bytes));
}

TEST(GgufFile, SurvivesFlippedBytes) {
  const std::string bytes = small_gguf().build();
  Rng rng(1);
  size_t sum = 0, refused = 0;
  for (int i = 0; i < 5000; ++i) {
    std::vector<char> broken(bytes.begin(), bytes.end());
    for (size_t flips = 1 + rng.below(3); flips > 0; --flips) {
      broken[rng.below(broken.size())] = static_cast<char>(rng.next());
    }
    const auto file = parse({broken.data(), broken.size()});
    if (file) {
      sum += walk(*file);
    } else {
      ++refused;
      EXPECT_THAT(file.error().message, ::testing::StartsWith("t.gguf: "));
      EXPECT_EQ(file.error().message.find('\n'), std::string::npos);
    }
  }
  EXPECT_GT(sum, 0u);
  EXPECT_GT(refused, 500u);
}

TEST_F(GgufFileTest, RefusesWhatIsNoFile) {
  EXPECT_EQ(GgufFile::open(dir_ / "absent").error().code, ErrorCode::not_found);
  EXPECT_THAT(GgufFile::open(dir_).error().message, HasSubstr("Is a directory"));
  ASSERT_EQ(mkfifo((dir_ / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(GgufFile::open(dir_ / "pipe").error().message, HasSubstr("a pipe or device"));
  EXPECT_THAT(GgufFile::open(write("empty", "")).error().message, HasSubstr("found 0"));
}

}  // namespace
}  // namespace mkv
