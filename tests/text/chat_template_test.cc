#include "text/chat_template.h"

#include <ctime>

#include "base/rng.h"
#include "golden.h"

namespace mkv {
namespace {

using ::testing::HasSubstr;

Result<std::string> render(const std::string& source, const ChatLimits& limits = {}) {
  MKV_ASSIGN(const ChatTemplate chat, ChatTemplate::parse(source, limits));
  const ChatMessage messages[] = {{"user", "hi"}, {"assistant", std::string(1000, 'x')}};
  return chat.render(messages, {});
}

std::string text(const std::string& source) {
  const Result<std::string> out = render(source);
  return out ? *out : "error: " + out.error().message;
}

TEST(ChatTemplate, NoTemplateIsAnErrorThatSaysSo) {
  const auto none = ChatTemplate::of_model("");
  ASSERT_FALSE(none);
  EXPECT_EQ(none.error().code, ErrorCode::not_found);
  EXPECT_THAT(none.error().message, HasSubstr("no chat template"));
  EXPECT_EQ(text(""), "");
}

TEST(ChatTemplate, MessagesKeepTheirKeys) {
  const auto chat = ChatTemplate::parse(
      "{% for m in messages %}[{{ m.role }}|{{ m.content is defined }}|{{ m.name }}|"
      "{{ m.calls | tojson }}]{% endfor %}");
  ASSERT_TRUE(chat);
  ChatMessage plain{"user", "text"}, other{"tool", std::nullopt};
  plain.extra = {{"name", "n"}, {"calls", {{"b", 1}, {"a", {1.5, nullptr, true}}}}};
  other.extra = {{"calls", "x"}};
  const ChatMessage messages[] = {plain, other};
  EXPECT_EQ(chat->render(messages, {}).value(),
            "[user|True|n|{\"b\": 1, \"a\": [1.5, null, true]}][tool|False||\"x\"]");
  ChatMessage bad{"user", "x"};
  bad.extra = OrderedJson::array({1});
  EXPECT_FALSE(chat->render(std::span(&bad, 1), {}));
}

TEST(ChatTemplate, Scopes) {
  EXPECT_EQ(text("{% set x = 1 %}{% for i in [1, 2] %}{{ x }}{% set x = 5 %}{% endfor %}{{ x }}"),
            "111");
  EXPECT_EQ(text("{% set n = namespace(x=1) %}{% for i in [1, 2] %}{% set n.x = n.x + i %}"
                 "{% endfor %}{{ n.x }}"),
            "4");
  EXPECT_EQ(text("{% macro f(a, b=2) %}{{ a }}{{ b }}{{ y }}{{ z }}{% endmacro %}{% set y = 7 %}"
                 "{% for z in [9] %}{{ f(1) }}{{ f(1, b=3) }}{% endfor %}"),
            "127137");
}

TEST(ChatTemplate, ErrorsNameTheLine) {
  for (const char* source :
       {"a\n\n{{ 'x' | nonsense }}", "a\n\n{{ x is nonsense }}", "a\n\n{% nonsense %}",
        "a\n\n{{ nonsense() }}", "a\n\n{{ 'x'.nonsense() }}", "a\n\n{{ nonsense.x }}",
        "a\n\n{{ raise_exception('nonsense') }}", "a\n\n{{ 'x'.split(nonsense=1) }}"}) {
    EXPECT_THAT(text(source), HasSubstr("line 3: ")) << source;
    EXPECT_THAT(text(source), HasSubstr("nonsense")) << source;
  }
  for (const char* source :
       {"{{",        "{% if x %}",  "{{ 'a }}",    "{{ 1 + }}",       "{% for %}",
        "{# ",       "{% endif %}", "{{ (1 }}",    "{{ 1) }}",        "{% set %}",
        "{% raw %}", "{{ a.1b }}",  "{% break %}", "{{ x[ }}",        "{{ x[1:2:3:4] }}",
        "{% if %}",  "{% macro %}", "{{ {1} }}",   "{{ '\\uD800' }}", "{{ \\ }}"}) {
    EXPECT_FALSE(ChatTemplate::parse(source)) << source;
  }
}

// None of these may hang, overflow the stack or take the memory: they end with an error.
TEST(ChatTemplate, HostileTemplatesEnd) {
  const auto repeated = [](const std::string& unit, size_t times) {
    std::string out;
    while (times-- > 0) out += unit;
    return out;
  };
  const std::string loop = "{% for i in range(100000) %}";
  const std::vector<std::string> sources = {
      repeated("{{ (", 1) + repeated("(", 100'000),
      "{{ " + repeated("-", 100'000) + "1 }}",
      "{{ " + repeated("not ", 100'000) + "1 }}",
      "{{ " + repeated("[", 100'000) + repeated("]", 100'000) + " }}",
      "{{ 1" + repeated(" + 1", 100'000) + " }}",
      "{{ 1" + repeated(" if 1 else 1", 50'000) + " }}",
      "{{ x" + repeated(".x", 100'000) + " }}",
      "{{ x" + repeated("|list", 100'000) + " }}",
      repeated("{% if 1 %}", 50'000) + repeated("{% endif %}", 50'000),
      loop + loop + loop + "x{% endfor %}{% endfor %}{% endfor %}",
      loop + loop + "{% endfor %}{% endfor %}",
      loop + "{{ 'x' * 100000 }}{% endfor %}",
      "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
      "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
      "{% macro f() %}" + repeated("{% if 1 %}", 150) + "{{ f() }}" + repeated("{% endif %}", 150) +
          "{% endmacro %}{{ f() }}",
      "{{ 'x' * 1000000000000 }}",
      "{{ [0] * 1000000000000 }}",
      "{{ range(1000000000) | list }}",
      "{{ 'x'.replace('', 'y' * 1000000) * 1000 }}",
      "{% set n = namespace(s='x') %}" + loop + "{% set n.s = n.s + n.s %}{% endfor %}",
      "{% set n = namespace(s='x') %}" + loop + "{% set n.s = n.s ~ 'abc' %}{% endfor %}{{ n.s }}" +
          loop + "{{ n.s }}{% endfor %}",
      "{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}"
      "{% endfor %}{{ n.x }}",
      "{% set n = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}"
      "{% set n.y = [n.y, n.y] %}{% endfor %}{{ n.x == n.y }}",
      "{% set n = namespace(x={}) %}{% for i in range(60) %}{% set n.x = {'a': n.x, 'b': n.x} %}"
      "{% endfor %}{{ n.x | tojson(indent=8) }}",
      "{% set s = 'a' * 1000000 %}" + loop + "{{ (s + 'b') in s }}{% endfor %}",
      "{% set s = 'a' * 1000000 %}{{ (s * 100).find('a' * 500000 + 'b') }}",
      "{% set s = 'a' * 1000000 %}{{ s.strip('b' * 1000000 + 'a') }}",
      "{% set s = 'a' * 1000000 %}" + loop + "{{ s[i] }}{% endfor %}",
      "{% set s = ('a' * 1000000) | list %}" + loop + "{{ s == s }}{% endfor %}",
      "{% set s = range(100000) | list %}{{ s | unique | list }}",
      "{{ strftime_now('%c' * 100000) }}" + loop + "{{ strftime_now('%c' * 100000) }}{% endfor %}",
      "{{ 9223372036854775807 + 1 }}",
      "{{ 10 ** 1000 }}",
      "{{ (-9223372036854775807 - 1) // -1 }}",
      "{{ 1 // 0 }}",
      "{{ 99999999999999999999999 }}",
      "{{ 'x' | indent(1000000000) }}",
      "{{ [1] | tojson(indent=1000000000) }}",
      "{{ [1, 'a', none] | sort }}",
      "{{ [1, 2][::0] }}",
  };
  for (const std::string& source : sources) {
    const std::clock_t start = std::clock();  // not the wall's: machines may be busy
    const Result<std::string> out = render(source);
    const double seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    EXPECT_FALSE(out) << source.substr(0, 200) << " gave " << out->size() << " bytes";
    EXPECT_LT(seconds, 60) << source.substr(0, 200);
  }
}

TEST(ChatTemplate, LimitsAreThoseGiven) {
  EXPECT_FALSE(ChatTemplate::parse(std::string(200, 'x'), {.template_bytes = 100}));
  EXPECT_TRUE(render("{{ 'x' * 100 }}", {.output_bytes = 100}));
  EXPECT_FALSE(render("{{ 'x' * 101 }}", {.output_bytes = 100}));
  const Result<std::string> out = render("{% for i in range(99) %}x{% endfor %}", {.steps = 50});
  ASSERT_FALSE(out);
  EXPECT_THAT(out.error().message, HasSubstr("50 steps"));
}

// Whatever the source, parsing and rendering end without a crash.
TEST(ChatTemplate, RandomTemplates) {
  const std::vector<std::string> parts = {
      "{{ ",    " }}",     "{% ",      " %}",    "if ",       "else",  "endif", "for ",
      "x",      " in ",    "messages", "endfor", "set ",      " = ",   "'a'",   "1",
      "[",      "]",       "(",        ")",      "{",         "}",     "|",     "tojson",
      "length", " is ",    "defined",  "not ",   ".",         "role",  ",",     "+",
      "~",      "macro f", "endmacro", "f()",    "namespace", "loop",  "index", "-",
      ":",      "{#",      "#}",       "\n",     "  ",        "-%}",   "{%-",   "range(3)",
      "endset", "**",      "//",       "\xFF",   "items()",   "split", "'b'",   "true"};
  Rng rng(5);
  size_t rendered = 0;
  for (int round = 0; round < 30'000; ++round) {
    std::string source;
    for (size_t i = rng.below(14); i > 0; --i) source += parts[rng.below(parts.size())];
    rendered += render(source, {.heap_bytes = 1 << 20, .steps = 20'000}).has_value() ? 1 : 0;
  }
  EXPECT_GT(rendered, 100u);
}

}  // namespace
}  // namespace mkv
