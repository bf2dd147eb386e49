#include "train/run_state.h"

#include <cmath>
#include <cstring>

#include "store/safetensors.h"

namespace mkv {
namespace {

constexpr char kFormat[] = "matryoshka_kv_training_3";

Json state_json(const RunIdentity& identity, const RunState& state) {
  return {{"format", kFormat},
          {"run", identity},
          {"step", state.step},
          {"tokens", state.tokens},
          {"seconds", state.seconds},
          {"schedule_weights", state.schedule_weights},
          {"schedule_last", state.schedule_last},
          {"kl_before", state.kl_before},
          {"kl_best", state.kl_best},
          {"running_kl", state.running_kl},
          {"best", state.best},
          {"best_step", state.best_step},
          {"without_better", state.without_better},
          {"figures", state.figures},
          {"log", state.log}};
}

Result<void> read_numbers(const Json& json, const char* key, std::vector<double>& out) {
  MKV_ASSIGN(const Json* array, get_array(json, key));
  for (const Json& value : *array) {
    if (!value.is_number())
      return make_error(ErrorCode::corrupt, std::string(key) + ": not numbers");
    out.push_back(value.get<double>());
  }
  return {};
}

Result<void> check_identity(const Json& json, const RunIdentity& identity) {
  MKV_ASSIGN(const std::string format, get_string(json, "format"));
  if (format != kFormat) {
    return make_error(ErrorCode::unsupported,
                      "format " + format + ", this program reads " + kFormat);
  }
  MKV_ASSIGN(const Json* run, get_object(json, "run"));
  for (const auto& [name, value] : identity) {
    MKV_ASSIGN(const std::string there, get_string(*run, name));
    if (there != value) {
      return make_error(
          ErrorCode::invalid_argument,
          "a checkpoint of another run: " + name + " is " + there + " there, " + value + " here");
    }
  }
  return {};
}

Result<RunState> parse_state(const SafetensorsFile& file, const RunIdentity& identity) {
  const auto found = file.metadata().find("state");
  if (found == file.metadata().end()) {
    return make_error(ErrorCode::corrupt, "no metadata \"state\": not a training checkpoint");
  }
  MKV_ASSIGN(const Json json, parse_json(found->second, "state"));
  MKV_TRY(check_identity(json, identity));
  RunState state;
  MKV_ASSIGN(state.step, get_size(json, "step"));
  MKV_ASSIGN(state.tokens, get_size(json, "tokens"));
  MKV_ASSIGN(state.seconds, get_double(json, "seconds"));
  MKV_TRY(read_numbers(json, "schedule_weights", state.schedule_weights));
  MKV_TRY(read_numbers(json, "schedule_last", state.schedule_last));
  MKV_TRY(read_numbers(json, "kl_before", state.kl_before));
  MKV_TRY(read_numbers(json, "kl_best", state.kl_best));
  MKV_TRY(read_numbers(json, "running_kl", state.running_kl));
  MKV_ASSIGN(state.best, get_double(json, "best"));
  MKV_ASSIGN(state.best_step, get_size(json, "best_step"));
  MKV_ASSIGN(state.without_better, get_size(json, "without_better"));
  MKV_ASSIGN(const Json* figures, get_object(json, "figures"));
  for (const auto& item : figures->items()) {
    MKV_TRY(read_numbers(*figures, item.key().c_str(), state.figures[item.key()]));
  }
  MKV_ASSIGN(const Json* log, get_array(json, "log"));
  for (const Json& line : *log) {
    if (!line.is_string()) return make_error(ErrorCode::corrupt, "log: not lines of text");
    state.log.push_back(line.get<std::string>());
  }
  for (const RawTensor& tensor : file.raw_tensors()) {
    if (tensor.dtype != "F32") {
      return make_error(ErrorCode::corrupt,
                        "tensor " + tensor.name + ": expected F32, found " + tensor.dtype);
    }
    std::vector<float>& values = state.tensors[tensor.name];
    values.resize(tensor.bytes.size() / sizeof(float));
    if (!values.empty()) std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  }
  return state;
}

}  // namespace

Result<void> write_run_state(const std::filesystem::path& path, const RunIdentity& identity,
                             const RunState& state) {
  std::vector<RawTensor> tensors;
  for (const auto& [name, values] : state.tensors) {
    tensors.push_back({name, "F32", {values.size()}, std::as_bytes(std::span(values))});
  }
  MKV_ASSIGN(const std::string text, dump_json(state_json(identity, state)));
  return write_safetensors(path, tensors, {{"state", text}});
}

Result<RunState> parse_run_state(std::span<const std::byte> bytes, const std::string& name,
                                 const RunIdentity& identity) {
  MKV_ASSIGN(const SafetensorsFile file, SafetensorsFile::parse(bytes, name));
  Result<RunState> state = parse_state(file, identity);
  if (!state) return in_context(name, std::move(state).error());
  return state;
}

}  // namespace mkv
