#include "text/jinja_lexer.h"

#include <algorithm>
#include <charconv>

#include "text/utf8.h"

namespace mkv::jinja {
namespace {

using Kind = Token::Kind;

bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v';
}
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

std::string with_unix_newlines(std::string_view source) {
  std::string out;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
    } else {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {}

  Result<std::vector<Token>> run() {
    while (at_ < source_.size()) {
      const size_t tag = find_tag();
      if (tag == std::string_view::npos) {
        add(Kind::text, source_.substr(at_));
        break;
      }
      text_before(tag);
      MKV_TRY(lex_tag());
      starts_line_ = source_[at_ - 1] == '\n';
    }
    add(Kind::end, {});
    return std::move(tokens_);
  }

 private:
  bool rest_starts_with(std::string_view what) const {
    return source_.substr(at_).starts_with(what);
  }
  char peek(size_t ahead = 0) const {
    return at_ + ahead < source_.size() ? source_[at_ + ahead] : '\0';
  }
  void add(Kind kind, std::string_view text) {
    if (kind == Kind::text && text.empty()) return;
    tokens_.push_back({kind, std::string(text), line_});
    if (kind == Kind::text) count_lines(text);
  }
  void count_lines(std::string_view text) {
    line_ += static_cast<int>(std::count(text.begin(), text.end(), '\n'));
  }
  void advance(size_t bytes) {
    count_lines(source_.substr(at_, bytes));
    at_ += bytes;
  }
  void skip_blanks() {
    while (at_ < source_.size() && is_blank(source_[at_])) advance(1);
  }
  Error fail(std::string_view message) const {
    return error_at(line_, ErrorCode::corrupt, message);
  }

  size_t find_tag() const {
    for (size_t i = at_; i + 1 < source_.size(); ++i) {
      const char next = source_[i + 1];
      if (source_[i] == '{' && (next == '{' || next == '%' || next == '#')) return i;
    }
    return std::string_view::npos;
  }

  // The text in front of the tag at `tag`, stripped as the tag asks for.
  std::string_view stripped(size_t tag) const {
    std::string_view text = source_.substr(at_, tag - at_);
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    if (sign == '-') {
      while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
    } else if (sign != '+' && source_[tag + 1] != '{') {
      const size_t line = text.rfind('\n') + 1;  // 0 if there is none
      const bool blank =
          std::all_of(text.begin() + static_cast<std::ptrdiff_t>(line), text.end(), is_blank);
      if (blank && (line > 0 || starts_line_)) text = text.substr(0, line);
    }
    return text;
  }
  void text_before(size_t tag) {
    const int line = line_;
    const std::string_view whole = source_.substr(at_, tag - at_);
    add(Kind::text, stripped(tag));
    line_ = line;
    count_lines(whole);
    at_ = tag;
  }

  Result<void> lex_tag() {
    const char kind = peek(1);
    if (kind == '#') return lex_comment();
    const bool is_block = kind == '%';
    if (is_block && raw_tag("raw") != 0) return lex_raw();
    add(is_block ? Kind::block_begin : Kind::print_begin, source_.substr(at_, 2));
    advance(2);
    if (peek() == '-' || (peek() == '+' && is_block)) advance(1);
    return lex_inside(is_block ? "%}" : "}}");
  }

  // Takes the end of a tag, with its sign, if it is here: "%}" with the newline behind it.
  bool take_end(std::string_view close) {
    const bool minus = peek() == '-' && source_.substr(at_ + 1).starts_with(close);
    const bool plus = peek() == '+' && close != "}}" && source_.substr(at_ + 1).starts_with(close);
    if (!minus && !plus && !rest_starts_with(close)) return false;
    advance(close.size() + (minus || plus ? 1 : 0));
    if (minus) {
      skip_blanks();
    } else if (!plus && close != "}}" && peek() == '\n') {
      advance(1);
    }
    return true;
  }

  Result<void> lex_comment() {
    const size_t end = source_.find("#}", at_ + 2);
    if (end == std::string_view::npos) return fail("a comment that does not end");
    const size_t sign = end > at_ + 2 && (source_[end - 1] == '-' || source_[end - 1] == '+');
    advance(end - sign - at_);
    take_end("#}");
    return {};
  }

  // How long "{% raw %}" (or endraw) is at at_, up to its end tag; 0 if it is not here.
  size_t raw_tag(std::string_view name) const {
    size_t i = at_ + 2;
    if (i < source_.size() && (source_[i] == '-' || source_[i] == '+')) ++i;
    while (i < source_.size() && is_blank(source_[i])) ++i;
    if (!source_.substr(i).starts_with(name)) return 0;
    i += name.size();
    while (i < source_.size() && is_blank(source_[i])) ++i;
    const std::string_view rest = source_.substr(i);
    const bool closes =
        rest.starts_with("%}") || rest.starts_with("-%}") || rest.starts_with("+%}");
    return closes ? i - at_ : 0;
  }
  Result<void> lex_raw() {
    advance(raw_tag("raw"));
    const bool minus = peek() == '-';
    advance(peek() == '%' ? 2 : 3);
    if (minus) skip_blanks();
    const size_t begin = at_;
    for (size_t i = source_.find("{%", begin); i != std::string_view::npos;
         i = source_.find("{%", i + 2)) {
      at_ = i;
      const size_t size = raw_tag("endraw");
      at_ = begin;
      if (size == 0) continue;
      starts_line_ = false;
      text_before(i);
      advance(size);
      take_end("%}");
      return {};
    }
    return fail("a raw block that does not end");
  }

  Result<void> lex_inside(std::string_view close) {
    size_t open = 0;  // brackets, within which "}}" is not the end
    while (true) {
      skip_blanks();
      if (at_ >= source_.size()) return fail("a tag that does not end with " + std::string(close));
      const int line = line_;
      if (open == 0 && take_end(close)) {
        tokens_.push_back({close == "%}" ? Kind::block_end : Kind::print_end, "", line});
        return {};
      }
      const char c = peek();
      if (is_name_start(c)) {
        lex_name();
      } else if (is_digit(c)) {
        lex_number();
      } else if (c == '"' || c == '\'') {
        MKV_TRY(lex_string(c));
      } else {
        MKV_TRY(lex_symbol(open));
      }
    }
  }

  void lex_name() {
    size_t end = at_;
    while (end < source_.size() && (is_name_start(source_[end]) || is_digit(source_[end]))) ++end;
    add(Kind::name, source_.substr(at_, end - at_));
    advance(end - at_);
  }

  void lex_number() {
    std::string text;
    bool real = false;
    while (at_ < source_.size()) {
      const char c = peek(), next = peek(1);
      const bool dot = c == '.' && !real && is_digit(next);
      const bool exponent = (c == 'e' || c == 'E') && text.find('e') == std::string::npos &&
                            (is_digit(next) || ((next == '-' || next == '+') && is_digit(peek(2))));
      if (!is_digit(c) && !dot && !exponent && !(c == '_' && is_digit(next))) break;
      if (c != '_') text += exponent ? 'e' : c;
      real = real || dot || exponent;
      advance(1);
      if (exponent && !is_digit(peek())) {
        text += peek();
        advance(1);
      }
    }
    add(real ? Kind::real : Kind::integer, text);
  }

  Result<void> lex_symbol(size_t& open) {
    constexpr std::string_view kLong[] = {"==", "!=", ">=", "<=", "//", "**"};
    for (const std::string_view symbol : kLong) {
      if (!rest_starts_with(symbol)) continue;
      add(Kind::symbol, symbol);
      advance(2);
      return {};
    }
    const char c = peek();
    if (std::string_view("+-/*%~[](){}><=.:|,;").find(c) == std::string_view::npos) {
      return fail(std::string("unexpected character '") + c + "'");
    }
    if (c == '(' || c == '[' || c == '{') ++open;
    if (c == ')' || c == ']' || c == '}') {
      if (open == 0) return fail(std::string("unexpected '") + c + "'");
      --open;
    }
    add(Kind::symbol, std::string_view(&c, 1));
    advance(1);
    return {};
  }

  Result<void> lex_string(char quote) {
    const int line = line_;
    std::string text;
    advance(1);
    while (true) {
      if (at_ >= source_.size()) return error_at(line, ErrorCode::corrupt, "a string does not end");
      const char c = peek();
      advance(1);
      if (c == quote) break;
      if (c != '\\') {
        text += c;
        continue;
      }
      MKV_TRY(lex_escape(text));
    }
    tokens_.push_back({Kind::string, std::move(text), line});
    return {};
  }

  Result<void> lex_escape(std::string& text) {
    constexpr std::string_view kLetters = "nrtabfv\\'\"", kValues = "\n\r\t\a\b\f\v\\'\"";
    const char c = peek();
    if (c == '\0') return {};  // the string does not end: its loop reports it
    const size_t letter = kLetters.find(c);
    if (letter != std::string_view::npos) {
      text += kValues[letter];
      advance(1);
    } else if (c == '\n') {
      advance(1);
    } else if (c == 'x' || c == 'u' || c == 'U') {
      advance(1);
      return lex_code(text, c == 'x' ? 2 : (c == 'u' ? 4 : 8), 16);
    } else if (c >= '0' && c <= '7') {
      size_t digits = 1;
      while (digits < 3 && peek(digits) >= '0' && peek(digits) <= '7') ++digits;
      return lex_code(text, digits, 8);
    } else {
      text += '\\';  // Python keeps what it does not know
    }
    return {};
  }

  Result<void> lex_code(std::string& text, size_t digits, int base) {
    const std::string_view code = source_.substr(at_, digits);
    uint32_t value = 0;
    const auto parsed = std::from_chars(code.data(), code.data() + code.size(), value, base);
    const bool surrogate = value >= 0xD800 && value < 0xE000;
    if (code.size() != digits || parsed.ptr != code.data() + digits || value > 0x10FFFF ||
        surrogate) {
      return fail("a string has the invalid escape of digits \"" + std::string(code) + "\"");
    }
    append_utf8(text, value);
    advance(digits);
    return {};
  }

  std::string_view source_;
  std::vector<Token> tokens_;
  size_t at_ = 0;
  int line_ = 1;
  bool starts_line_ = true;
};

}  // namespace

Error error_at(int line, ErrorCode code, std::string_view message) {
  return make_error(code,
                    "chat template, line " + std::to_string(line) + ": " + std::string(message));
}

Result<std::vector<Token>> tokenize(std::string_view source) {
  return Lexer(with_unix_newlines(source)).run();
}

}  // namespace mkv::jinja
