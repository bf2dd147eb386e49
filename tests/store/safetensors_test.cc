#include "store/safetensors.h"

#include <gmock/gmock.h>

#include <array>
#include <string>
#include <vector>

#include "base/rng.h"
#include "store/gguf_builder.h"
#include "store/temp_dir.h"

namespace mkv {
namespace {

using testing::bytes_of;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using testing::safetensors_bytes;
using SafetensorsTest = testing::TempDir;

// F32 [2, 3], I16 [2], U8 [4], and F16 [] (one element).
constexpr std::string_view kHeader = R"({"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
                                     R"("b":{"dtype":"I16","shape":[2],"data_offsets":[24,28]},)"
                                     R"("__metadata__":{"format":"pt"},)"
                                     R"("c":{"dtype":"U8","shape":[4],"data_offsets":[28,32]},)"
                                     R"("d":{"dtype":"F16","shape":[],"data_offsets":[32,34]}})";

Result<SafetensorsFile> parse(std::string_view bytes) {
  return SafetensorsFile::parse(bytes_of(bytes), "t.safetensors");
}

std::string error_of(std::string_view header, size_t data_bytes) {
  const auto file = parse(safetensors_bytes(header, data_bytes));
  return file ? "no error" : file.error().message;
}

TEST(SafetensorsFile, ReadsAFile) {
  const std::string bytes = safetensors_bytes(kHeader, 34);
  const auto file = parse(bytes);
  ASSERT_TRUE(file) << file.error().message;
  const TensorView* a = *file->get("a");
  EXPECT_EQ(a->type, DType::f32);
  EXPECT_THAT(a->shape, ElementsAre(2, 3));
  EXPECT_EQ(a->size_bytes, 24u);
  EXPECT_EQ(a->data[5], std::byte{5});
  EXPECT_EQ((*file->get("d"))->shape.size(), 0u);
  EXPECT_EQ(*file->find("absent"), nullptr);
  EXPECT_EQ(file->get("absent").error().message, "t.safetensors: tensor absent: not there");
  EXPECT_EQ(file->find("b").error().message, "t.safetensors: tensor b: type I16 is not supported");
  EXPECT_EQ(file->find("b").error().code, ErrorCode::unsupported);
  ASSERT_EQ(file->raw_tensors().size(), 4u);
  const RawTensor* c = file->find_raw("c");
  ASSERT_NE(c, nullptr);
  EXPECT_EQ(c->dtype, "U8");
  EXPECT_EQ(c->bytes[0], std::byte{28});
  EXPECT_EQ(file->find_raw("absent"), nullptr);
  EXPECT_THAT(file->metadata(), ElementsAre(Pair("format", "pt")));
}

TEST(SafetensorsFile, AlignsWhatTheWriterDidNot) {
  for (size_t padding = 0; padding < 4; ++padding) {
    const std::string header =
        R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})" + std::string(padding, ' ');
    const std::string bytes = safetensors_bytes(header, 4);
    auto parsed = parse(bytes);
    ASSERT_TRUE(parsed) << parsed.error().message;
    const SafetensorsFile file = *std::move(parsed);
    const TensorView* a = *file.get("a");
    EXPECT_EQ(reinterpret_cast<uintptr_t>(a->data) % 4, 0u);
    EXPECT_EQ(a->data[3], std::byte{3});
  }
}

