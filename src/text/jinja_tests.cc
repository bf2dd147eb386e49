// Tests: what stands behind "is".
#include "text/jinja_builtins.h"
#include "text/jinja_text.h"

namespace mkv::jinja {
namespace {

bool is_integer(const Value& v) { return v.is<int64_t>(); }
bool is_container(const Value& v) { return v.is<const List*>() || v.is<Dict*>() || v.is_string(); }

template <bool (*holds)(const Value&)>
Result<Value> kind_test(Call& call) {
  return Value(holds(call.self));
}

bool is_defined(const Value& v) { return !v.is_undefined(); }
bool is_undefined(const Value& v) { return v.is_undefined(); }
bool is_none(const Value& v) { return v.is<None>(); }
bool is_string(const Value& v) { return v.is_string(); }
bool is_number(const Value& v) { return v.is_number(); }
bool is_float(const Value& v) { return v.is<double>(); }
bool is_boolean(const Value& v) { return v.is<bool>(); }
bool is_true_itself(const Value& v) { return v.is<bool>() && v.as<bool>(); }
bool is_false_itself(const Value& v) { return v.is<bool>() && !v.as<bool>(); }
bool is_mapping(const Value& v) { return v.is<Dict*>() && !v.as<Dict*>()->is_namespace; }
// An undefined value has no items, but it can be gone through.
bool is_iterable(const Value& v) { return is_container(v) || v.is_undefined(); }
bool is_callable(const Value& v) { return v.is<const Function*>(); }

template <int64_t remainder>
Result<Value> parity_test(Call& call) {
  if (!is_integer(call.self)) {
    return failure("odd, even: expected an int, found " + std::string(type_name(call.self)));
  }
  return Value((call.self.as<int64_t>() % 2 != 0) == (remainder == 1));
}

Result<Value> divisible_test(Call& call) {
  MKV_ASSIGN(const int64_t divisor, call.integer(0, 1));
  if (!is_integer(call.self) || divisor == 0) return failure("divisibleby: not two usable ints");
  return Value(divisor == -1 || call.self.as<int64_t>() % divisor == 0);
}

Result<Value> equal_test(Call& call) { return Value(equal(call.self, *call.args[0], call.heap())); }

Result<Value> unequal_test(Call& call) {
  return Value(!equal(call.self, *call.args[0], call.heap()));
}

Result<Value> same_test(Call& call) {
  return Value(call.self.index() == call.args[0]->index() &&
               equal(call.self, *call.args[0], call.heap()));
}

template <bool (*holds)(int)>
Result<Value> order_test(Call& call) {
  const std::optional<int> order = compare(call.self, *call.args[0], call.heap());
  if (!order) return failure("the two values have no order");
  return Value(holds(*order));
}
bool less(int order) { return order < 0; }
bool less_equal(int order) { return order <= 0; }
bool greater(int order) { return order > 0; }
bool greater_equal(int order) { return order >= 0; }

Result<Value> in_test(Call& call) {
  MKV_ASSIGN(const bool found, contains(*call.args[0], call.self, call.heap()));
  return Value(found);
}

template <std::string (*change)(std::string_view)>
Result<Value> case_test(Call& call) {
  MKV_ASSIGN(const std::string_view text, text_of(call.self, call.heap()));
  return Value(change(text) == text);
}

constexpr Builtin kTests[] = {
    {"defined", "", kind_test<is_defined>},
    {"undefined", "", kind_test<is_undefined>},
    {"none", "", kind_test<is_none>},
    {"string", "", kind_test<is_string>},
    {"number", "", kind_test<is_number>},
    {"integer", "", kind_test<is_integer>},
    {"float", "", kind_test<is_float>},
    {"boolean", "", kind_test<is_boolean>},
    {"true", "", kind_test<is_true_itself>},
    {"false", "", kind_test<is_false_itself>},
    {"mapping", "", kind_test<is_mapping>},
    {"iterable", "", kind_test<is_iterable>},
    {"sequence", "", kind_test<is_iterable>},
    {"callable", "", kind_test<is_callable>},
    {"odd", "", parity_test<1>},
    {"even", "", parity_test<0>},
    {"divisibleby", "num", divisible_test},
    {"eq", "other", equal_test},
    {"equalto", "other", equal_test},
    {"==", "other", equal_test},
    {"ne", "other", unequal_test},
    {"!=", "other", unequal_test},
    {"sameas", "other", same_test},
    {"lt", "other", order_test<less>},
    {"<", "other", order_test<less>},
    {"lessthan", "other", order_test<less>},
    {"le", "other", order_test<less_equal>},
    {"<=", "other", order_test<less_equal>},
    {"gt", "other", order_test<greater>},
    {">", "other", order_test<greater>},
    {"greaterthan", "other", order_test<greater>},
    {"ge", "other", order_test<greater_equal>},
    {">=", "other", order_test<greater_equal>},
    {"in", "seq", in_test},
    {"lower", "", case_test<lower>},
    {"upper", "", case_test<upper>},
};

}  // namespace

const Builtin* find_test(std::string_view name) {
  for (const Builtin& test : kTests) {
    if (test.name == name) return &test;
  }
  return nullptr;
}

Result<bool> contains(const Value& container, const Value& item, Heap& heap) {
  if (container.is_string()) {
    if (!item.is_string()) {
      return failure("in: expected a str on the left, found " + std::string(type_name(item)));
    }
    MKV_TRY(heap.spend(container.string().size() * (item.string().size() + 1)));
    return container.string().find(item.string()) != std::string_view::npos;
  }
  if (container.is<const List*>()) {
    for (const Value& other : container.as<const List*>()->items) {
      if (equal(other, item, heap)) return true;
      if (heap.exhausted()) break;
    }
    return false;
  }
  if (container.is<Dict*>()) {
    heap.work(container.as<Dict*>()->entries.size() * sizeof(Value));
    return is_key(item) && container.as<Dict*>()->find(item) != nullptr;
  }
  if (container.is_undefined()) return false;
  return failure("in: a value of type " + std::string(type_name(container)) + " has no items");
}

}  // namespace mkv::jinja
