// A run's checkpoint: from tensors to RunState and back.
#include "store/atomic_file.h"
#include "train/torch/trainer.h"

namespace mkv::training {
namespace {

std::vector<float> values_of(const Tensor& tensor) {
  const Tensor flat = tensor.to(torch::kCPU, torch::kFloat32).contiguous();
  const float* data = flat.data_ptr<float>();
  return {data, data + flat.numel()};
}

}  // namespace

std::vector<std::pair<std::string, Tensor>> Trainer::named_tensors() {
  std::vector<std::pair<std::string, Tensor>> all;
  const std::vector<Parameters::Moved> moved = parameters_->moved();
  for (size_t i = 0; i < moved.size(); ++i) {
    all.emplace_back(moved[i].name, moved[i].values);
    all.emplace_back("best_" + moved[i].name, best_[i]);
  }
  const std::vector<Tensor> moments = adam_.moments();
  for (size_t i = 0; i < moments.size(); ++i) {
    all.emplace_back("moment_" + std::to_string(i), moments[i]);
  }
  return all;
}

Result<void> Trainer::save() {
  saved_ = Clock::now();
  if (!peers_.leads()) return {};
  state_.seconds = seconds_before_ + since(start_);
  state_.schedule_weights = sampler_.weights();
  state_.schedule_last.assign(sampler_.last_seen().begin(), sampler_.last_seen().end());
  if (!in_.options.checkpoint.empty()) {
    state_.tensors.clear();
    for (const auto& [name, tensor] : named_tensors()) state_.tensors[name] = values_of(tensor);
    MKV_TRY(write_run_state(in_.options.checkpoint, identity_, state_));
  }
  if (in_.options.log.empty()) return {};
  std::string text;
  for (const std::string& line : state_.log) text += line + "\n";
  return write_file_atomically(in_.options.log, std::as_bytes(std::span(text)));
}

Result<void> Trainer::resume() {
  MKV_ASSIGN(std::optional<RunState> found,
             read_shared_run_state(in_.options.checkpoint, identity_, peers_));
  if (!found) return {};
  const auto corrupt = [&](const std::string& what) {
    return make_error(ErrorCode::corrupt, in_.options.checkpoint.string() + ": " + what);
  };
  const size_t budgets = rungs_.size();
  if (found->step > steps_) {
    return corrupt("step " + std::to_string(found->step) + " of " + std::to_string(steps_));
  }
  if (found->schedule_weights.size() != budgets || found->schedule_last.size() != budgets ||
      found->kl_before.size() != budgets || found->kl_best.size() != budgets ||
      found->running_kl.size() != budgets) {
    return corrupt("measurements of another number of budgets than " + std::to_string(budgets));
  }
  for (auto& [name, tensor] : named_tensors()) {
    const std::vector<float>& values = found->tensors[name];
    if (values.size() != static_cast<size_t>(tensor.numel())) {
      return corrupt("tensor " + name + ": expected " + std::to_string(tensor.numel()) +
                     " values, found " + std::to_string(values.size()));
    }
    tensor.copy_(torch::tensor(at::ArrayRef<float>(values)).view(tensor.sizes()));
  }
  sampler_.restore(found->schedule_weights, found->schedule_last);
  last_kl_ = found->schedule_last;
  state_ = std::move(*found);
  state_.tensors.clear();
  seconds_before_ = state_.seconds;
  return {};
}

}  // namespace mkv::training
