// A fine-tuning run's checkpoint: from tensors and reports to RunState and back.
#include <cstdio>

#include "store/atomic_file.h"
#include "store/hash.h"
#include "store/message.h"
#include "train/torch/sft_trainer.h"
#include "train/torch/trainer.h"

namespace mkv::training {
namespace {

std::vector<float> values_of(const std::vector<Tensor>& tensors) {
  std::vector<float> out;
  for (const Tensor& tensor : tensors) {
    const Tensor flat = tensor.to(torch::kCPU, torch::kFloat32).contiguous();
    out.insert(out.end(), flat.data_ptr<float>(), flat.data_ptr<float>() + flat.numel());
  }
  return out;
}

// False: another number of values.
bool read_values(const std::vector<float>& values, const std::vector<Tensor>& tensors) {
  int64_t count = 0;
  for (const Tensor& tensor : tensors) count += tensor.numel();
  if (static_cast<int64_t>(values.size()) != count) return false;
  if (values.empty()) return true;
  const Tensor all = torch::tensor(at::ArrayRef<float>(values));
  int64_t at = 0;
  for (const Tensor& tensor : tensors) {
    tensor.copy_(all.slice(0, at, at + tensor.numel()).view(tensor.sizes()));
    at += tensor.numel();
  }
  return true;
}

std::string hash_of(std::span<const ScoredTokens> examples) {
  Sha256 hash;
  for (const ScoredTokens& each : examples) {
    hash.update(std::as_bytes(std::span(each.tokens)));
    hash.update(std::as_bytes(std::span(&each.first, 1)));
  }
  return hash.hex();
}

std::string text(double x) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%.9g", x);
  return buffer;
}

std::string text(const std::vector<std::string>& words) {
  std::string all;
  for (const std::string& word : words) all.append(word).append(1, ' ');
  return all;
}

constexpr const char* kStages[] = {"lora", "joint"};

}  // namespace

RunIdentity SftTrainer::identity() const {
  const SftOptions& o = in_.options;
  const bool bf16 = twin_options(o.precision, o.device).bf16;
  return {{"kind", "fine-tuning"},
          {"model", in_.model.weights_hash()},
          {"nest", bases_ ? training::hash_of(*nest_) : "none"},
          {"examples", hash_of(in_.examples)},
          {"held_out", hash_of(in_.held_out)},
          {"lora_rank", std::to_string(o.lora_rank)},
          {"lora_alpha", text(o.lora_alpha)},
          {"projections", text(o.projections)},
          {"lora_steps", std::to_string(o.lora_steps)},
          {"joint_steps", std::to_string(o.joint_steps)},
          {"examples_per_step", std::to_string(o.examples_per_step)},
          {"lora_rate", text(o.lora_rate)},
          {"joint_lora_rate", text(o.joint_lora_rate)},
          {"basis_rate", text(o.basis_rate)},
          {"warmup_steps", std::to_string(o.warmup_steps)},
          {"last_rate", text(o.last_rate)},
          {"most_gradient", text(o.most_gradient)},
          {"kl_weight", text(o.kl_weight)},
          {"cross_entropy_weight", text(o.cross_entropy_weight)},
          {"schedule", std::to_string(static_cast<int>(o.schedule.schedule))},
          {"floor", text(o.schedule.floor)},
          {"seed", std::to_string(o.schedule.seed)},
          {"budgets", text(o.budgets)},
          {"steps_per_measurement", std::to_string(o.steps_per_measurement)},
          {"patience", std::to_string(o.patience)},
          {"bf16", bf16 ? "yes" : "no"}};
}

std::vector<std::pair<std::string, std::vector<Tensor>>> SftTrainer::named_tensors() {
  return {{"moving", moving()},
          {"best", best_},
          {"lora_moments", lora_adam_->moments()},
          {"basis_moments", joint() ? basis_adam_->moments() : std::vector<Tensor>()}};
}

Result<void> SftTrainer::save() {
  since_save_.lap();
  if (!peers_.leads()) return {};
  state_.seconds = seconds_before_ + watch_.seconds();
  if (!in_.options.checkpoint.empty()) {
    for (size_t s = 0; s < 2; ++s) {
      const SftStageReport& r = reports_[s];
      const std::string name = kStages[s];
      state_.figures[name + "_before"] = r.before;
      state_.figures[name + "_best"] = r.best;
      state_.figures[name] = {static_cast<double>(r.steps), static_cast<double>(r.best_step),
                              r.stopped_early ? 1.0 : 0.0};
    }
    state_.figures["stage"] = {static_cast<double>(stage_), static_cast<double>(examples_seen_)};
    if (sampler_) {
      state_.schedule_weights = sampler_->weights();
      state_.schedule_last.assign(sampler_->last_seen().begin(), sampler_->last_seen().end());
    }
    state_.tensors.clear();
    for (const auto& [name, tensors] : named_tensors()) state_.tensors[name] = values_of(tensors);
    MKV_TRY(write_run_state(in_.options.checkpoint, identity_, state_));
  }
  if (in_.options.log.empty()) return {};
  std::string lines;
  for (const std::string& line : state_.log) lines += line + "\n";
  return write_file_atomically(in_.options.log, std::as_bytes(std::span(lines)));
}

Result<void> SftTrainer::resume() {
  begin_stage();
  MKV_ASSIGN(std::optional<RunState> found,
             read_shared_run_state(in_.options.checkpoint, identity_, peers_));
  if (!found) return {};
  const auto corrupt = [&](const std::string& what) {
    return make_error(ErrorCode::corrupt, in_.options.checkpoint.string() + ": " + what);
  };
  const std::vector<double>& stage = found->figures["stage"];
  if (stage.size() != 2 || (stage[0] != 0.0 && stage[0] != 1.0) || !(stage[1] >= 0.0)) {
    return corrupt("figures: no stage");
  }
  stage_ = static_cast<size_t>(stage[0]);
  if (joint() && !bases_) return corrupt("a joint stage without a nest");
  for (size_t s = 0; s < 2; ++s) {
    const std::string name = kStages[s];
    const std::vector<double>& numbers = found->figures[name];
    if (numbers.size() != 3) return corrupt("figures: " + name);
    reports_[s] = {static_cast<size_t>(numbers[0]), static_cast<size_t>(numbers[1]),
                   numbers[2] != 0.0, found->figures[name + "_before"],
                   found->figures[name + "_best"]};
  }
  begin_stage();
  examples_seen_ = static_cast<size_t>(stage[1]);
  if (found->step > stage_steps() ||
      reports_[stage_].best.size() != (joint() ? rungs_.size() + 1 : 1)) {
    return corrupt(concat("step ", found->step, " of ", stage_steps(), ", or other measurements"));
  }
  for (const auto& [name, tensors] : named_tensors()) {
    if (!read_values(found->tensors[name], tensors)) return corrupt("tensors " + name);
  }
  if (sampler_) {
    if (found->schedule_weights.size() != rungs_.size() ||
        found->schedule_last.size() > rungs_.size()) {
      return corrupt("a schedule of another number of budgets");
    }
    sampler_->restore(found->schedule_weights, found->schedule_last);
  }
  state_ = std::move(*found);
  state_.tensors.clear();
  seconds_before_ = state_.seconds;
  return {};
}

}  // namespace mkv::training
