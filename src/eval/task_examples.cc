#include "eval/task_examples.h"

#include <fstream>

#include "store/json.h"
#include "store/message.h"

namespace mkv {
namespace {

constexpr size_t kMaxLineBytes = size_t{1} << 24;

struct Parsed {
  TaskShape shape = TaskShape::choices;
  TaskExample example;
};

Result<std::vector<std::string>> get_strings(const Json& object, std::string_view key) {
  MKV_ASSIGN(const Json* const list, get_array(object, key));
  std::vector<std::string> texts;
  for (const Json& text : *list) {
    if (!text.is_string()) {
      return make_error(ErrorCode::corrupt, concat(key, "[", texts.size(), "]: not a text"));
    }
    texts.push_back(text.get<std::string>());
  }
  return texts;
}

Result<Parsed> parse_line(const std::string& line) {
  MKV_ASSIGN(const Json json, parse_json(line, "line"));
  Parsed parsed;
  TaskExample& example = parsed.example;
  MKV_ASSIGN(example.id, get_string_or(json, "id", ""));
  if (json.contains("choices")) {
    MKV_ASSIGN(const std::string context, get_string(json, "context"));
    MKV_ASSIGN(const std::vector<std::string> choices, get_strings(json, "choices"));
    for (const std::string& choice : choices) example.alternatives.emplace_back(context, choice);
  } else if (json.contains("contexts")) {
    parsed.shape = TaskShape::contexts;
    MKV_ASSIGN(const std::string continuation, get_string(json, "continuation"));
    MKV_ASSIGN(const std::vector<std::string> contexts, get_strings(json, "contexts"));
    for (const std::string& each : contexts) example.alternatives.emplace_back(each, continuation);
  } else {
    parsed.shape = TaskShape::continuation;
    MKV_ASSIGN(std::string context, get_string(json, "context"));
    MKV_ASSIGN(std::string continuation, get_string(json, "continuation"));
    example.alternatives.emplace_back(std::move(context), std::move(continuation));
    return parsed;
  }
  MKV_ASSIGN(example.label, get_size(json, "label"));
  if (example.label >= example.alternatives.size()) {
    return make_error(ErrorCode::corrupt, concat("label ", example.label, " of ",
                                                 example.alternatives.size(), " alternatives"));
  }
  return parsed;
}

}  // namespace

Result<Task> read_task(const std::filesystem::path& path, size_t limit) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return make_error(ErrorCode::not_found, path.string() + ": cannot open");
  Task task{.name = path.stem().string(), .shape = {}, .examples = {}};
  size_t number = 0;
  for (std::string line; (limit == 0 || task.examples.size() < limit) && getline(file, line);) {
    const std::string where = concat(path.string(), ":", ++number);
    if (line.size() > kMaxLineBytes) {
      return make_error(ErrorCode::corrupt, concat(where, ": a line of ", line.size(), " bytes, ",
                                                   kMaxLineBytes, " are the most"));
    }
    if (line.empty()) continue;
    auto parsed = parse_line(line);
    if (!parsed) return in_context(where, std::move(parsed).error());
    if (!task.examples.empty() && parsed->shape != task.shape) {
      return make_error(ErrorCode::corrupt, where + ": of another shape than the lines before");
    }
    task.shape = parsed->shape;
    task.examples.push_back(std::move(parsed->example));
  }
  if (task.examples.empty()) {
    return make_error(ErrorCode::corrupt, path.string() + ": no example");
  }
  return task;
}

}  // namespace mkv
