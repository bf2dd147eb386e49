// The parser of the template language: its statements, and (jinja_expressions.cc) its expressions.
#pragma once

#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/jinja_ast.h"
#include "text/jinja_lexer.h"

namespace mkv::jinja {

Result<Ast> parse(std::string_view source);

// Where the parser is among the tokens; the last one is Kind::end and is never passed.
class Cursor {
 public:
  explicit Cursor(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& peek(size_t ahead = 0) const {
    return tokens_[at_ + ahead < tokens_.size() ? at_ + ahead : tokens_.size() - 1];
  }
  const Token& next() {
    const Token& token = peek();
    if (at_ + 1 < tokens_.size()) ++at_;
    return token;
  }
  bool is(Token::Kind kind, std::string_view text) const {
    return peek().kind == kind && peek().text == text;
  }
  bool is_symbol(std::string_view text) const { return is(Token::Kind::symbol, text); }
  bool is_name(std::string_view text) const { return is(Token::Kind::name, text); }
  bool take_symbol(std::string_view text) { return take(Token::Kind::symbol, text); }
  bool take_name(std::string_view text) { return take(Token::Kind::name, text); }
  int line() const { return peek().line; }

  Result<void> expect_symbol(std::string_view text);
  Result<void> expect(Token::Kind kind, std::string_view what);
  Result<std::string> expect_name(std::string_view what);
  // An error at the current token: "expected ..., found ...".
  Error expected(std::string_view what) const;

 private:
  bool take(Token::Kind kind, std::string_view text) {
    if (!is(kind, text)) return false;
    next();
    return true;
  }
  std::vector<Token> tokens_;
  size_t at_ = 0;
};

class ExpressionParser {
 public:
  ExpressionParser(Cursor& cursor, Ast& ast) : cursor_(cursor), ast_(ast) {}

  // One expression, or several separated by commas, which make a tuple. Without `conditional`,
  // "if" ends it (as in {% for x in xs if x %}).
  Result<ExprId> parse_tuple(bool conditional);
  Result<ExprId> parse(bool conditional = true);
  Result<ExprId> parse_filters(ExprId subject);  // | f | g: of a set block

 private:
  using Named = std::vector<std::pair<std::string, ExprId>>;
  Result<ExprId> add(Expr expr);
  Result<ExprId> parse_conditional(bool conditional);
  Result<ExprId> parse_binary(size_t level);
  Result<ExprId> parse_not();
  Result<ExprId> parse_comparison();
  Result<ExprId> parse_unary(bool with_filters);
  Result<ExprId> parse_primary();
  Result<ExprId> parse_name();
  Result<ExprId> parse_string();
  Result<ExprId> parse_number();
  Result<ExprId> parse_parenthesis();
  Result<ExprId> parse_list();
  Result<ExprId> parse_dict();
  Result<ExprId> parse_postfix(ExprId subject);
  Result<ExprId> parse_dot(ExprId subject);
  Result<ExprId> parse_subscript(ExprId subject);
  Result<ExprId> parse_filters_and_tests(ExprId subject);
  Result<ExprId> parse_filter(ExprId subject);
  Result<ExprId> parse_test(ExprId subject);
  Result<void> parse_arguments(Expr& call);

  Cursor& cursor_;
  Ast& ast_;
  int depth_ = 0;
};

}  // namespace mkv::jinja
