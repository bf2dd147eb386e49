// Runs a template's syntax tree: statements, and (jinja_eval.cc) expressions.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "text/jinja_ast.h"
#include "text/jinja_builtins.h"

namespace mkv::jinja {

// For one run; belongs to one thread.
class Interpreter {
 public:
  Interpreter(const Ast& ast, Runtime& runtime, size_t max_output_bytes)
      : ast_(ast), runtime_(runtime), max_output_bytes_(max_output_bytes) {}
  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;

  // The names of globals must outlive the run.
  Result<std::string> run(const NamedValues& globals);

 private:
  // Of blocks, expressions and macros within each other, while they run: bounds the stack.
  static constexpr int kMaxDepth = 2 * kMaxNesting + 50;
  enum class Flow : uint8_t { normal, leave, skip };
  using Scope = NamedValues;

  Result<Flow> run_block(const Block& block, std::string& out);
  Result<Flow> run_statement(StmtId id, std::string& out);
  Result<Flow> run_condition(const Stmt& stmt, std::string& out);
  Result<Flow> run_loop(const Stmt& stmt, std::string& out);
  Result<std::vector<Value>> loop_items(const Stmt& stmt);
  Result<void> run_set(const Stmt& stmt);
  Result<void> run_set_block(const Stmt& stmt);
  Result<void> assign(const Stmt& stmt, const Value& value);
  Result<void> append(int line, std::string_view text, std::string& out) const;

  Result<Value> eval(ExprId id);
  Result<Value> eval_expr(const Expr& expr);
  Result<Value> eval_name(const Expr& expr);
  Result<Value> eval_list(const Expr& expr);
  Result<Value> eval_dict(const Expr& expr);
  Result<Value> eval_attribute(const Expr& expr);
  Result<Value> eval_item(const Expr& expr);
  Result<Value> eval_slice(const Expr& expr);
  Result<Value> eval_unary(const Expr& expr);
  Result<Value> eval_binary(const Expr& expr);
  Result<Value> eval_compare(const Expr& expr);
  Result<Value> eval_call(const Expr& expr);
  Result<Value> eval_builtin(const Expr& expr, std::string_view kind, const Builtin* builtin);
  Result<Value> call_function(const Expr& expr, const Function& function);
  Result<Value> call_macro(const Stmt& macro, const std::vector<Value>& positional,
                           const NamedValues& named);
  Result<void> eval_arguments(const Expr& expr, std::vector<Value>& positional, NamedValues& named);

  const Value* find(std::string_view name) const;
  void set(std::string_view name, const Value& value);
  Heap& heap() { return runtime_.heap; }

  const Ast& ast_;
  Runtime& runtime_;
  size_t max_output_bytes_;
  std::vector<Scope> scopes_;
  size_t frame_ =
      0;  // the first scope of the macro that runs; outer ones but the globals are hidden
  int depth_ = 0;
};

// An error with the template's line in front, unless it has one.
Error located(int line, Error error);

}  // namespace mkv::jinja
