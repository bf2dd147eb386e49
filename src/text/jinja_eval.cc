// Evaluation of expressions.
#include "text/jinja_interpreter.h"
#include "text/jinja_lexer.h"

namespace mkv::jinja {
namespace {

Error undefined_error(const Expr& expr, const Value& object, std::string_view what) {
  return error_at(expr.line, ErrorCode::invalid_argument,
                  "\"" + std::string(object.as<Undefined>().name) + "\" is undefined and has no " +
                      std::string(what));
}

template <class T>
Result<T> located_result(int line, Result<T> result) {
  if (result) return result;
  return located(line, std::move(result).error());
}

}  // namespace

Result<Value> Interpreter::eval(ExprId id) {
  const Expr& expr = ast_.exprs[id];
  const Result<void> affordable = heap().spend(0);
  if (!affordable) return located(expr.line, affordable.error());
  if (depth_ >= kMaxDepth) {
    return error_at(expr.line, ErrorCode::capacity,
                    "blocks, expressions and macros nest more than " + std::to_string(kMaxDepth) +
                        " levels deep");
  }
  ++depth_;
  Result<Value> value = eval_expr(expr);
  --depth_;
  return value;
}

Result<Value> Interpreter::eval_expr(const Expr& expr) {
  switch (expr.kind) {
    case Expr::Kind::string:
      return Value(std::string_view(expr.text));
    case Expr::Kind::constant:
      return expr.constant;
    case Expr::Kind::name:
      return eval_name(expr);
    case Expr::Kind::list:
    case Expr::Kind::tuple:
      return eval_list(expr);
    case Expr::Kind::dict:
      return eval_dict(expr);
    case Expr::Kind::attribute:
      return eval_attribute(expr);
    case Expr::Kind::item:
      return eval_item(expr);
    case Expr::Kind::slice:
      return eval_slice(expr);
    case Expr::Kind::call:
      return eval_call(expr);
    case Expr::Kind::filter:
      return eval_builtin(expr, "filter", find_filter(expr.text));
    case Expr::Kind::test:
      return eval_builtin(expr, "test", find_test(expr.text));
    case Expr::Kind::unary:
      return eval_unary(expr);
    case Expr::Kind::binary:
      return eval_binary(expr);
    case Expr::Kind::compare:
      return eval_compare(expr);
    case Expr::Kind::conditional: {
      MKV_ASSIGN(const Value condition, eval(expr.args[1]));
      if (is_true(condition)) return eval(expr.args[0]);
      if (expr.args[2] != kNoExpr) return eval(expr.args[2]);
      return Value(Undefined{"if without else"});
    }
  }
  return Value();
}

Result<Value> Interpreter::eval_name(const Expr& expr) {
  const Value* const value = find(expr.text);
  if (value != nullptr) return *value;
  const Builtin* const builtin = find_function(expr.text);
  if (builtin == nullptr) return Value(Undefined{expr.text});
  Function function;
  function.name = builtin->name;
  return heap().function(function);
}

Result<Value> Interpreter::eval_list(const Expr& expr) {
  std::vector<Value> items;
  for (const ExprId id : expr.args) {
    MKV_ASSIGN(const Value item, eval(id));
    items.push_back(item);
  }
  return heap().list(std::move(items), expr.kind == Expr::Kind::tuple);
}

Result<Value> Interpreter::eval_dict(const Expr& expr) {
  Dict* const dict = heap().dict();
  for (size_t i = 0; i + 1 < expr.args.size(); i += 2) {
    MKV_ASSIGN(const Value key, eval(expr.args[i]));
    MKV_ASSIGN(const Value value, eval(expr.args[i + 1]));
    if (!is_key(key)) {
      return error_at(expr.line, ErrorCode::invalid_argument,
                      "a " + std::string(type_name(key)) + " cannot be a key of a dict");
    }
    heap().work(dict->entries.size() * sizeof(Value));
    heap().count(2 * sizeof(Value));
    dict->set(key, value);
  }
  return Value(dict);
}

Result<Value> Interpreter::eval_attribute(const Expr& expr) {
  MKV_ASSIGN(const Value object, eval(expr.args[0]));
  if (object.is_undefined()) {
    return undefined_error(expr, object, "attribute \"" + expr.text + "\"");
  }
  const bool is_loop = object.is<Dict*>() && object.as<Dict*>()->is_loop;
  if (find_method(object, expr.text) != nullptr || (is_loop && expr.text == "cycle")) {
    Function method;
    method.kind = Function::Kind::method;
    method.name = expr.text;
    method.object = object;
    return heap().function(method);
  }
  const Value value = get_item(object, Value(std::string_view(expr.text)), heap());
  if (is_loop && value.is_undefined() && expr.text != "previtem" && expr.text != "nextitem") {
    return error_at(expr.line, ErrorCode::unsupported, "loop." + expr.text + " is not supported");
  }
  return value;
}

Result<Value> Interpreter::eval_item(const Expr& expr) {
  MKV_ASSIGN(const Value object, eval(expr.args[0]));
  MKV_ASSIGN(const Value key, eval(expr.args[1]));
  if (object.is_undefined()) return undefined_error(expr, object, "items");
  return get_item(object, key, heap());
}

Result<Value> Interpreter::eval_slice(const Expr& expr) {
  MKV_ASSIGN(const Value object, eval(expr.args[0]));
  Value bounds[3] = {Value(None{}), Value(None{}), Value(None{})};
  for (size_t i = 0; i < 3; ++i) {
    if (expr.args[i + 1] == kNoExpr) continue;
    MKV_ASSIGN(bounds[i], eval(expr.args[i + 1]));
  }
  if (object.is_undefined()) return undefined_error(expr, object, "items");
  return located_result(expr.line, slice(object, bounds[0], bounds[1], bounds[2], heap()));
}

Result<Value> Interpreter::eval_unary(const Expr& expr) {
  MKV_ASSIGN(const Value operand, eval(expr.args[0]));
  if (expr.text == "not") return Value(!is_true(operand));
  if (expr.text == "-") return located_result(expr.line, negate(operand));
  if (operand.is_number()) return operand;
  return error_at(expr.line, ErrorCode::invalid_argument,
                  "\"+\" of a " + std::string(type_name(operand)));
}

Result<Value> Interpreter::eval_binary(const Expr& expr) {
  MKV_ASSIGN(const Value left, eval(expr.args[0]));
  if (expr.text == "and" && !is_true(left)) return left;
  if (expr.text == "or" && is_true(left)) return left;
  MKV_ASSIGN(const Value right, eval(expr.args[1]));
  if (expr.text == "and" || expr.text == "or") return right;
  return located_result(expr.line, calculate(expr.text, left, right, heap()));
}

Result<Value> Interpreter::eval_compare(const Expr& expr) {
  MKV_ASSIGN(Value left, eval(expr.args[0]));
  for (size_t i = 0; i < expr.operators.size(); ++i) {
    const std::string& op = expr.operators[i];
    MKV_ASSIGN(const Value right, eval(expr.args[i + 1]));
    bool holds = false;
    if (op == "==" || op == "!=") {
      holds = equal(left, right, heap()) == (op == "==");
    } else if (op == "in" || op == "not in") {
      MKV_ASSIGN(const bool found, located_result(expr.line, contains(right, left, heap())));
      holds = found == (op == "in");
    } else {
      const std::optional<int> order = compare(left, right, heap());
      if (!order) {
        return error_at(expr.line, ErrorCode::invalid_argument,
                        "\"" + op + "\" of " + std::string(type_name(left)) + " and " +
                            std::string(type_name(right)));
      }
      holds = (op[0] == '<' && *order < 0) || (op[0] == '>' && *order > 0) ||
              (op.size() == 2 && *order == 0);
    }
    if (!holds) return Value(false);
    left = right;
  }
  return Value(true);
}

Result<void> Interpreter::eval_arguments(const Expr& expr, std::vector<Value>& positional,
                                         NamedValues& named) {
  for (size_t i = 1; i < expr.args.size(); ++i) {
    MKV_ASSIGN(const Value value, eval(expr.args[i]));
    positional.push_back(value);
  }
  for (const auto& [name, id] : expr.named) {
    MKV_ASSIGN(const Value value, eval(id));
    named.emplace_back(name, value);
  }
  return {};
}

Result<Value> Interpreter::eval_builtin(const Expr& expr, std::string_view kind,
                                        const Builtin* builtin) {
  if (builtin == nullptr) {
    return error_at(expr.line, ErrorCode::unsupported,
                    "the " + std::string(kind) + " \"" + expr.text + "\" is not supported");
  }
  MKV_ASSIGN(const Value subject, eval(expr.args[0]));
  std::vector<Value> positional;
  NamedValues named;
  MKV_TRY(eval_arguments(expr, positional, named));
  return located_result(expr.line, call_builtin(*builtin, runtime_, subject, positional, named));
}

Result<Value> Interpreter::eval_call(const Expr& expr) {
  MKV_ASSIGN(const Value callee, eval(expr.args[0]));
  if (callee.is<const Function*>()) return call_function(expr, *callee.as<const Function*>());
  const Expr& named = ast_.exprs[expr.args[0]];
  const bool has_name = named.kind == Expr::Kind::name || named.kind == Expr::Kind::attribute;
  return error_at(expr.line, ErrorCode::unsupported,
                  has_name ? "there is no function or method \"" + named.text + "\" to call"
                           : "a " + std::string(type_name(callee)) + " cannot be called");
}

Result<Value> Interpreter::call_function(const Expr& expr, const Function& function) {
  std::vector<Value> positional;
  NamedValues named;
  MKV_TRY(eval_arguments(expr, positional, named));
  if (function.kind == Function::Kind::macro) {
    return located_result(expr.line, call_macro(ast_.stmts[function.macro], positional, named));
  }
  if (function.kind == Function::Kind::global) {
    return located_result(expr.line, call_builtin(*find_function(function.name), runtime_, Value(),
                                                  positional, named));
  }
  if (const Builtin* const method = find_method(function.object, function.name)) {
    return located_result(expr.line,
                          call_builtin(*method, runtime_, function.object, positional, named));
  }
  // Only loop.cycle is left.
  const Value index = get_item(function.object, Value(std::string_view("index0")), heap());
  if (positional.empty() || !index.is<int64_t>()) {
    return error_at(expr.line, ErrorCode::invalid_argument, "loop.cycle() needs arguments");
  }
  return positional[static_cast<size_t>(index.as<int64_t>()) % positional.size()];
}

Result<Value> Interpreter::call_macro(const Stmt& macro, const std::vector<Value>& positional,
                                      const NamedValues& named) {
  if (positional.size() > macro.parameters.size()) {
    return failure("macro " + macro.text + ": " + std::to_string(positional.size()) +
                   " arguments, at most " + std::to_string(macro.parameters.size()) + " expected");
  }
  Scope scope;
  for (size_t i = 0; i < positional.size(); ++i) {
    scope.emplace_back(macro.parameters[i].name, positional[i]);
  }
  for (const auto& [name, value] : named) {
    bool is_known = false;
    for (size_t i = positional.size(); i < macro.parameters.size(); ++i) {
      is_known = is_known || macro.parameters[i].name == name;
    }
    if (!is_known) {
      return failure("macro " + macro.text + ": unexpected argument \"" + std::string(name) + "\"");
    }
    scope.emplace_back(name, value);
  }
  const size_t outer = frame_;
  frame_ = scopes_.size();
  scopes_.push_back(std::move(scope));
  for (const Stmt::Parameter& parameter : macro.parameters) {
    const NamedValues& given = scopes_.back();
    bool is_given = false;
    for (const auto& entry : given) is_given = is_given || entry.first == parameter.name;
    if (is_given) continue;
    Value fallback(Undefined{parameter.name});
    if (parameter.fallback != kNoExpr) {
      MKV_ASSIGN(fallback, eval(parameter.fallback));
    }
    set(parameter.name, fallback);
  }
  std::string out;
  MKV_TRY(run_block(macro.body, out));
  scopes_.pop_back();
  frame_ = outer;
  return heap().string(std::move(out));
}

}  // namespace mkv::jinja