TEST(SafetensorsFile, ChecksTheHeader) {
  EXPECT_EQ(error_of("[]", 0), "t.safetensors: header: expected an object, found array");
  EXPECT_THAT(error_of("{", 0), HasSubstr("t.safetensors: header: parse error"));
  EXPECT_EQ(error_of("{}", 0), "no error");
  EXPECT_EQ(error_of("{}", 3), "t.safetensors: expected 0 bytes of data for all tensors, found 3");
  EXPECT_EQ(error_of(R"({"__metadata__":{"a":1}})", 0),
            "t.safetensors: key a: expected a string, found 1");
  EXPECT_EQ(error_of(R"({"__metadata__":[]})", 0),
            "t.safetensors: key __metadata__: expected an object, found array");
  std::string bytes;
  testing::append<uint64_t>(bytes, 100'000'001);
  EXPECT_EQ(parse(bytes).error().message,
            "t.safetensors: expected a header of at most 100000000 bytes, found 100000001");
  bytes.clear();
  testing::append<uint64_t>(bytes, 10);
  EXPECT_EQ(parse(bytes).error().message,
            "t.safetensors: header: expected 10 bytes at offset 8, found 0");
  EXPECT_THAT(error_of(std::string(1'000'000, '['), 0),
              HasSubstr("nested deeper than 64 levels at byte 64"));
}

TEST(SafetensorsFile, ChecksTensors) {
  const auto one = [](std::string_view entry, size_t data_bytes) {
    return error_of(R"({"model.norm.weight":)" + std::string(entry) + "}", data_bytes);
  };
  const std::string where = "t.safetensors: tensor model.norm.weight: ";
  EXPECT_EQ(one(R"({"dtype":"F32","shape":[64],"data_offsets":[0,128]})", 128),
            where + "expected 256 bytes for F32 [64], found 128");
  EXPECT_EQ(one(R"({"dtype":"F32","shape":[64],"data_offsets":[0,256]})", 128),
            where + "expected 256 bytes of data, found 128");
  EXPECT_EQ(one(R"({"dtype":"F32","shape":[1],"data_offsets":[4,0]})", 4),
            where + "key data_offsets: expected [begin, end], found [4, 0]");
  EXPECT_EQ(one(R"({"dtype":"F32","shape":[1],"data_offsets":[4]})", 4),
            where + "key data_offsets: expected [begin, end], found [4]");
  EXPECT_EQ(one(R"({"dtype":"F32","shape":[-1],"data_offsets":[0,4]})", 4),
            where + "key shape: expected a whole number from 0 to 2^53, found -1");
  EXPECT_EQ(one(R"({"dtype":"F32","shape":[1.5],"data_offsets":[0,4]})", 4),
            where + "key shape: expected a whole number from 0 to 2^53, found 1.5");
  EXPECT_THAT(one(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]})", 4),
              HasSubstr("expected at most 2^56 elements"));
  EXPECT_EQ(one(R"({"dtype":7,"shape":[1],"data_offsets":[0,4]})", 4),
            where + "key dtype: expected a string, found 7");
  EXPECT_EQ(one(R"({"dtype":"F32","data_offsets":[0,4]})", 4),
            where + "key shape: not there, or null");
  EXPECT_EQ(one("3", 4), where + "key dtype: expected an object, found 3");
  EXPECT_EQ(one(R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})", 8),
            where + "expected to begin at 0, where the one before ends, found 4");
}

TEST(SafetensorsFile, RefusesOverlapsAndHoles) {
  const auto two = [](std::string_view begin, std::string_view end, size_t data_bytes) {
    return error_of(R"({"a":{"dtype":"U8","shape":[8],"data_offsets":[0,8]},)"
                    R"("b":{"dtype":"U8","shape":[4],"data_offsets":[)" +
                        std::string(begin) + "," + std::string(end) + "]}}",
                    data_bytes);
  };
  EXPECT_EQ(two("8", "12", 12), "no error");
  EXPECT_EQ(two("4", "8", 8),
            "t.safetensors: tensor b: expected to begin at 8, where the one before ends, found 4");
  EXPECT_EQ(two("9", "13", 13),
            "t.safetensors: tensor b: expected to begin at 8, where the one before ends, found 9");
  EXPECT_EQ(two("8", "12", 13),
            "t.safetensors: expected 12 bytes of data for all tensors, found 13");
}

