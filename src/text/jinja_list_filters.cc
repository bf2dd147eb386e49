// Filters of lists and dicts.
#include <algorithm>

#include "text/jinja_builtins.h"
#include "text/jinja_text.h"

namespace mkv::jinja {
namespace {

Result<Value> filter_length(Call& call) {
  if (call.self.is_string()) {
    call.heap().work(call.self.string().size());
    return Value(static_cast<int64_t>(text_length(call.self.string())));
  }
  MKV_ASSIGN(const std::vector<Value> items, iterate(call.self, call.heap()));
  return Value(static_cast<int64_t>(items.size()));
}

Result<Value> filter_first(Call& call) {
  MKV_ASSIGN(const std::vector<Value> items, iterate(call.self, call.heap()));
  return items.empty() ? Value(Undefined{"first item"}) : items.front();
}

Result<Value> filter_last(Call& call) {
  MKV_ASSIGN(const std::vector<Value> items, iterate(call.self, call.heap()));
  return items.empty() ? Value(Undefined{"last item"}) : items.back();
}

Result<Value> filter_list(Call& call) {
  MKV_ASSIGN(std::vector<Value> items, iterate(call.self, call.heap()));
  return call.heap().list(std::move(items));
}

Result<Value> filter_reverse(Call& call) {
  MKV_ASSIGN(std::vector<Value> items, iterate(call.self, call.heap()));
  std::reverse(items.begin(), items.end());
  if (!call.self.is_string()) return call.heap().list(std::move(items));
  std::string out;
  for (const Value& item : items) out += item.string();
  return call.text(std::move(out));
}

// What sort, unique, min, max and join look at: the item, or its attribute.
Result<Value> aspect(const Value& item, const std::optional<Value>& attribute, Heap& heap) {
  if (!attribute || attribute->is<None>()) return item;
  if (attribute->is_string()) return get_path(item, attribute->string(), heap);
  return get_item(item, *attribute, heap);
}

Result<Value> filter_join(Call& call) {
  MKV_ASSIGN(const std::vector<Value> items, iterate(call.self, call.heap()));
  MKV_ASSIGN(const std::string_view separator,
             text_of(call.args[0].value_or(Value(std::string_view())), call.heap()));
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    MKV_ASSIGN(const Value part, aspect(items[i], call.args[1], call.heap()));
    MKV_ASSIGN(const std::string_view text, text_of(part, call.heap()));
    if (!call.heap().has_room(out.size() + separator.size() + text.size())) {
      return failure(call.heap().describe());
    }
    if (i != 0) out += separator;
    out += text;
  }
  return call.text(std::move(out));
}

struct Keyed {
  Value key, item;
};

Result<std::vector<Keyed>> keyed_items(Call& call, const std::optional<Value>& attribute,
                                       bool case_sensitive) {
  MKV_ASSIGN(const std::vector<Value> items, iterate(call.self, call.heap()));
  std::vector<Keyed> keyed;
  for (const Value& item : items) {
    MKV_ASSIGN(Value key, aspect(item, attribute, call.heap()));
    if (key.is_string() && !case_sensitive) key = call.text(lower(key.string()));
    keyed.push_back({key, item});
  }
  return keyed;
}

// Merge sort: std::sort must not be given values without an order, which only comparing tells.
Result<void> sort_items(std::vector<Keyed>& items, bool reverse, Heap& heap) {
  std::vector<Keyed> sorted(items.size());
  for (size_t width = 1; width < items.size(); width *= 2) {
    for (size_t begin = 0; begin < items.size(); begin += 2 * width) {
      const size_t middle = std::min(begin + width, items.size());
      const size_t end = std::min(begin + 2 * width, items.size());
      size_t a = begin, b = middle;
      for (size_t i = begin; i < end; ++i) {
        bool right = a == middle;
        if (a < middle && b < end) {
          const std::optional<int> order = compare(items[b].key, items[a].key, heap);
          if (!order) return failure("sort: two of the values have no order");
          right = reverse ? *order > 0 : *order < 0;
        }
        sorted[i] = right ? items[b++] : items[a++];
      }
    }
    items.swap(sorted);
    MKV_TRY(heap.spend(items.size() * sizeof(Keyed)));
  }
  return {};
}

Value items_of(const std::vector<Keyed>& keyed, Heap& heap) {
  std::vector<Value> items;
  for (const Keyed& entry : keyed) items.push_back(entry.item);
  return heap.list(std::move(items));
}

Result<Value> filter_sort(Call& call) {
  MKV_ASSIGN(std::vector<Keyed> keyed, keyed_items(call, call.args[2], call.flag(1, false)));
  MKV_TRY(sort_items(keyed, call.flag(0, false), call.heap()));
  return items_of(keyed, call.heap());
}

Result<Value> filter_unique(Call& call) {
  MKV_ASSIGN(const std::vector<Keyed> keyed, keyed_items(call, call.args[1], call.flag(0, false)));
  std::vector<Keyed> unique;
  for (const Keyed& entry : keyed) {
    const bool is_known = std::any_of(unique.begin(), unique.end(), [&](const Keyed& other) {
      return equal(other.key, entry.key, call.heap());
    });
    if (!is_known) unique.push_back(entry);
    if (call.heap().exhausted()) break;
  }
  return items_of(unique, call.heap());
}

template <bool largest>
Result<Value> extreme_filter(Call& call) {
  MKV_ASSIGN(const std::vector<Keyed> keyed, keyed_items(call, call.args[1], call.flag(0, false)));
  if (keyed.empty()) return Value(Undefined{"min or max of an empty list"});
  Keyed best = keyed.front();
  for (const Keyed& entry : keyed) {
    const std::optional<int> order = compare(entry.key, best.key, call.heap());
    if (!order) return failure("min, max: two of the values have no order");
    if (largest ? *order > 0 : *order < 0) best = entry;
  }
  return best.item;
}

Result<Value> filter_sum(Call& call) {
  MKV_ASSIGN(const std::vector<Value> items, iterate(call.self, call.heap()));
  Value sum = call.args[1].value_or(Value(int64_t{0}));
  for (const Value& item : items) {
    MKV_ASSIGN(const Value part, aspect(item, call.args[0], call.heap()));
    MKV_ASSIGN(sum, calculate("+", sum, part, call.heap()));
  }
  return sum;
}

Result<Value> filter_items(Call& call) {
  if (call.self.is_undefined()) return call.heap().list({});
  const Builtin* const method = find_method(call.self, "items");
  if (method == nullptr) return failure("items: expected a dict");
  return method->call(call);
}

Result<Value> filter_dictsort(Call& call) {
  MKV_ASSIGN(const std::string_view by, call.string(1, "key"));
  if (by != "key" && by != "value") return failure("dictsort: by must be key or value");
  MKV_ASSIGN(const Value pairs, filter_items(call));
  call.self = pairs;
  const Value index(int64_t{by == "value" ? 1 : 0});
  MKV_ASSIGN(std::vector<Keyed> keyed, keyed_items(call, index, call.flag(0, false)));
  MKV_TRY(sort_items(keyed, call.flag(2, false), call.heap()));
  return items_of(keyed, call.heap());
}

// map(attribute="x", default=y), map("filter", arguments...)
Result<Value> filter_map(Call& call) {
  MKV_ASSIGN(const std::vector<Value> items, iterate(call.self, call.heap()));
  std::vector<Value> out;
  std::optional<Value> attribute, fallback;
  for (const auto& [name, value] : call.named) {
    if (name == "attribute") attribute = value;
    if (name == "default") fallback = value;
  }
  if (!attribute && (call.rest.empty() || !call.rest[0].is_string())) {
    return failure("map: neither an attribute nor a filter is given");
  }
  const Builtin* const filter = attribute ? nullptr : find_filter(call.rest[0].string());
  if (!attribute && filter == nullptr) {
    return make_error(
        ErrorCode::unsupported,
        "map: the filter \"" + std::string(call.rest[0].string()) + "\" is not supported");
  }
  for (const Value& item : items) {
    MKV_TRY(call.heap().spend(0));
    if (attribute) {
      MKV_ASSIGN(const Value value, aspect(item, attribute, call.heap()));
      out.push_back(value.is_undefined() && fallback ? *fallback : value);
    } else {
      const std::vector<Value> arguments(call.rest.begin() + 1, call.rest.end());
      MKV_ASSIGN(const Value value,
                 call_builtin(*filter, call.runtime, item, arguments, call.named));
      out.push_back(value);
    }
  }
  return call.heap().list(std::move(out));
}

// select("test", ...), selectattr("attribute", "test", ...) and their opposites. Without a test,
// what is true is kept.
template <bool by_attribute, bool keep>
Result<Value> select_filter(Call& call) {
  MKV_ASSIGN(const std::vector<Value> items, iterate(call.self, call.heap()));
  constexpr size_t kTest = by_attribute ? 1 : 0;
  for (size_t i = 0; i <= kTest; ++i) {
    const bool is_missing = call.rest.size() <= i;
    if (is_missing ? i < kTest : !call.rest[i].is_string()) {
      return failure("select, reject: the names of attribute and test must be texts");
    }
  }
  const bool has_test = call.rest.size() > kTest;
  const Builtin* const test = has_test ? find_test(call.rest[kTest].string()) : nullptr;
  if (has_test && test == nullptr) {
    return make_error(
        ErrorCode::unsupported,
        "the test \"" + std::string(call.rest[kTest].string()) + "\" is not supported");
  }
  std::vector<Value> arguments, out;
  if (has_test) arguments.assign(call.rest.begin() + kTest + 1, call.rest.end());
  for (const Value& item : items) {
    MKV_TRY(call.heap().spend(0));
    Value subject = item;
    if (by_attribute) subject = get_path(item, call.rest[0].string(), call.heap());
    if (test != nullptr) {
      MKV_ASSIGN(subject, call_builtin(*test, call.runtime, subject, arguments, call.named));
    }
    if (is_true(subject) == keep) out.push_back(item);
  }
  return call.heap().list(std::move(out));
}

constexpr Builtin kFilters[] = {
    {"length", "", filter_length},
    {"count", "", filter_length},
    {"first", "", filter_first},
    {"last", "", filter_last},
    {"list", "", filter_list},
    {"reverse", "", filter_reverse},
    {"join", "d? attribute?", filter_join},
    {"sort", "reverse? case_sensitive? attribute?", filter_sort},
    {"unique", "case_sensitive? attribute?", filter_unique},
    {"min", "case_sensitive? attribute?", extreme_filter<false>},
    {"max", "case_sensitive? attribute?", extreme_filter<true>},
    {"sum", "attribute? start?", filter_sum},
    {"items", "", filter_items},
    {"dictsort", "case_sensitive? by? reverse?", filter_dictsort},
    {"map", "* **", filter_map},
    {"select", "* **", select_filter<false, true>},
    {"reject", "* **", select_filter<false, false>},
    {"selectattr", "* **", select_filter<true, true>},
    {"rejectattr", "* **", select_filter<true, false>},
};

}  // namespace

const Builtin* find_list_filter(std::string_view name) {
  for (const Builtin& filter : kFilters) {
    if (filter.name == name) return &filter;
  }
  return nullptr;
}

}  // namespace mkv::jinja
