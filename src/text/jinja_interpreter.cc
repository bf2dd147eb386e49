#include "text/jinja_interpreter.h"

#include "text/jinja_lexer.h"

namespace mkv::jinja {
namespace {

// Sets the fields of `loop` for iteration `i`: one dict serves all iterations.
void update_loop(Dict& loop, const std::vector<Value>& items, size_t i) {
  const auto number = [](size_t n) { return Value(static_cast<int64_t>(n)); };
  const size_t size = items.size();
  loop.entries = {
      {Value(std::string_view("index")), number(i + 1)},
      {Value(std::string_view("index0")), number(i)},
      {Value(std::string_view("revindex")), number(size - i)},
      {Value(std::string_view("revindex0")), number(size - i - 1)},
      {Value(std::string_view("first")), Value(i == 0)},
      {Value(std::string_view("last")), Value(i + 1 == size)},
      {Value(std::string_view("length")), number(size)},
      {Value(std::string_view("previtem")), i == 0 ? Value(Undefined{"previtem"}) : items[i - 1]},
      {Value(std::string_view("nextitem")),
       i + 1 == size ? Value(Undefined{"nextitem"}) : items[i + 1]},
  };
}

}  // namespace

Error located(int line, Error error) {
  if (error.message.starts_with("chat template")) return error;
  return error_at(line, error.code, error.message);
}

const Value* Interpreter::find(std::string_view name) const {
  for (size_t i = scopes_.size(); i > 0;) {
    --i;
    if (i < frame_) i = 0;  // past the macro's own scopes: the globals
    for (const auto& [known, value] : scopes_[i]) {
      if (known == name) return &value;
    }
  }
  return nullptr;
}

void Interpreter::set(std::string_view name, const Value& value) {
  for (auto& [known, old] : scopes_.back()) {
    if (known == name) {
      old = value;
      return;
    }
  }
  scopes_.back().emplace_back(name, value);
}

Result<std::string> Interpreter::run(const NamedValues& globals) {
  scopes_.assign(1, globals);
  std::string out;
  MKV_TRY(run_block(ast_.body, out));
  // What ran out in the last step has not been noticed yet; values made since then are cut.
  if (heap().exhausted()) {
    return make_error(ErrorCode::capacity, "chat template: " + heap().describe());
  }
  return out;
}

Result<void> Interpreter::append(int line, std::string_view text, std::string& out) const {
  if (text.size() > max_output_bytes_ - out.size()) {
    return error_at(line, ErrorCode::capacity,
                    "the text gets longer than " + std::to_string(max_output_bytes_) + " bytes");
  }
  out += text;
  return {};
}

Result<Interpreter::Flow> Interpreter::run_block(const Block& block, std::string& out) {
  if (depth_ >= kMaxDepth) {
    const int line = block.empty() ? 1 : ast_.stmts[block.front()].line;
    return error_at(line, ErrorCode::capacity,
                    "blocks, expressions and macros nest more than " + std::to_string(kMaxDepth) +
                        " levels deep");
  }
  ++depth_;
  Flow flow = Flow::normal;
  for (size_t i = 0; i < block.size() && flow == Flow::normal; ++i) {
    MKV_ASSIGN(flow, run_statement(block[i], out));
  }
  --depth_;
  return flow;
}

Result<Interpreter::Flow> Interpreter::run_statement(StmtId id, std::string& out) {
  const Stmt& stmt = ast_.stmts[id];
  const Result<void> affordable = heap().spend(stmt.text.size());
  if (!affordable) return located(stmt.line, affordable.error());
  switch (stmt.kind) {
    case Stmt::Kind::text:
      MKV_TRY(append(stmt.line, stmt.text, out));
      return Flow::normal;
    case Stmt::Kind::print: {
      MKV_ASSIGN(const Value value, eval(stmt.expr));
      const Result<std::string> text = to_text(value, heap());
      if (!text) return located(stmt.line, text.error());
      heap().work(text->size());
      MKV_TRY(append(stmt.line, *text, out));
      return Flow::normal;
    }
    case Stmt::Kind::condition:
      return run_condition(stmt, out);
    case Stmt::Kind::loop:
      return run_loop(stmt, out);
    case Stmt::Kind::set:
      MKV_TRY(run_set(stmt));
      return Flow::normal;
    case Stmt::Kind::set_block:
      MKV_TRY(run_set_block(stmt));
      return Flow::normal;
    case Stmt::Kind::macro: {
      Function macro;
      macro.kind = Function::Kind::macro;
      macro.name = stmt.text;
      macro.macro = id;
      set(stmt.text, heap().function(macro));
      return Flow::normal;
    }
    case Stmt::Kind::group:
      return run_block(stmt.body, out);
    case Stmt::Kind::leave:
      return Flow::leave;
    case Stmt::Kind::skip:
      return Flow::skip;
  }
  return Flow::normal;
}

Result<Interpreter::Flow> Interpreter::run_condition(const Stmt& stmt, std::string& out) {
  for (const Stmt::Branch& branch : stmt.branches) {
    if (branch.condition != kNoExpr) {
      MKV_ASSIGN(const Value condition, eval(branch.condition));
      if (!is_true(condition)) continue;
    }
    return run_block(branch.body, out);
  }
  return Flow::normal;
}

// The items that the loop goes through: those that its "if" lets pass.
Result<std::vector<Value>> Interpreter::loop_items(const Stmt& stmt) {
  MKV_ASSIGN(const Value iterable, eval(stmt.expr));
  Result<std::vector<Value>> items = iterate(iterable, heap());
  if (!items) return located(stmt.line, std::move(items).error());
  if (stmt.condition == kNoExpr) return items;
  std::vector<Value> kept;
  for (const Value& item : *items) {
    scopes_.emplace_back();
    MKV_TRY(assign(stmt, item));
    MKV_ASSIGN(const Value passes, eval(stmt.condition));
    scopes_.pop_back();
    if (is_true(passes)) kept.push_back(item);
  }
  return kept;
}

Result<Interpreter::Flow> Interpreter::run_loop(const Stmt& stmt, std::string& out) {
  MKV_ASSIGN(const std::vector<Value> items, loop_items(stmt));
  if (items.empty()) return run_block(stmt.otherwise, out);
  Dict* const loop = heap().dict();
  loop->is_loop = loop->is_namespace = true;
  for (size_t i = 0; i < items.size(); ++i) {
    update_loop(*loop, items, i);
    scopes_.emplace_back();
    MKV_TRY(assign(stmt, items[i]));
    set("loop", Value(loop));
    MKV_ASSIGN(const Flow flow, run_block(stmt.body, out));
    scopes_.pop_back();
    if (flow == Flow::leave) break;
  }
  return Flow::normal;
}

Result<void> Interpreter::run_set(const Stmt& stmt) {
  MKV_ASSIGN(const Value value, eval(stmt.expr));
  return assign(stmt, value);
}

Result<void> Interpreter::run_set_block(const Stmt& stmt) {
  std::string body;
  scopes_.emplace_back();
  MKV_TRY(run_block(stmt.body, body));
  set("{body}", heap().string(std::move(body)));
  MKV_ASSIGN(const Value value, eval(stmt.expr));
  scopes_.pop_back();
  return assign(stmt, value);
}

Result<void> Interpreter::assign(const Stmt& stmt, const Value& value) {
  const Target& target = stmt.target;
  if (target.unpacks) {
    const Result<std::vector<Value>> parts = iterate(value, heap());
    const size_t found = parts ? parts->size() : 0;
    if (found != target.names.size() || value.is_undefined()) {
      return error_at(stmt.line, ErrorCode::invalid_argument,
                      "cannot assign a " + std::string(type_name(value)) + " of " +
                          std::to_string(found) + " items to " +
                          std::to_string(target.names.size()) + " variables");
    }
    for (size_t i = 0; i < found; ++i) set(target.names[i], (*parts)[i]);
    return {};
  }
  if (target.attribute.empty()) {
    set(target.names[0], value);
    return {};
  }
  const Value* const object = find(target.names[0]);
  const bool is_namespace = object != nullptr && object->is<Dict*>() &&
                            object->as<Dict*>()->is_namespace && !object->as<Dict*>()->is_loop;
  if (!is_namespace) {
    return error_at(
        stmt.line, ErrorCode::invalid_argument,
        "cannot set an attribute of \"" + target.names[0] + "\": it is not a namespace");
  }
  object->as<Dict*>()->set(Value(std::string_view(target.attribute)), value);
  return {};
}

}  // namespace mkv::jinja