TEST(SafetensorsFile, KeepsUnknownTypes) {
  const std::string bytes =
      safetensors_bytes(R"({"a":{"dtype":"","shape":[3],"data_offsets":[0,2]},)"
                        R"("b":{"dtype":"F4\n","shape":[3],"data_offsets":[2,4]}})",
                        4);
  const auto file = parse(bytes);
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_FALSE(file->find("a"));
  EXPECT_EQ(file->find("b").error().message,
            "t.safetensors: tensor b: type F4\\x0a is not supported");
}

TEST(SafetensorsFile, EveryTruncationIsAnError) {
  const std::string bytes = safetensors_bytes(kHeader, 34);
  for (size_t size = 0; size < bytes.size(); ++size) {
    const std::vector<char> cut(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size));
    EXPECT_FALSE(parse({cut.data(), cut.size()})) << size;
  }
}

TEST(SafetensorsFile, SurvivesFlippedBytes) {
  const std::string bytes = safetensors_bytes(kHeader, 34);
  Rng rng(2);
  size_t sum = 0;
  for (int i = 0; i < 5000; ++i) {
    std::vector<char> broken(bytes.begin(), bytes.end());
    for (size_t flips = 1 + rng.below(2); flips > 0; --flips) {
      broken[rng.below(broken.size())] = static_cast<char>(rng.next());
    }
    const auto file = parse({broken.data(), broken.size()});
    if (!file) {
      EXPECT_EQ(file.error().message.find('\n'), std::string::npos);
      continue;
    }
    for (const RawTensor& tensor : file->raw_tensors()) {
      for (const std::byte byte : tensor.bytes) sum += static_cast<size_t>(byte);
    }
    for (const TensorView& tensor : file->tensors()) sum += tensor.size_bytes;
  }
  EXPECT_GT(sum, 0u);
}

constexpr std::string_view kShardA = R"({"a":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}})";
constexpr std::string_view kShardB = R"({"b":{"dtype":"F16","shape":[1],"data_offsets":[0,2]},)"
                                     R"("i":{"dtype":"I64","shape":[1],"data_offsets":[2,10]}})";

TEST_F(SafetensorsTest, OpensOneFileOrShards) {
  EXPECT_THAT(SafetensorsFolder::open(dir_).error().message, HasSubstr("is there"));
  write("s1.safetensors", safetensors_bytes(kShardA, 4));
  write("s2.safetensors", safetensors_bytes(kShardB, 10));
  write("model.safetensors.index.json",
        R"({"weight_map":{"a":"s1.safetensors","b":"s2.safetensors","i":"s2.safetensors"}})");
  {
    const auto folder = SafetensorsFolder::open(dir_);
    ASSERT_TRUE(folder) << folder.error().message;
    EXPECT_EQ(folder->files().size(), 2u);
    EXPECT_EQ(folder->tensors().size(), 2u);
    EXPECT_EQ((*folder->get("b"))->data[1], std::byte{1});
    EXPECT_EQ(*folder->find("c"), nullptr);
    EXPECT_EQ(folder->find("i").error().code, ErrorCode::unsupported);
  }
  write("model.safetensors", safetensors_bytes(kShardB, 10));  // goes before the index
  const auto folder = SafetensorsFolder::open(dir_);
  ASSERT_TRUE(folder) << folder.error().message;
  EXPECT_EQ(*folder->find("a"), nullptr);
  EXPECT_TRUE(folder->get("b"));
}

