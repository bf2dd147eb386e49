// What templates can use without defining it: filters, tests, global functions and methods.
#pragma once

#include <ctime>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"
#include "text/jinja_value.h"

namespace mkv::jinja {

using NamedValues = std::vector<std::pair<std::string_view, Value>>;

struct Runtime {
  Heap heap;
  std::tm now{};  // what strftime_now prints
};

// The arguments of one call, in the order of the builtin's parameters.
struct Call {
  Runtime& runtime;
  Value self;  // what is filtered or tested, or the method's object
  std::vector<std::optional<Value>> args = {};
  std::vector<Value> rest = {};  // for "*": all positional arguments
  NamedValues named = {};        // for "**": all named ones

  Heap& heap() { return runtime.heap; }
  Value text(std::string value) { return runtime.heap.string(std::move(value)); }
  // Argument `i` as a flag, a number or a text; `fallback` if it was not given.
  bool flag(size_t i, bool fallback) const;
  Result<int64_t> integer(size_t i, int64_t fallback) const;
  Result<std::string_view> string(size_t i, std::string_view fallback) const;
};

struct Builtin {
  std::string_view name;
  std::string_view parameters;  // "old new count?"; "*" and "**" take what comes
  Result<Value> (*call)(Call& call);
};

// Nothing if there is none of that name.
const Builtin* find_filter(std::string_view name);
const Builtin* find_test(std::string_view name);
const Builtin* find_function(std::string_view name);
const Builtin* find_method(const Value& object, std::string_view name);
// Of their files, for find_method and find_filter.
const Builtin* find_string_method(std::string_view name);
const Builtin* find_list_filter(std::string_view name);

// Binds the arguments to the builtin's parameters and calls it. Errors carry no line.
Result<Value> call_builtin(const Builtin& builtin, Runtime& runtime, const Value& self,
                           const std::vector<Value>& positional, const NamedValues& named);

Error failure(std::string message);  // an invalid_argument
// The items of a list, the keys of a dict, the characters of a string; an error for the rest.
Result<std::vector<Value>> iterate(const Value& value, Heap& heap);
// a + b and its like; every operator but the logical ones.
Result<Value> calculate(std::string_view op, const Value& a, const Value& b, Heap& heap);
Result<Value> negate(const Value& value);
// value[begin:end:step] of a list or a text; None stands for a bound that is absent.
Result<Value> slice(const Value& value, const Value& begin, const Value& end, const Value& step,
                    Heap& heap);
// item in container
Result<bool> contains(const Value& container, const Value& item, Heap& heap);
// object.name or object[key]; undefined if there is none of that name.
Value get_item(const Value& object, const Value& key, Heap& heap);
// "a.b.0" of map(attribute=...) and its like.
Value get_path(const Value& object, std::string_view path, Heap& heap);
std::string lower(std::string_view text);
std::string upper(std::string_view text);
// As to_text, for what must be text: a filter's subject.
Result<std::string_view> text_of(const Value& value, Heap& heap);

}  // namespace mkv::jinja
