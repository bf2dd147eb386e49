// Values of the template language: Python's, as far as chat templates use them.
//
// Values are small and copied freely: strings, lists and dicts are views of what a Heap owns. They
// never change once made, except a namespace() through {% set ns.x = ... %}. The Heap counts what a
// template allocates and how long it works, so that a hostile one ends with an error.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/result.h"

namespace mkv::jinja {

struct Value;
struct List;
struct Dict;
struct Function;

struct Undefined {
  std::string_view name;  // what was looked for
};
struct None {};

using ValueVariant = std::variant<Undefined, None, bool, int64_t, double, std::string_view,
                                  const List*, Dict*, const Function*>;

struct Value : ValueVariant {
  using ValueVariant::ValueVariant;
  Value() : ValueVariant(Undefined{}) {}
  Value(const char*) = delete;  // would become a bool

  template <class T>
  bool is() const {
    return std::holds_alternative<T>(*this);
  }
  template <class T>
  T as() const {  // the caller has checked is<T>()
    return *std::get_if<T>(this);
  }
  bool is_undefined() const { return is<Undefined>(); }
  bool is_string() const { return is<std::string_view>(); }
  bool is_number() const { return is<bool>() || is<int64_t>() || is<double>(); }
  std::string_view string() const { return as<std::string_view>(); }
};

struct List {
  std::vector<Value> items;
  bool is_tuple = false;
};

struct Dict {
  // In the order they were added. Keys are never lists or dicts: see is_key().
  std::vector<std::pair<Value, Value>> entries;
  bool is_namespace = false;
  bool is_loop = false;  // the variable "loop", which has methods

  const Value* find(const Value& key) const;
  void set(const Value& key, const Value& value);
};

// Something that can be called: a macro, a global function, or a method together with its object.
struct Function {
  enum class Kind : uint8_t { global, macro, method };
  Kind kind = Kind::global;
  std::string_view name;
  size_t macro = 0;  // index of the statement that defines it
  Value object;      // method
};

struct HeapLimits {
  size_t bytes = size_t{256} << 20;  // of strings and lists in all
  size_t steps = 10'000'000;         // one for each operation, and for each 64 bytes it looks at
};

class Heap {
 public:
  explicit Heap(const HeapLimits& limits) : limits_(limits) {}
  Heap(const Heap&) = delete;
  Heap& operator=(const Heap&) = delete;

  Value string(std::string text);
  Value list(std::vector<Value> items, bool is_tuple = false);
  Dict* dict();
  Value function(const Function& function);

  void count(size_t bytes) { bytes_ += bytes; }  // of what dicts hold
  // Whether `bytes` more may be allocated; if not, the heap counts as exhausted.
  bool has_room(size_t bytes);
  void work(size_t bytes_looked_at) { steps_ += 1 + bytes_looked_at / 64; }
  // As work(), and an error if that is more than there is left.
  Result<void> spend(size_t bytes_looked_at);
  bool exhausted() const { return bytes_ > limits_.bytes || steps_ > limits_.steps; }
  std::string describe() const;  // which limit was passed

 private:
  HeapLimits limits_;
  size_t bytes_ = 0, steps_ = 0;
  std::deque<std::string> strings_;
  std::deque<List> lists_;
  std::deque<Dict> dicts_;
  std::deque<Function> functions_;
};

bool is_true(const Value& value);
bool is_key(const Value& value);
// Both count the work against the heap (lists that share their parts can be exponentially large);
// once it is exhausted the answer means nothing.
bool equal(const Value& a, const Value& b, Heap& heap);
// Less than zero, zero, more than zero; nothing if the two have no order.
std::optional<int> compare(const Value& a, const Value& b, Heap& heap);
std::string_view type_name(const Value& value);

// What {{ value }} prints, and Python's repr() inside lists and dicts.
Result<std::string> to_text(const Value& value, Heap& heap);

struct JsonStyle {
  int indent = -1;  // -1: on one line
  std::string item_separator = ", ", key_separator = ": ";
  bool sort_keys = false, ascii = false;
};
Result<std::string> to_json(const Value& value, const JsonStyle& style, Heap& heap);

}  // namespace mkv::jinja
