#include "text/jinja_parser.h"

#include <algorithm>
#include <iterator>

namespace mkv::jinja {
namespace {

using Kind = Stmt::Kind;

class StatementParser {
 public:
  explicit StatementParser(std::vector<Token> tokens)
      : cursor_(std::move(tokens)), expressions_(cursor_, ast_) {}
  StatementParser(const StatementParser&) = delete;
  StatementParser& operator=(const StatementParser&) = delete;

  Result<Ast> run() {
    MKV_ASSIGN(ast_.body, parse_block({}));
    return std::move(ast_);
  }

 private:
  using Names = std::vector<std::string_view>;

  StmtId add(Stmt stmt) {
    ast_.stmts.push_back(std::move(stmt));
    return static_cast<StmtId>(ast_.stmts.size() - 1);
  }
  static Stmt node(Kind kind, int line) {
    Stmt stmt;
    stmt.kind = kind;
    stmt.line = line;
    return stmt;
  }

  // Statements up to a tag that is one of `ends`; the cursor then stands at its name. Without
  // `ends`, up to the end of the template.
  Result<Block> parse_block(const Names& ends);
  Result<void> parse_tag(Block& block);
  Result<void> end_tag() { return cursor_.expect(Token::Kind::block_end, "%}"); }
  Result<Target> parse_target();
  Result<Stmt> parse_if(int line);
  Result<Stmt> parse_for(int line);
  Result<Stmt> parse_set(int line);
  Result<Stmt> parse_macro(int line);
  Result<Stmt> parse_group(int line);

