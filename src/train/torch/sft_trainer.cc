#include "train/torch/sft_trainer.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "base/rng.h"
#include "store/message.h"
#include "train/torch/trainer.h"

namespace mkv::training {
namespace {

Error invalid(const std::string& message) {
  return make_error(ErrorCode::invalid_argument, "train: " + message);
}

double length_of(const std::vector<Tensor>& tensors) {
  double square = 0.0;
  for (const Tensor& t : tensors) square += t.square().sum(torch::kDouble).item<double>();
  return std::sqrt(square);
}

// Shortens a gradient to `most` and tells how long it was.
double shorten(std::vector<Tensor>& gradient, double most) {
  const double length = length_of(gradient);
  if (most > 0 && length > most) {
    for (Tensor& t : gradient) t.mul_(most / length);
  }
  return length;
}

double mean(const std::vector<double>& values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

Result<void> check_nest(const SftInputs& inputs, const Nest* nest) {
  const SftOptions& o = inputs.options;
  if (o.joint_steps == 0) return {};
  if (nest == nullptr) return invalid("a joint stage needs a nest");
  if (nest->config().slab_kind != SlabKind::column) {
    return make_error(ErrorCode::unsupported,
                      "train: the nest is of code slabs; fine-tuning moves nests of columns (fit "
                      "--kind column)");
  }
  return {};
}

}  // namespace

Result<SftTrainer> SftTrainer::create(const SftInputs& inputs, Nest* nest) {
  const SftOptions& o = inputs.options;
  if (inputs.examples.empty() || inputs.held_out.empty()) {
    return invalid(concat(inputs.examples.size(), " examples and ", inputs.held_out.size(),
                          " held out, at least 1 of each is needed"));
  }
  if (o.lora_steps + o.joint_steps == 0) return invalid("no step in either stage");
  if (o.examples_per_step == 0) return invalid("0 examples a step, at least 1 is needed");
  if (o.peers.world > o.examples_per_step) {
    return invalid(concat(o.examples_per_step, " examples a step for ", o.peers.world,
                          " processes, at least one each is needed"));
  }
  for (const auto& examples : {inputs.examples, inputs.held_out}) {
    for (const ScoredTokens& example : examples) {
      MKV_TRY(inputs.model.check_tokens(example.tokens));
      if (example.first == 0 || example.first >= example.tokens.size()) {
        return invalid(concat("an example whose answer begins at token ", example.first, " of ",
                              example.tokens.size()));
      }
    }
  }
  MKV_TRY(check_nest(inputs, nest));
  MKV_ASSIGN(Lora lora, Lora::create(inputs.model.config(), o));
  std::vector<size_t> rungs;
  std::optional<PrefixSampler> sampler;
  if (o.joint_steps > 0) {
    for (const std::string& budget : o.budgets) {
      auto rung = rung_for_budget(*nest, budget);
      if (!rung) return in_context("held-out budget", std::move(rung).error());
      rungs.push_back(*rung);
    }
    MKV_ASSIGN(sampler, PrefixSampler::create(*nest, o.schedule, rungs, o.joint_steps));
  }
  MKV_ASSIGN(Peers peers, Peers::connect(o.peers));
  SftTrainer trainer(inputs, nest, std::move(lora), std::move(peers));
  trainer.sampler_ = std::move(sampler);
  trainer.rungs_ = std::move(rungs);
  MKV_TRY(trainer.peers_.check_same(trainer.identity_));
  return trainer;
}

SftTrainer::SftTrainer(const SftInputs& inputs, Nest* nest, Lora lora, Peers peers)
    : in_(inputs),
      nest_(nest),
      peers_(std::move(peers)),
      twin_(inputs.model, twin_options(inputs.options.precision, inputs.options.device)),
      lora_(std::move(lora)) {
  if (nest != nullptr && inputs.options.joint_steps > 0) {
    bases_.emplace(*nest, false, torch::Device(inputs.options.device));
  }
  identity_ = identity();
}

std::vector<Tensor> SftTrainer::moving() {
  std::vector<Tensor> all = lora_.tensors();
  if (joint()) all.push_back(bases_->turns());
  return all;
}

void SftTrainer::begin_stage() {
  const SftOptions& o = in_.options;
  AdamOptions adam{.rate = joint() ? o.joint_lora_rate : o.lora_rate,
                   .last_rate = o.last_rate,
                   .warmup_steps = o.warmup_steps,
                   .steps = stage_steps()};
  lora_adam_.emplace(lora_.tensors(), std::vector<double>(lora_.tensors().size(), 1.0), adam);
  if (joint()) {
    adam.rate = o.basis_rate;
    basis_adam_.emplace(std::vector<Tensor>{bases_->turns()}, std::vector<double>{1.0}, adam);
  }
  best_.clear();
  for (const Tensor& tensor : moving()) best_.push_back(tensor.clone());
  state_.step = 0;
  state_.without_better = 0;
}

Result<SftReport> SftTrainer::run() {
  MKV_TRY(resume());
  for (;;) {
    MKV_TRY(run_stage());
    const std::vector<Tensor> now = moving();
    if (stop_ || joint() || in_.options.joint_steps == 0) {
      MKV_TRY(save());
      for (size_t i = 0; i < now.size(); ++i) now[i].copy_(best_[i]);
      return finish(!stop_);
    }
    for (size_t i = 0; i < now.size(); ++i) now[i].copy_(best_[i]);
    stage_ = 1;
    begin_stage();
  }
}

Result<void> SftTrainer::run_stage() {
  SftStageReport& stage = reports_[stage_];
  if (stage_steps() == 0) return {};
  if (stage.before.empty()) MKV_TRY(measure());
  while (state_.step < stage_steps() && !stage.stopped_early) {
    Stopwatch step;
    if (auto stepped = take_step(); !stepped) {
      MKV_TRY(save());
      Error error = std::move(stepped).error();
      if (peers_.leads() && !in_.options.checkpoint.empty()) {
        error.message += concat("; ", in_.options.checkpoint.string(), " has step ", state_.step,
                                " of this stage and can be continued");
      }
      return error;
    }
    step_seconds_ += step.seconds();
    if (state_.step == stage_steps() || state_.step % in_.options.steps_per_measurement == 0) {
      MKV_TRY(measure());
    }
    report_progress();
    if (stop_) return {};
    if (since_save_.seconds() >= in_.options.checkpoint_seconds) MKV_TRY(save());
  }
  return {};
}

const ScoredTokens& SftTrainer::example_at(size_t index) {
  const size_t count = in_.examples.size(), epoch = index / count;
  if (epoch != epoch_) {
    order_.resize(count);
    std::iota(order_.begin(), order_.end(), size_t{0});
    Rng rng(in_.options.schedule.seed + epoch);
    for (size_t i = count; i > 1; --i) std::swap(order_[i - 1], order_[rng.below(i)]);
    epoch_ = epoch;
  }
  return in_.examples[order_[index % count]];
}

Result<void> SftTrainer::take_step() {
  const SftOptions& o = in_.options;
  std::vector<SftExample> examples, mine;
  size_t tokens = 0, answers = 0;
  for (size_t e = 0; e < o.examples_per_step; ++e) {
    const ScoredTokens& example = example_at(examples_seen_ + e);
    examples.push_back({&example, joint() ? sampler_->sample(state_.step, e) : Ranks()});
    if (peers_.takes(e)) mine.push_back(examples.back());
    tokens += example.tokens.size();
    answers += answer_tokens(example);
  }
  LossWeights weights{.kl = 0.0, .cross_entropy = 1.0};
  if (joint()) weights = {.kl = o.kl_weight, .cross_entropy = o.cross_entropy_weight};
  SftSums sums = sft_gradients(model(), mine, weights, answers, in_.workers);
  MKV_TRY(combine(sums, examples.size()));
  const double norm = shorten(sums.lora, o.most_gradient);
  const double basis_norm = shorten(sums.turns, o.most_gradient);
  if (!std::isfinite(norm) || !std::isfinite(basis_norm)) {
    throw std::runtime_error("the gradient of step " + std::to_string(state_.step) +
                             " is not finite");
  }
  state_.tokens += tokens;
  step_tokens_ += tokens;
  examples_seen_ += examples.size();
  log_step(sums, examples, norm);
  lora_adam_->step(state_.step, sums.lora);
  if (joint()) basis_adam_->step(state_.step, sums.turns);
  ++state_.step;
  return {};
}

Result<void> SftTrainer::combine(SftSums& sums, size_t examples) {
  std::vector<Tensor> gradients = sums.lora;
  gradients.insert(gradients.end(), sums.turns.begin(), sums.turns.end());
  MKV_TRY(peers_.sum(gradients));
  const auto lora = gradients.begin() + static_cast<std::ptrdiff_t>(sums.lora.size());
  sums.turns.assign(lora, gradients.end());
  sums.lora.assign(gradients.begin(), lora);
  const double limit = in_.options.stop_after_seconds;
  const bool late = limit > 0 && watch_.seconds() >= limit;
  MKV_ASSIGN(stop_, peers_.gather_losses(examples, late, sums.kl, sums.cross_entropy));
  return {};
}

Result<void> SftTrainer::measure() {
  SftStageReport& stage = reports_[stage_];
  std::vector<Ranks> at{Ranks()};  // the exact cache, then the budgets
  if (joint()) {
    for (const size_t rung : rungs_) at.push_back(nest_->ranks_at(rung));
  }
  double tokens = 0.0;
  for (const ScoredTokens& example : in_.held_out) {
    tokens += static_cast<double>(answer_tokens(example));
  }
  std::vector<double> found(at.size());
  for (size_t i = 0; i < at.size(); ++i) {
    report(in_.options.progress, {joint() ? "joint stage" : "LoRA stage", state_.step,
                                  stage_steps(), concat("measuring ", i + 1, " of ", at.size())});
    if (!peers_.takes(i)) continue;
    found[i] = answer_nats(model(), in_.held_out, at[i], in_.workers) / tokens;
  }
  MKV_TRY(peers_.sum(found));
  stage.steps = state_.step;
  if (stage.before.empty()) stage.before = found;
  if (stage.best.empty() || mean(found) < mean(stage.best)) {
    stage.best = found;
    stage.best_step = state_.step;
    state_.without_better = 0;
    best_.clear();
    for (const Tensor& tensor : moving()) best_.push_back(tensor.clone());
  } else {
    const size_t patience = in_.options.patience;
    stage.stopped_early = ++state_.without_better >= patience && patience > 0;
  }
  if (sampler_ && joint()) sampler_->observe(std::span(found).subspan(1));
  const Json line{{"stage", stage_ + 1},
                  {"step", state_.step},
                  {"held_out_cross_entropy", found},
                  {"budgets", joint() ? in_.options.budgets : std::vector<std::string>()}};
  if (auto text = dump_json(line)) state_.log.push_back(std::move(*text));
  return {};
}

void SftTrainer::log_step(const SftSums& sums, const std::vector<SftExample>& examples,
                          double norm) {
  Json line{{"stage", stage_ + 1},
            {"step", state_.step},
            {"tokens", state_.tokens},
            {"seconds", seconds_before_ + watch_.seconds()},
            {"rate", lora_adam_->rate_at(state_.step)},
            {"cross_entropy", sums.cross_entropy},
            {"gradient_norm", norm}};
  if (joint()) {
    const double full = nest_->coded_bits_per_value(nest_->full_ranks());
    std::vector<double> kept;
    for (const SftExample& each : examples) {
      kept.push_back(nest_->coded_bits_per_value(each.ranks) / full);
    }
    line["kl"] = sums.kl;
    line["kept"] = kept;
  }
  if (auto text = dump_json(line)) state_.log.push_back(std::move(*text));
}

void SftTrainer::report_progress() const {
  std::string detail = "answers' cross-entropy held out";
  for (const double value : reports_[stage_].best) {
    char text[32];
    std::snprintf(text, sizeof text, " %.3f", value);
    detail += text;
  }
  detail += concat(", ", static_cast<size_t>(static_cast<double>(step_tokens_) / step_seconds_),
                   " tokens/s");
  report(in_.options.progress,
         {joint() ? "joint stage" : "LoRA stage", state_.step, stage_steps(), detail});
}

SftReport SftTrainer::finish(bool finished) {
  SftReport out;
  out.lora = reports_[0];
  out.joint = reports_[1];
  out.finished = finished;
  out.tokens = state_.tokens;
  out.seconds = seconds_before_ + watch_.seconds();
  if (step_seconds_ > 0) out.tokens_per_second = static_cast<double>(step_tokens_) / step_seconds_;
  out.changes = lora_.changes();
  if (joint()) {
    bases_->store(*nest_);
    nest_->measurements().clear();
  }
  return out;
}

}  // namespace mkv::training
