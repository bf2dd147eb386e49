#include "text/jinja_value.h"

#include <algorithm>

namespace mkv::jinja {
namespace {

constexpr int kMaxDepth = 100;  // of lists within lists, when they are compared

double number(const Value& value) {
  if (value.is<bool>()) return value.as<bool>() ? 1 : 0;
  if (value.is<int64_t>()) return static_cast<double>(value.as<int64_t>());
  return value.as<double>();
}

// Integers are compared as such: a double does not hold all of them.
std::optional<int64_t> whole(const Value& value) {
  if (value.is<bool>()) return value.as<bool>() ? 1 : 0;
  if (value.is<int64_t>()) return value.as<int64_t>();
  return std::nullopt;
}

template <class T>
int order(const T& a, const T& b) {
  return a < b ? -1 : (b < a ? 1 : 0);
}

bool equal_scalars(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    const std::optional<int64_t> i = whole(a), j = whole(b);
    return i && j ? *i == *j : number(a) == number(b);
  }
  if (a.index() != b.index()) return false;
  if (a.is_string()) return a.string() == b.string();
  if (a.is<const Function*>()) return a.as<const Function*>() == b.as<const Function*>();
  return a.is_undefined() || a.is<None>();
}

class Comparison {
 public:
  explicit Comparison(Heap& heap) : heap_(heap) {}

  bool equal(const Value& a, const Value& b, int depth) {
    heap_.work(a.is_string() ? a.string().size() : 0);
    if (depth > kMaxDepth || heap_.exhausted()) return false;
    if (a.is<const List*>() && b.is<const List*>()) {
      return equal(*a.as<const List*>(), *b.as<const List*>(), depth);
    }
    if (a.is<Dict*>() && b.is<Dict*>()) return equal(*a.as<Dict*>(), *b.as<Dict*>(), depth);
    return equal_scalars(a, b);
  }

  std::optional<int> compare(const Value& a, const Value& b, int depth) {
    heap_.work(a.is_string() ? a.string().size() : 0);
    if (depth > kMaxDepth || heap_.exhausted()) return std::nullopt;
    if (a.is_number() && b.is_number()) {
      const std::optional<int64_t> i = whole(a), j = whole(b);
      return i && j ? order(*i, *j) : order(number(a), number(b));
    }
    if (a.is_string() && b.is_string()) return order(a.string(), b.string());
    if (!a.is<const List*>() || !b.is<const List*>()) return std::nullopt;
    const List &x = *a.as<const List*>(), &y = *b.as<const List*>();
    if (x.is_tuple != y.is_tuple) return std::nullopt;
    for (size_t i = 0; i < std::min(x.items.size(), y.items.size()); ++i) {
      if (equal(x.items[i], y.items[i], depth + 1)) continue;
      return compare(x.items[i], y.items[i], depth + 1);
    }
    return order(x.items.size(), y.items.size());
  }

 private:
  bool equal(const List& a, const List& b, int depth) {
    if (a.is_tuple != b.is_tuple || a.items.size() != b.items.size()) return false;
    for (size_t i = 0; i < a.items.size(); ++i) {
      if (!equal(a.items[i], b.items[i], depth + 1)) return false;
    }
    return true;
  }
  bool equal(const Dict& a, const Dict& b, int depth) {
    if (a.entries.size() != b.entries.size()) return false;
    for (const auto& [key, value] : a.entries) {
      heap_.work(b.entries.size() * sizeof(Value));
      const Value* other = b.find(key);
      if (other == nullptr || !equal(value, *other, depth + 1)) return false;
    }
    return true;
  }

  Heap& heap_;
};

}  // namespace

const Value* Dict::find(const Value& key) const {
  for (const auto& entry : entries) {
    if (equal_scalars(entry.first, key)) return &entry.second;
  }
  return nullptr;
}

void Dict::set(const Value& key, const Value& value) {
  for (auto& entry : entries) {
    if (equal_scalars(entry.first, key)) {
      entry.second = value;
      return;
    }
  }
  entries.emplace_back(key, value);
}

Value Heap::string(std::string text) {
  bytes_ += text.size() + sizeof(std::string);
  steps_ += text.size() / 64;
  if (exhausted()) return Value(std::string_view());
  return Value(std::string_view(strings_.emplace_back(std::move(text))));
}

Value Heap::list(std::vector<Value> items, bool is_tuple) {
  bytes_ += items.size() * sizeof(Value) + sizeof(List);
  steps_ += items.size();
  if (exhausted()) items.clear();
  return Value(static_cast<const List*>(&lists_.emplace_back(List{std::move(items), is_tuple})));
}

Dict* Heap::dict() {
  bytes_ += sizeof(Dict);
  return &dicts_.emplace_back();
}

Value Heap::function(const Function& function) {
  bytes_ += sizeof(Function);
  return Value(static_cast<const Function*>(&functions_.emplace_back(function)));
}

bool Heap::has_room(size_t bytes) {
  if (exhausted() || bytes > limits_.bytes - bytes_) {
    bytes_ = limits_.bytes + 1;
    return false;
  }
  return true;
}

Result<void> Heap::spend(size_t bytes_looked_at) {
  work(bytes_looked_at);
  if (exhausted()) return make_error(ErrorCode::capacity, describe());
  return {};
}

std::string Heap::describe() const {
  if (bytes_ > limits_.bytes) {
    return "the template needs more than " + std::to_string(limits_.bytes) + " bytes";
  }
  return "the template takes more than " + std::to_string(limits_.steps) + " steps";
}

bool is_true(const Value& value) {
  if (value.is<bool>()) return value.as<bool>();
  if (value.is_number()) return number(value) != 0;
  if (value.is_string()) return !value.string().empty();
  if (value.is<const List*>()) return !value.as<const List*>()->items.empty();
  if (value.is<Dict*>()) {
    return value.as<Dict*>()->is_namespace || !value.as<Dict*>()->entries.empty();
  }
  return value.is<const Function*>();
}

bool is_key(const Value& value) { return !value.is<const List*>() && !value.is<Dict*>(); }

bool equal(const Value& a, const Value& b, Heap& heap) { return Comparison(heap).equal(a, b, 0); }

std::optional<int> compare(const Value& a, const Value& b, Heap& heap) {
  return Comparison(heap).compare(a, b, 0);
}

std::string_view type_name(const Value& value) {
  constexpr std::string_view kNames[] = {"undefined", "None", "bool", "int",     "float",
                                         "str",       "list", "dict", "function"};
  if (value.is<const List*>() && value.as<const List*>()->is_tuple) return "tuple";
  return kNames[value.index()];
}

}  // namespace mkv::jinja
