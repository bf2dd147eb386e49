#include <algorithm>
#include <charconv>
#include <iterator>

#include "text/jinja_parser.h"

namespace mkv::jinja {
namespace {

using Kind = Expr::Kind;

// Operators by how tightly they bind; comparisons and "not" stand between level 1 and 2.
struct Level {
  std::vector<std::string_view> operators;
  Token::Kind kind;
};
const Level& level_of(size_t level) {
  static const Level kLevels[] = {{{"or"}, Token::Kind::name},
                                  {{"and"}, Token::Kind::name},
                                  {{"+", "-"}, Token::Kind::symbol},
                                  {{"~"}, Token::Kind::symbol},
                                  {{"*", "/", "//", "%"}, Token::Kind::symbol},
                                  {{"**"}, Token::Kind::symbol}};
  return kLevels[level];
}
constexpr size_t kFirstArithmetic = 2, kLevelCount = 6;

Expr node(Kind kind, int line, std::string text = {}, std::vector<ExprId> args = {}) {
  Expr expr;
  expr.kind = kind;
  expr.line = line;
  expr.text = std::move(text);
  expr.args = std::move(args);
  return expr;
}

Error too_deep(int line) {
  return error_at(line, ErrorCode::capacity,
                  "nested more than " + std::to_string(kMaxNesting) + " levels deep");
}

// Counts a level of recursion for as long as it lives.
class Nested {
 public:
  explicit Nested(int& depth) : depth_(depth) { ++depth_; }
  ~Nested() { --depth_; }
  Nested(const Nested&) = delete;
  Nested& operator=(const Nested&) = delete;

