#include "store/json.h"

#include <gmock/gmock.h>

#include <string>
#include <vector>

#include "base/rng.h"
#include "store/temp_dir.h"

namespace mkv {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using JsonFile = testing::TempDir;

std::string error_of(std::string_view text) {
  const auto json = parse_json(text, "config.json");
  return json ? "no error" : json.error().message;
}

TEST(Json, ParsesOrSaysWhere) {
  EXPECT_EQ((*parse_json(R"({"a":[1,2]})", "x"))["a"][1], 2);
  EXPECT_EQ((*parse_json(R"({"a":1,"a":2})", "x"))["a"], 2);
  EXPECT_THAT(error_of("{\"a\":\n1,}"), HasSubstr("config.json: parse error at line 2, column 3"));
  for (const char* text : {"", " ", "{", "[1,]", "01", "nul", "\"\x80\"", "\"\\ud800\"", "1 2",
                           "1e999", "\"a\nb\"", "{1:2}", "\xef\xbb"}) {
    EXPECT_THAT(error_of(text), HasSubstr("config.json: ")) << text;
    EXPECT_EQ(error_of(text).find('\n'), std::string::npos) << text;
  }
  EXPECT_LT(error_of("\"" + std::string(100000, 'x')).size(), 400u);
}

TEST(Json, LimitsDepth) {
  const auto nested = [](size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  EXPECT_EQ(error_of(nested(64)), "no error");
  EXPECT_EQ(error_of(nested(65)), "config.json: JSON nested deeper than 64 levels at byte 64");
  EXPECT_NE(error_of(std::string(1'000'000, '[')), "no error");
  std::string objects;
  for (int i = 0; i < 200'000; ++i) objects += "{\"a\":";
  EXPECT_NE(error_of(objects), "no error");
  EXPECT_EQ(error_of("[\"" + std::string(1000, '[') + "\\\"[\",\"\\\\\"]"), "no error");
}

TEST(Json, TypedGetters) {
  const Json json =
      *parse_json(R"({"n":4096,"f":2.0,"h":0.5,"neg":-1,"big":9007199254740993,"t":true,"s":"x",)"
                  R"("z":null,"shape":[2,3],"bad":[2,"x"],"o":{}})",
                  "x");
  EXPECT_EQ(*get_size(json, "n"), 4096u);
  EXPECT_EQ(*get_size(json, "f"), 2u);
  EXPECT_EQ(*get_double(json, "h"), 0.5);
  EXPECT_EQ(*get_double(json, "n"), 4096.0);
  EXPECT_TRUE(*get_bool(json, "t"));
  EXPECT_EQ(*get_string(json, "s"), "x");
  EXPECT_THAT(*get_sizes(json, "shape"), ElementsAre(2, 3));
  EXPECT_TRUE((*get_object(json, "o"))->empty());
  EXPECT_EQ((*get_array(json, "shape"))->size(), 2u);
  EXPECT_EQ(get_size(json, "h").error().message,
            "key h: expected a whole number from 0 to 2^53, found 0.5");
  EXPECT_EQ(get_size(json, "neg").error().message,
            "key neg: expected a whole number from 0 to 2^53, found -1");
  EXPECT_EQ(get_size(json, "big").error().message,
            "key big: expected a whole number from 0 to 2^53, found 9007199254740993");
  EXPECT_EQ(get_size(json, "s").error().message,
            "key s: expected a whole number from 0 to 2^53, found string");
  EXPECT_EQ(get_size(json, "z").error().code, ErrorCode::not_found);
  EXPECT_EQ(get_size(json, "absent").error().message, "key absent: not there, or null");
  EXPECT_EQ(get_string(json, "n").error().message, "key n: expected a string, found 4096");
  EXPECT_EQ(get_bool(json, "n").error().message, "key n: expected true or false, found 4096");
  EXPECT_EQ(get_double(json, "s").error().message, "key s: expected a number, found string");
  EXPECT_FALSE(get_sizes(json, "bad"));
  EXPECT_FALSE(get_object(json, "shape"));
  EXPECT_FALSE(get_array(json, "o"));
  EXPECT_FALSE(get_size(Json(3), "n"));
  EXPECT_EQ(*get_size_or(json, "absent", 7), 7u);
  EXPECT_EQ(*get_size_or(json, "z", 7), 7u);
  EXPECT_FALSE(get_size_or(json, "s", 7));
  EXPECT_EQ(*get_double_or(json, "absent", 0.25), 0.25);
  EXPECT_TRUE(*get_bool_or(json, "absent", true));
  EXPECT_EQ(*get_string_or(json, "absent", "y"), "y");
}

TEST(Json, Dumps) {
  EXPECT_EQ(*dump_json(Json{{"b", 1}, {"a", "x"}}), R"({"a":"x","b":1})");
  EXPECT_EQ(dump_json(Json("\xff")).error().code, ErrorCode::invalid_argument);
}

TEST(Json, SurvivesFlippedBytes) {
  const std::string text = R"({"a":[1,-2.5e3,true,null],"b":{"c":"\u00e9\n\"","d":[]}})";
  Rng rng(3);
  for (int i = 0; i < 5000; ++i) {
    std::vector<char> broken(text.begin(), text.end());
    broken[rng.below(broken.size())] = static_cast<char>(rng.next());
    const auto json = parse_json({broken.data(), broken.size()}, "x");
    if (json) continue;
    EXPECT_THAT(json.error().message, ::testing::StartsWith("x: "));
  }
}

TEST_F(JsonFile, Reads) {
  const auto path = write("a.json", R"({"n":1})");
  EXPECT_EQ((*read_json_file(path, 7))["n"], 1);
  EXPECT_THAT(read_json_file(path, 6).error().message,
              HasSubstr("a.json: expected at most 6 bytes, found 7"));
  EXPECT_EQ(read_json_file(dir_ / "b.json", 6).error().code, ErrorCode::not_found);
  EXPECT_THAT(read_json_file(write("c.json", ""), 6).error().message, HasSubstr("c.json: "));
}

}  // namespace
}  // namespace mkv