  Cursor cursor_;
  Ast ast_;
  ExpressionParser expressions_;
  int depth_ = 0, loops_ = 0, macros_ = 0;
};

Result<Block> StatementParser::parse_block(const Names& ends) {
  if (depth_ >= kMaxNesting) {
    return error_at(cursor_.line(), ErrorCode::capacity,
                    "nested more than " + std::to_string(kMaxNesting) + " levels deep");
  }
  ++depth_;
  Block block;
  const int line = cursor_.line();
  while (cursor_.peek().kind != Token::Kind::end) {
    const Token token = cursor_.next();
    if (token.kind == Token::Kind::text) {
      Stmt stmt = node(Kind::text, token.line);
      stmt.text = token.text;
      block.push_back(add(std::move(stmt)));
    } else if (token.kind == Token::Kind::print_begin) {
      Stmt stmt = node(Kind::print, token.line);
      MKV_ASSIGN(stmt.expr, expressions_.parse_tuple(true));
      MKV_TRY(cursor_.expect(Token::Kind::print_end, "}}"));
      block.push_back(add(std::move(stmt)));
    } else {
      const Token& name = cursor_.peek();
      if (std::find(ends.begin(), ends.end(), name.text) != ends.end()) {
        --depth_;
        return block;
      }
      MKV_TRY(parse_tag(block));
    }
  }
  if (!ends.empty()) {
    return error_at(line, ErrorCode::corrupt,
                    "the block that begins here has no {% " + std::string(ends.back()) + " %}");
  }
  --depth_;
  return block;
}

Result<void> StatementParser::parse_tag(Block& block) {
  const int line = cursor_.line();
  MKV_ASSIGN(const std::string name, cursor_.expect_name("a tag"));
  Stmt stmt;
  if (name == "if") {
    MKV_ASSIGN(stmt, parse_if(line));
  } else if (name == "for") {
    MKV_ASSIGN(stmt, parse_for(line));
  } else if (name == "set") {
    MKV_ASSIGN(stmt, parse_set(line));
  } else if (name == "macro") {
    MKV_ASSIGN(stmt, parse_macro(line));
  } else if (name == "generation") {
    MKV_ASSIGN(stmt, parse_group(line));
  } else if (name == "break" || name == "continue") {
    if (loops_ == 0) {
      return error_at(line, ErrorCode::corrupt, "{% " + name + " %} outside of a loop");
    }
    stmt = node(name == "break" ? Kind::leave : Kind::skip, line);
  } else {
    return error_at(line, ErrorCode::unsupported,
                    "the tag \"" + (name == "from" ? "from ... import" : name) +
                        "\" is not supported or not expected here");
  }
  MKV_TRY(end_tag());
  block.push_back(add(std::move(stmt)));
  return {};
}

Result<Target> StatementParser::parse_target() {
  Target target;
  const bool parenthesis = cursor_.take_symbol("(");
  do {
    if (!target.names.empty()) target.unpacks = true;
    MKV_ASSIGN(std::string name, cursor_.expect_name("a variable"));
    target.names.push_back(std::move(name));
  } while (cursor_.take_symbol(","));
  if (parenthesis) MKV_TRY(cursor_.expect_symbol(")"));
  return target;
}

Result<Stmt> StatementParser::parse_if(int line) {
  Stmt stmt = node(Kind::condition, line);
  std::string tag = "if";
  while (tag != "endif") {
    Stmt::Branch& branch = stmt.branches.emplace_back();
    if (tag != "else") {
      MKV_ASSIGN(branch.condition, expressions_.parse_tuple(true));
    }
    MKV_TRY(end_tag());
    const Names ends = tag == "else" ? Names{"endif"} : Names{"elif", "else", "endif"};
    MKV_ASSIGN(branch.body, parse_block(ends));
    tag = cursor_.next().text;
  }
  return stmt;
}

Result<Stmt> StatementParser::parse_for(int line) {
  Stmt stmt = node(Kind::loop, line);
  MKV_ASSIGN(stmt.target, parse_target());
  if (!cursor_.take_name("in")) return cursor_.expected("in");
  MKV_ASSIGN(stmt.expr, expressions_.parse_tuple(false));
  if (cursor_.take_name("if")) {
    MKV_ASSIGN(stmt.condition, expressions_.parse());
  }
  if (cursor_.is_name("recursive")) {
    return error_at(line, ErrorCode::unsupported, "a recursive loop is not supported");
  }
  MKV_TRY(end_tag());
  ++loops_;
  MKV_ASSIGN(stmt.body, parse_block({"else", "endfor"}));
  --loops_;
  if (cursor_.next().text == "else") {
    MKV_TRY(end_tag());
    MKV_ASSIGN(stmt.otherwise, parse_block({"endfor"}));
    cursor_.next();
  }
  return stmt;
}

Result<Stmt> StatementParser::parse_set(int line) {
  Stmt stmt = node(Kind::set, line);
  MKV_ASSIGN(stmt.target, parse_target());
  if (!stmt.target.unpacks && cursor_.take_symbol(".")) {
    MKV_ASSIGN(stmt.target.attribute, cursor_.expect_name("an attribute"));
  }
  if (cursor_.take_symbol("=")) {
    MKV_ASSIGN(stmt.expr, expressions_.parse_tuple(true));
    return stmt;
  }
  // {% set x | filter %}...{% endset %}: the filters apply to a variable that no template can name.
  stmt.kind = Kind::set_block;
  Expr body;
  body.kind = Expr::Kind::name;
  body.line = line;
  body.text = "{body}";
  ast_.exprs.push_back(std::move(body));
  MKV_ASSIGN(stmt.expr, expressions_.parse_filters(static_cast<ExprId>(ast_.exprs.size() - 1)));
  MKV_TRY(end_tag());
  MKV_ASSIGN(stmt.body, parse_block({"endset"}));
  cursor_.next();
  return stmt;
}

Result<Stmt> StatementParser::parse_macro(int line) {
  if (loops_ > 0 || macros_ > 0) {
    return error_at(line, ErrorCode::unsupported,
                    "a macro inside of a loop or a macro is not supported");
  }
  Stmt stmt = node(Kind::macro, line);
  MKV_ASSIGN(stmt.text, cursor_.expect_name("the macro's name"));
  MKV_TRY(cursor_.expect_symbol("("));
  while (!cursor_.is_symbol(")")) {
    Stmt::Parameter& parameter = stmt.parameters.emplace_back();
    MKV_ASSIGN(parameter.name, cursor_.expect_name("a parameter"));
    if (cursor_.take_symbol("=")) {
      MKV_ASSIGN(parameter.fallback, expressions_.parse());
    }
    if (!cursor_.take_symbol(",")) break;
  }
  MKV_TRY(cursor_.expect_symbol(")"));
  MKV_TRY(end_tag());
  ++macros_;
  MKV_ASSIGN(stmt.body, parse_block({"endmacro"}));
  --macros_;
  cursor_.next();
  if (cursor_.is_name(stmt.text)) cursor_.next();
  return stmt;
}

// {% generation %} marks for trainers what the assistant said; it prints like any text.
Result<Stmt> StatementParser::parse_group(int line) {
  Stmt stmt = node(Kind::group, line);
  MKV_TRY(end_tag());
  MKV_ASSIGN(stmt.body, parse_block({"endgeneration"}));
  cursor_.next();
  return stmt;
}

}  // namespace

Error Cursor::expected(std::string_view what) const {
  const Token& token = peek();
  constexpr std::string_view kKinds[] = {"text", "{%", "%}", "{{", "}}"};
  std::string found = "\"" + token.text + "\"";
  if (token.kind == Token::Kind::end) found = "the end of the template";
  if (static_cast<size_t>(token.kind) < std::size(kKinds)) {
    found = kKinds[static_cast<size_t>(token.kind)];
  }
  return error_at(token.line, ErrorCode::corrupt,
                  "expected " + std::string(what) + ", found " + found);
}

Result<void> Cursor::expect(Token::Kind kind, std::string_view what) {
  if (peek().kind != kind) return expected(what);
  next();
  return {};
}

Result<void> Cursor::expect_symbol(std::string_view text) {
  if (!take_symbol(text)) return expected(text);
  return {};
}

Result<std::string> Cursor::expect_name(std::string_view what) {
  if (peek().kind != Token::Kind::name) return expected(what);
  return next().text;
}

Result<Ast> parse(std::string_view source) {
  MKV_ASSIGN(std::vector<Token> tokens, tokenize(source));
  return StatementParser(std::move(tokens)).run();
}

}  // namespace mkv::jinja