 private:
  int& depth_;
};

}  // namespace

Result<ExprId> ExpressionParser::add(Expr expr) {
  int below = 0;
  const auto count = [&](ExprId id) {
    if (id != kNoExpr) below = std::max(below, ast_.exprs[id].depth);
  };
  for (const ExprId id : expr.args) count(id);
  for (const auto& [name, id] : expr.named) count(id);
  expr.depth = below + 1;
  // A long chain such as a + b + c + ... is built by a loop, but evaluated by recursion.
  if (expr.depth > kMaxNesting) return too_deep(expr.line);
  ast_.exprs.push_back(std::move(expr));
  return static_cast<ExprId>(ast_.exprs.size() - 1);
}

Result<ExprId> ExpressionParser::parse_tuple(bool conditional) {
  const int line = cursor_.line();
  MKV_ASSIGN(const ExprId first, parse(conditional));
  if (!cursor_.is_symbol(",")) return first;
  Expr tuple = node(Kind::tuple, line, {}, {first});
  while (cursor_.take_symbol(",")) {
    const Token::Kind kind = cursor_.peek().kind;
    if (kind == Token::Kind::block_end || kind == Token::Kind::print_end) break;
    MKV_ASSIGN(const ExprId item, parse(conditional));
    tuple.args.push_back(item);
  }
  return add(std::move(tuple));
}

Result<ExprId> ExpressionParser::parse(bool conditional) {
  const Nested nested(depth_);
  if (depth_ > kMaxNesting) return too_deep(cursor_.line());
  return parse_conditional(conditional);
}

Result<ExprId> ExpressionParser::parse_conditional(bool conditional) {
  MKV_ASSIGN(ExprId value, parse_binary(0));
  while (conditional && cursor_.is_name("if")) {
    const int line = cursor_.next().line;
    MKV_ASSIGN(const ExprId condition, parse_binary(0));
    ExprId otherwise = kNoExpr;
    if (cursor_.take_name("else")) {
      MKV_ASSIGN(otherwise, parse(true));
    }
    MKV_ASSIGN(value, add(node(Kind::conditional, line, {}, {value, condition, otherwise})));
  }
  return value;
}

Result<ExprId> ExpressionParser::parse_binary(size_t level) {
  const auto operand = [&]() -> Result<ExprId> {
    if (level + 1 == kFirstArithmetic) return parse_not();
    return level + 1 == kLevelCount ? parse_unary(true) : parse_binary(level + 1);
  };
  const Level& operators = level_of(level);
  const auto is_operator = [&](const Token& token) {
    return token.kind == operators.kind &&
           std::find(operators.operators.begin(), operators.operators.end(), token.text) !=
               operators.operators.end();
  };
  MKV_ASSIGN(ExprId left, operand());
  while (is_operator(cursor_.peek())) {
    const Token token = cursor_.next();
    MKV_ASSIGN(const ExprId right, operand());
    MKV_ASSIGN(left, add(node(Kind::binary, token.line, token.text, {left, right})));
  }
  return left;
}

Result<ExprId> ExpressionParser::parse_not() {
  if (!cursor_.is_name("not")) return parse_comparison();
  const Nested nested(depth_);
  if (depth_ > kMaxNesting) return too_deep(cursor_.line());
  const int line = cursor_.next().line;
  MKV_ASSIGN(const ExprId operand, parse_not());
  return add(node(Kind::unary, line, "not", {operand}));
}

Result<ExprId> ExpressionParser::parse_comparison() {
  constexpr std::string_view kOperators[] = {"==", "!=", "<", "<=", ">", ">="};
  const int line = cursor_.line();
  MKV_ASSIGN(const ExprId first, parse_binary(kFirstArithmetic));
  Expr compare = node(Kind::compare, line, {}, {first});
  while (true) {
    const Token& token = cursor_.peek();
    const bool is_symbol =
        token.kind == Token::Kind::symbol &&
        std::find(std::begin(kOperators), std::end(kOperators), token.text) != std::end(kOperators);
    const bool negated = cursor_.is_name("not") && cursor_.peek(1).kind == Token::Kind::name &&
                         cursor_.peek(1).text == "in";
    if (!is_symbol && !negated && !cursor_.is_name("in")) break;
    compare.operators.push_back(negated ? "not in" : token.text);
    cursor_.next();
    if (negated) cursor_.next();
    MKV_ASSIGN(const ExprId operand, parse_binary(kFirstArithmetic));
    compare.args.push_back(operand);
  }
  if (compare.operators.empty()) return first;
  return add(std::move(compare));
}

Result<ExprId> ExpressionParser::parse_unary(bool with_filters) {
  const Nested nested(depth_);
  if (depth_ > kMaxNesting) return too_deep(cursor_.line());
  ExprId value = kNoExpr;
  if (cursor_.is_symbol("-") || cursor_.is_symbol("+")) {
    const Token token = cursor_.next();
    MKV_ASSIGN(const ExprId operand, parse_unary(false));
    MKV_ASSIGN(value, add(node(Kind::unary, token.line, token.text, {operand})));
  } else {
    MKV_ASSIGN(value, parse_primary());
  }
  MKV_ASSIGN(value, parse_postfix(value));
  return with_filters ? parse_filters_and_tests(value) : value;
}

Result<ExprId> ExpressionParser::parse_primary() {
  switch (cursor_.peek().kind) {
    case Token::Kind::name:
      return parse_name();
    case Token::Kind::string:
      return parse_string();
    case Token::Kind::integer:
    case Token::Kind::real:
      return parse_number();
    default:
      break;
  }
  if (cursor_.is_symbol("(")) return parse_parenthesis();
  if (cursor_.is_symbol("[")) return parse_list();
  if (cursor_.is_symbol("{")) return parse_dict();
  return cursor_.expected("an expression");
}

Result<ExprId> ExpressionParser::parse_name() {
  const Token token = cursor_.next();
  Expr expr = node(Kind::constant, token.line);
  if (token.text == "true" || token.text == "True") {
    expr.constant = Value(true);
  } else if (token.text == "false" || token.text == "False") {
    expr.constant = Value(false);
  } else if (token.text == "none" || token.text == "None") {
    expr.constant = Value(None{});
  } else {
    expr.kind = Kind::name;
    expr.text = token.text;
  }
  return add(std::move(expr));
}

Result<ExprId> ExpressionParser::parse_string() {
  Expr expr = node(Kind::string, cursor_.line());
  while (cursor_.peek().kind == Token::Kind::string) expr.text += cursor_.next().text;
  return add(std::move(expr));
}

Result<ExprId> ExpressionParser::parse_number() {
  const Token token = cursor_.next();
  const char* const begin = token.text.data();
  const char* const end = begin + token.text.size();
  Expr expr = node(Kind::constant, token.line);
  std::errc failure{};
  if (token.kind == Token::Kind::integer) {
    int64_t value = 0;
    failure = std::from_chars(begin, end, value).ec;
    expr.constant = Value(value);
  } else {
    double value = 0;
    failure = std::from_chars(begin, end, value).ec;
    expr.constant = Value(value);
  }
  if (failure != std::errc{}) {
    return error_at(token.line, ErrorCode::unsupported, "the number " + token.text + " is too big");
  }
  return add(std::move(expr));
}

Result<ExprId> ExpressionParser::parse_parenthesis() {
  const int line = cursor_.next().line;
  Expr tuple = node(Kind::tuple, line);
  bool is_tuple = false;
  while (!cursor_.is_symbol(")")) {
    MKV_ASSIGN(const ExprId item, parse());
    tuple.args.push_back(item);
    if (!cursor_.take_symbol(",")) break;
    is_tuple = true;
  }
  MKV_TRY(cursor_.expect_symbol(")"));
  if (tuple.args.size() == 1 && !is_tuple) return tuple.args[0];
  return add(std::move(tuple));
}

Result<ExprId> ExpressionParser::parse_list() {
  Expr list = node(Kind::list, cursor_.next().line);
  while (!cursor_.is_symbol("]")) {
    MKV_ASSIGN(const ExprId item, parse());
    list.args.push_back(item);
    if (!cursor_.take_symbol(",")) break;
  }
  MKV_TRY(cursor_.expect_symbol("]"));
  return add(std::move(list));
}

Result<ExprId> ExpressionParser::parse_dict() {
  Expr dict = node(Kind::dict, cursor_.next().line);
  while (!cursor_.is_symbol("}")) {
    MKV_ASSIGN(const ExprId key, parse());
    MKV_TRY(cursor_.expect_symbol(":"));
    MKV_ASSIGN(const ExprId value, parse());
    dict.args.push_back(key);
    dict.args.push_back(value);
    if (!cursor_.take_symbol(",")) break;
  }
  MKV_TRY(cursor_.expect_symbol("}"));
  return add(std::move(dict));
}

Result<ExprId> ExpressionParser::parse_postfix(ExprId subject) {
  while (true) {
    if (cursor_.is_symbol(".")) {
      MKV_ASSIGN(subject, parse_dot(subject));
    } else if (cursor_.is_symbol("[")) {
      MKV_ASSIGN(subject, parse_subscript(subject));
    } else if (cursor_.is_symbol("(")) {
      Expr call = node(Kind::call, cursor_.line(), {}, {subject});
      MKV_TRY(parse_arguments(call));
      MKV_ASSIGN(subject, add(std::move(call)));
    } else {
      return subject;
    }
  }
}

Result<ExprId> ExpressionParser::parse_dot(ExprId subject) {
  const int line = cursor_.next().line;
  if (cursor_.peek().kind == Token::Kind::integer) {
    MKV_ASSIGN(const ExprId index, parse_number());
    return add(node(Kind::item, line, {}, {subject, index}));
  }
  MKV_ASSIGN(std::string name, cursor_.expect_name("an attribute"));
  return add(node(Kind::attribute, line, std::move(name), {subject}));
}

Result<ExprId> ExpressionParser::parse_subscript(ExprId subject) {
  Expr expr = node(Kind::slice, cursor_.next().line, {}, {subject});
  ExprId bounds[3] = {kNoExpr, kNoExpr, kNoExpr};
  size_t colons = 0;
  while (!cursor_.is_symbol("]")) {
    if (cursor_.take_symbol(":")) {
      if (++colons > 2) return cursor_.expected("]");
      continue;
    }
    if (bounds[colons] != kNoExpr) return cursor_.expected("]");
    MKV_ASSIGN(bounds[colons], parse());
  }
  if (colons == 0 && bounds[0] == kNoExpr) return cursor_.expected("an index");
  MKV_TRY(cursor_.expect_symbol("]"));
  if (colons == 0) {
    expr.kind = Kind::item;
    expr.args.push_back(bounds[0]);
  } else {
    expr.args.insert(expr.args.end(), std::begin(bounds), std::end(bounds));
  }
  return add(std::move(expr));
}

Result<ExprId> ExpressionParser::parse_filters_and_tests(ExprId subject) {
  while (true) {
    if (cursor_.is_symbol("|")) {
      MKV_ASSIGN(subject, parse_filter(subject));
    } else if (cursor_.is_name("is")) {
      MKV_ASSIGN(subject, parse_test(subject));
    } else if (cursor_.is_symbol("(")) {
      MKV_ASSIGN(subject, parse_postfix(subject));
    } else {
      return subject;
    }
  }
}

Result<ExprId> ExpressionParser::parse_filters(ExprId subject) {
  while (cursor_.is_symbol("|")) {
    MKV_ASSIGN(subject, parse_filter(subject));
  }
  return subject;
}

Result<ExprId> ExpressionParser::parse_filter(ExprId subject) {
  const int line = cursor_.next().line;
  MKV_ASSIGN(std::string name, cursor_.expect_name("a filter"));
  Expr filter = node(Kind::filter, line, std::move(name), {subject});
  if (cursor_.is_symbol("(")) MKV_TRY(parse_arguments(filter));
  return add(std::move(filter));
}

Result<ExprId> ExpressionParser::parse_test(ExprId subject) {
  const int line = cursor_.next().line;
  const bool negated = cursor_.take_name("not");
  MKV_ASSIGN(std::string name, cursor_.expect_name("a test"));
  Expr test = node(Kind::test, line, std::move(name), {subject});
  const Token& token = cursor_.peek();
  const bool starts_value =
      token.kind == Token::Kind::string || token.kind == Token::Kind::integer ||
      token.kind == Token::Kind::real || cursor_.is_symbol("[") || cursor_.is_symbol("{") ||
      (token.kind == Token::Kind::name && token.text != "else" && token.text != "or" &&
       token.text != "and" && token.text != "is" && token.text != "if");
  if (cursor_.is_symbol("(")) {
    MKV_TRY(parse_arguments(test));
  } else if (starts_value) {  // x is divisibleby 3
    MKV_ASSIGN(const ExprId value, parse_primary());
    MKV_ASSIGN(const ExprId argument, parse_postfix(value));
    test.args.push_back(argument);
  }
  MKV_ASSIGN(const ExprId result, add(std::move(test)));
  if (!negated) return result;
  return add(node(Kind::unary, line, "not", {result}));
}

Result<void> ExpressionParser::parse_arguments(Expr& call) {
  MKV_TRY(cursor_.expect_symbol("("));
  while (!cursor_.is_symbol(")")) {
    if (cursor_.is_symbol("*") || cursor_.is_symbol("**")) {
      return error_at(cursor_.line(), ErrorCode::unsupported,
                      "unpacking of arguments with * is not supported");
    }
    const Token& equals = cursor_.peek(1);
    if (cursor_.peek().kind == Token::Kind::name && equals.kind == Token::Kind::symbol &&
        equals.text == "=") {
      std::string name = cursor_.next().text;
      cursor_.next();
      MKV_ASSIGN(const ExprId value, parse());
      call.named.emplace_back(std::move(name), value);
    } else if (!call.named.empty()) {
      return cursor_.expected("name=value after another such argument");
    } else {
      MKV_ASSIGN(const ExprId value, parse());
      call.args.push_back(value);
    }
    if (!cursor_.take_symbol(",")) break;
  }
  return cursor_.expect_symbol(")");
}

}  // namespace mkv::jinja
