// Against jinja2 as transformers sets it up: see tests/golden/make_chat_cases.py.
#include <iomanip>
#include <sstream>

#include "golden.h"

namespace mkv {
namespace {

ChatOptions options_of(const OrderedJson& entry) {
  ChatOptions options;
  options.add_generation_prompt = entry.at("add_generation_prompt").get<bool>();
  options.bos = entry.at("bos_token").get<std::string>();
  options.eos = entry.at("eos_token").get<std::string>();
  options.variables = {{"tools", nullptr}, {"documents", nullptr}};
  if (entry.contains("extra")) {
    for (const auto& [name, value] : entry.at("extra").items()) {
      options.variables.emplace_back(name, value);
    }
  }
  std::tm now{};
  std::istringstream(entry.at("clock").get<std::string>()) >>
      std::get_time(&now, "%Y-%m-%dT%H:%M:%S");
  now.tm_isdst = -1;
  std::mktime(&now);  // fills in the day of the week
  options.now = now;
  return options;
}

Result<std::string> render(const OrderedJson& entry) {
  MKV_ASSIGN(const ChatTemplate chat, ChatTemplate::parse(entry.at("template").get<std::string>()));
  std::vector<ChatMessage> messages;
  for (const OrderedJson& message : entry.at("messages")) {
    ChatMessage& added = messages.emplace_back();
    added.role = message.value("role", "");
    added.extra = message;
  }
  return chat.render(messages, options_of(entry));
}

void check_file(const std::string& name) {
  const OrderedJson golden = read_golden(name);
  size_t refused = 0;
  for (const OrderedJson& entry : golden.at("cases")) {
    SCOPED_TRACE(entry.at("name").get<std::string>());
    const Result<std::string> text = render(entry);
    if (entry.contains("error_contains")) {
      EXPECT_FALSE(text) << "gave: " << (text ? *text : "");
      if (text) continue;
      EXPECT_THAT(text.error().message,
                  ::testing::HasSubstr(entry.at("error_contains").get<std::string>()));
      EXPECT_EQ(text.error().message.find('\n'), std::string::npos);
    } else if (!text && entry.value("optional", false)) {
      ++refused;
      EXPECT_EQ(text.error().code, ErrorCode::unsupported) << text.error().message;
    } else {
      ASSERT_TRUE(text) << text.error().message;
      EXPECT_EQ(*text, entry.at("expected").get<std::string>());
    }
  }
  EXPECT_LE(refused, golden.at("cases").size() / 10);
}

TEST(ChatTemplateGolden, Formats) { check_file("chat/formats.json"); }
TEST(ChatTemplateGolden, Features) { check_file("chat/features.json"); }
TEST(ChatTemplateGolden, Errors) { check_file("chat/errors.json"); }

}  // namespace
}  // namespace mkv