TEST_F(SafetensorsTest, ShardsStayInTheFolder) {
  write("s1.safetensors", safetensors_bytes(kShardA, 4));
  const auto error = [&](const std::string& weight_map) {
    write("model.safetensors.index.json", R"({"weight_map":)" + weight_map + "}");
    const auto folder = SafetensorsFolder::open(dir_);
    return folder ? "no error" : folder.error().message;
  };
  EXPECT_EQ(error(R"({"a":"s1.safetensors"})"), "no error");
  for (const char* name : {"../x", "/etc/passwd", "..", ".", "", "d/x", "d\\\\x", "x\\u0000y"}) {
    EXPECT_THAT(error(R"({"a":")" + std::string(name) + "\"}"),
                HasSubstr("index.json: tensor a: expected a file name without a folder, found"));
  }
  EXPECT_THAT(error(R"({"a":3})"), HasSubstr("found number"));
  EXPECT_THAT(error("3"), HasSubstr("index.json: key weight_map: expected an object, found 3"));
  EXPECT_THAT(error(R"({"a":"s2.safetensors"})"), HasSubstr("s2.safetensors: cannot open"));
  EXPECT_THAT(error(R"({"b":"s1.safetensors"})"),
              HasSubstr("s1.safetensors: tensor b: expected from the index, but not there"));
}

TEST_F(SafetensorsTest, WritesWhatItReads) {
  const std::array<float, 3> floats{1, 2, 3};
  const std::string text = "hello";
  const std::vector<RawTensor> tensors{
      {"note \"x\"", "U8", {5}, bytes_of(text)},
      {"w", "F32", {3, 1}, std::as_bytes(std::span(floats))},
      {"h", "BF16", {1}, bytes_of(std::string_view(text).substr(0, 2))},
      {"empty", "F16", {0, 4}, {}},
  };
  const auto path = dir_ / "out.safetensors";
  const auto written = write_safetensors(path, tensors, {{"format", "mkv"}, {"v", "1"}});
  ASSERT_TRUE(written) << written.error().message;
  const std::string first = read(path);
  const auto file = SafetensorsFile::open(path);
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_THAT(file->metadata(), ElementsAre(Pair("format", "mkv"), Pair("v", "1")));
  ASSERT_EQ(file->raw_tensors().size(), 4u);
  for (const RawTensor& tensor : tensors) {
    const RawTensor* found = file->find_raw(tensor.name);
    ASSERT_NE(found, nullptr);
    EXPECT_EQ(found->dtype, tensor.dtype);
    EXPECT_EQ(found->shape, tensor.shape);
    EXPECT_TRUE(std::equal(found->bytes.begin(), found->bytes.end(), tensor.bytes.begin(),
                           tensor.bytes.end()));
  }
  EXPECT_EQ((*file->get("w"))->size_bytes, 12u);
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, first.data(), sizeof header_bytes);
  EXPECT_EQ(header_bytes % 8, 0u);
  const std::vector<RawTensor> reversed(tensors.rbegin(), tensors.rend());
  ASSERT_TRUE(write_safetensors(path, reversed, {{"v", "1"}, {"format", "mkv"}}));
  EXPECT_EQ(read(path), first);
  EXPECT_EQ(entries(), 1u);
}

TEST_F(SafetensorsTest, ChecksWhatItWrites) {
  const auto path = dir_ / "out.safetensors";
  const auto error = [&](const std::vector<RawTensor>& tensors) {
    const auto written = write_safetensors(path, tensors);
    return written ? "no error" : written.error().message;
  };
  const RawTensor good{"a", "U8", {2}, bytes_of("xy")};
  EXPECT_THAT(error({{"a", "U8", {3}, bytes_of("xy")}}),
              HasSubstr("out.safetensors: tensor a: expected 3 bytes for U8 [3], found 2"));
  EXPECT_THAT(error({{"a", "Q4", {2}, bytes_of("xy")}}), HasSubstr("type Q4 is not one of"));
  EXPECT_THAT(error({good, good}), HasSubstr("tensor a: the name is taken"));
  EXPECT_THAT(error({{"__metadata__", "U8", {2}, bytes_of("xy")}}), HasSubstr("is taken"));
  EXPECT_THAT(error({{"\xff", "U8", {2}, bytes_of("xy")}}), HasSubstr("UTF-8"));
  EXPECT_EQ(entries(), 0u);
}

}  // namespace
}  // namespace mkv
