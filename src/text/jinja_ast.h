// The syntax tree of a template. Nodes live in the Ast's deques and refer to each other by index,
// so that neither copying nor destroying a deep tree recurses.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "text/jinja_value.h"

namespace mkv::jinja {

using ExprId = uint32_t;
using StmtId = uint32_t;
constexpr ExprId kNoExpr = UINT32_MAX;

// How deep expressions, and statements in statements, may nest.
constexpr int kMaxNesting = 200;

struct Expr {
  enum class Kind : uint8_t {
    string,       // text
    constant,     // constant
    name,         // text
    list,         // args
    tuple,        // args
    dict,         // args: key, value, key, value, ...
    attribute,    // args[0].text
    item,         // args[0][args[1]]
    slice,        // args[0][args[1]:args[2]:args[3]], kNoExpr where absent
    call,         // args[0](args[1...], named)
    filter,       // args[0] | text(args[1...], named)
    test,         // args[0] is text(args[1...], named)
    unary,        // text args[0]: "-", "+", "not"
    binary,       // args[0] text args[1]: "+", "~", "and", ...
    compare,      // args[0] operators[0] args[1] operators[1] args[2] ...
    conditional,  // args[0] if args[1] else args[2] (kNoExpr: undefined)
  };
  Kind kind = Kind::constant;
  int line = 0;
  int depth = 1;  // of the tree below
  std::string text;
  Value constant;
  std::vector<ExprId> args;
  std::vector<std::pair<std::string, ExprId>> named;
  std::vector<std::string> operators;
};

struct Target {
  std::vector<std::string> names;
  bool unpacks = false;   // a, b = ...
  std::string attribute;  // names[0].attribute = ...
};

using Block = std::vector<StmtId>;

struct Stmt {
  enum class Kind : uint8_t {
    text,       // text
    print,      // expr
    condition,  // branches; the last may have no condition
    loop,       // for target in expr if condition: body, else: otherwise
    set,        // target = expr
    set_block,  // target = body, through `filters`
    macro,      // text(parameters): body
    group,      // body
    leave,      // break
    skip,       // continue
  };
  struct Branch {
    ExprId condition = kNoExpr;
    Block body;
  };
  struct Parameter {
    std::string name;
    ExprId fallback = kNoExpr;
  };
  Kind kind = Kind::text;
  int line = 0;
  std::string text;
  ExprId expr = kNoExpr, condition = kNoExpr;
  Target target;
  Block body, otherwise;
  std::vector<Branch> branches;
  std::vector<Parameter> parameters;
};

struct Ast {
  std::deque<Expr> exprs;
  std::deque<Stmt> stmts;
  Block body;
};

}  // namespace mkv::jinja
