// Examples of zero-shot tasks from .jsonl files, in three shapes, one object a line:
//
//   {"context": C, "choices": [" a", " b", ...], "label": I}         which continuation of one
//   context
//   {"contexts": [C0, C1, ...], "continuation": " ...", "label": I}   which context of one
//                                                      continuation (WinoGrande's partial
//                                                      evaluation)
//   {"context": C, "continuation": " ..."}            is the continuation the greedy one (LAMBADA)
//
// "id" may name the example; other keys are ignored. Choices begin with what separates them from
// the context.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "base/result.h"

namespace mkv {

enum class TaskShape : uint8_t { choices, contexts, continuation };

struct TaskExample {
  std::string id;
  // (context, continuation) of each alternative; one alone for TaskShape::continuation.
  std::vector<std::pair<std::string, std::string>> alternatives;
  size_t label = 0;  // the right alternative
};

struct Task {
  std::string name;  // the file's, without its ending
  TaskShape shape = TaskShape::choices;
  std::vector<TaskExample> examples;
};

// The first `limit` lines of a file; 0 is all. Errors name the file and the line: no object of
// these shapes, a label that is none of the alternatives, lines of different shapes, no line.
Result<Task> read_task(const std::filesystem::path& path, size_t limit);

}  // namespace mkv
