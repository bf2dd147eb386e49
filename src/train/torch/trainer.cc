#include "train/torch/trainer.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "store/atomic_file.h"
#include "store/hash.h"
#include "store/message.h"

namespace mkv::training {
namespace {

constexpr double kMostOrthogonalityError = 1e-5;
constexpr double kSmoothing = 0.95;  // of the training divergences shown

Error invalid(const std::string& message) {
  return make_error(ErrorCode::invalid_argument, "train: " + message);
}

bool fast_bf16(const torch::Device& device) {
#if defined(__x86_64__)
  if (device.is_cpu()) return __builtin_cpu_supports("avx512bf16") != 0;
#endif
  return device.is_cuda();
}

std::string hash_of(std::span<const std::vector<TokenId>> sequences, const Windows& held_out) {
  Sha256 hash;
  for (const std::vector<TokenId>& s : sequences) hash.update(std::as_bytes(std::span(s)));
  hash.update(std::as_bytes(std::span(held_out.tokens)));
  return hash.hex();
}

double mean_log(const std::vector<double>& kl) {
  double sum = 0.0;
  for (const double x : kl) sum += std::log(std::max(x, 1e-12));
  return sum / static_cast<double>(kl.size());
}

}  // namespace

TwinOptions twin_options(TrainPrecision precision, const std::string& device) {
  TwinOptions out;
  out.device = torch::Device(device);
  out.bf16 = precision == TrainPrecision::bf16 ||
             (precision == TrainPrecision::automatic && fast_bf16(out.device));
  return out;
}

std::string hash_of(const Nest& nest) {
  Sha256 hash;
  for (size_t s = 0; s < nest.spaces(); ++s) {
    const Basis& basis = nest.basis(nest.unflat(s));
    hash.update(std::as_bytes(basis.decode.span()));
    hash.update(std::as_bytes(std::span(basis.mean)));
    for (const CodeSlab& slab : basis.slabs) {
      hash.update(std::as_bytes(std::span(slab.codebook.entry)));
      hash.update(std::as_bytes(std::span(slab.scale)));
    }
  }
  hash.update(std::as_bytes(std::span(nest.ladder().cuts)));
  return hash.hex();
}

namespace {

Adam make_adam(const Parameters& parameters, const TrainOptions& options, size_t steps) {
  std::vector<Tensor> values;
  std::vector<double> shares;
  for (const Parameters::Moved& moved : parameters.moved()) {
    values.push_back(moved.values);
    shares.push_back(moved.rate);
  }
  return Adam(std::move(values), std::move(shares),
              {.rate = options.learning_rate,
               .last_rate = options.last_rate,
               .warmup_steps = options.warmup_steps,
               .steps = steps});
}

std::vector<Tensor> copies_of(const Parameters& parameters) {
  std::vector<Tensor> copies;
  for (const Parameters::Moved& moved : parameters.moved()) copies.push_back(moved.values.clone());
  return copies;
}

}  // namespace

Result<Trainer> Trainer::create(const TrainerInputs& inputs, Nest& nest) {
  const TrainOptions& options = inputs.options;
  if (options.windows_per_step == 0) return invalid("0 windows a step, at least 1 is needed");
  if (options.budgets.empty()) return invalid("no held-out budget to measure at");
  const size_t steps = inputs.sequences.size() / options.windows_per_step;
  if (steps == 0) {
    return invalid(std::to_string(inputs.sequences.size()) + " windows of text, one step takes " +
                   std::to_string(options.windows_per_step));
  }
  for (const std::vector<TokenId>& sequence : inputs.sequences) {
    if (sequence.size() < 2) return invalid("a window of one token has nothing to predict");
    MKV_TRY(inputs.model.check_tokens(sequence));
  }
  if (options.peers.world > options.windows_per_step) {
    return invalid(concat(options.windows_per_step, " windows a step for ", options.peers.world,
                          " processes, at least one each is needed"));
  }
  std::vector<size_t> rungs;
  for (const std::string& budget : options.budgets) {
    auto rung = rung_for_budget(nest, budget);
    if (!rung) return in_context("held-out budget", std::move(rung).error());
    rungs.push_back(*rung);
  }
  MKV_ASSIGN(PrefixSampler sampler, PrefixSampler::create(nest, options.schedule, rungs, steps));
  MKV_ASSIGN(Peers peers, Peers::connect(options.peers));
  Trainer trainer(inputs, nest, std::move(sampler), std::move(rungs), steps, std::move(peers));
  MKV_TRY(trainer.peers_.check_same(trainer.identity_));
  return trainer;
}

Trainer::Trainer(const TrainerInputs& inputs, Nest& nest, PrefixSampler sampler,
                 std::vector<size_t> rungs, size_t steps, Peers peers)
    : in_(inputs),
      peers_(std::move(peers)),
      nest_(&nest),
      working_(nest.clone()),
      sampler_(std::move(sampler)),
      rungs_(std::move(rungs)),
      full_(working_.coded_bits_per_value(working_.full_ranks())),
      steps_(steps),
      twin_(inputs.model, twin_options(inputs.options.precision, inputs.options.device)),
      parameters_(make_parameters(nest, inputs.options, torch::Device(inputs.options.device))),
      adam_(make_adam(*parameters_, inputs.options, steps)),
      best_(copies_of(*parameters_)) {
  identity_ = identity();
  state_.running_kl.assign(rungs_.size(), 0.0);
}

RunIdentity Trainer::identity() const {
  const TrainOptions& o = in_.options;
  const auto text = [](double x) {
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, "%.9g", x);
    return std::string(buffer);
  };
  std::string budgets;
  for (const std::string& budget : o.budgets) budgets.append(budget).append(1, ' ');
  RunIdentity out{{"model", in_.model.weights_hash()},
                  {"nest", hash_of(*nest_)},
                  {"text", hash_of(in_.sequences, in_.held_out)},
                  {"schedule", std::to_string(static_cast<int>(o.schedule.schedule))},
                  {"floor", text(o.schedule.floor)},
                  {"seed", std::to_string(o.schedule.seed)},
                  {"windows_per_step", std::to_string(o.windows_per_step)},
                  {"learning_rate", text(o.learning_rate)},
                  {"warmup_steps", std::to_string(o.warmup_steps)},
                  {"last_rate", text(o.last_rate)},
                  {"most_gradient", text(o.most_gradient)},
                  {"kl_weight", text(o.kl_weight)},
                  {"cross_entropy_weight", text(o.cross_entropy_weight)},
                  {"relative_loss", o.relative_loss ? "yes" : "no"},
                  {"train_means", o.train_means ? "yes" : "no"},
                  {"basis_rate", text(o.basis_rate)},
                  {"bf16", twin_options(o.precision, o.device).bf16 ? "yes" : "no"},
                  {"budgets", budgets},
                  {"steps_per_measurement", std::to_string(o.steps_per_measurement)}};
  // Runs from before there was such a stage go on.
  if (o.layerwise_steps > 0) out["layerwise_steps"] = std::to_string(o.layerwise_steps);
  return out;
}

double Trainer::since(Clock::time_point start) const {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

bool Trainer::measurement_due() const {
  return state_.step == steps_ || state_.step % in_.options.steps_per_measurement == 0;
}

Result<TrainReport> Trainer::run() {
  MKV_TRY(resume());
  first_step_ = state_.step;
  report(in_.options.progress, {"exact pass", 0, 1, {}});
  MKV_ASSIGN(base_, BaseHidden::compute(in_.model, in_.held_out, {}, in_.workers));
  if (state_.kl_before.empty()) {
    MKV_TRY(measure());
  }
  while (state_.step < steps_ && !stopped_early_) {
    if (auto advanced = advance(); !advanced) return std::move(advanced).error();
    report_progress();
    const bool stop = stop_ && state_.step < steps_;
    if (stop || since(saved_) >= in_.options.checkpoint_seconds) {
      MKV_TRY(save());
    }
    if (stop) return finish(false);
  }
  MKV_TRY(save());
  return finish(true);
}

Result<void> Trainer::advance() {
  const auto start = Clock::now();
  if (auto stepped = take_step(); !stepped) {
    MKV_TRY(save());
    Error error = std::move(stepped).error();
    if (peers_.leads() && !in_.options.checkpoint.empty()) {
      error.message += concat("; ", in_.options.checkpoint.string(), " has step ", state_.step,
                              " and can be continued");
    }
    return error;
  }
  step_seconds_ += since(start);
  // Without its measurement a step does not count, so nothing is saved if that fails.
  return measurement_due() ? measure() : Result<void>();
}

Result<void> Trainer::combine(StepResult& result, size_t windows) {
  const double share = static_cast<double>(result.kl.size()) / static_cast<double>(windows);
  for (Tensor& g : result.gradients) g.mul_(share);
  MKV_TRY(peers_.sum(result.gradients));
  const double limit = in_.options.stop_after_seconds;
  const bool late = limit > 0 && since(start_) >= limit;
  MKV_ASSIGN(stop_, peers_.gather_losses(windows, late, result.kl, result.cross_entropy));
  return {};
}

Result<void> Trainer::take_step() {
  const TrainOptions& options = in_.options;
  std::vector<StepWindow> windows, mine;
  size_t tokens_of_step = 0;
  for (size_t w = 0; w < options.windows_per_step; ++w) {
    const auto& tokens = in_.sequences[state_.step * options.windows_per_step + w];
    windows.push_back({tokens, sampler_.sample(state_.step, w)});
    if (peers_.takes(w)) mine.push_back(windows.back());
    tokens_of_step += tokens.size();
  }
  const LossWeights weights{.kl = options.kl_weight,
                            .cross_entropy = options.cross_entropy_weight,
                            .relative = options.relative_loss};
  StepResult result = step_gradients(twin_, *parameters_, mine, weights, objective(), in_.workers);
  MKV_TRY(combine(result, windows.size()));
  state_.tokens += tokens_of_step;
  double square = 0.0;
  for (const Tensor& g : result.gradients) square += g.square().sum(torch::kDouble).item<double>();
  result.gradient_norm = std::sqrt(square);
  if (!std::isfinite(result.gradient_norm)) {
    throw std::runtime_error("the gradient of step " + std::to_string(state_.step) +
                             " is not finite");
  }
  if (options.most_gradient > 0 && result.gradient_norm > options.most_gradient) {
    for (Tensor& g : result.gradients) g.mul_(options.most_gradient / result.gradient_norm);
  }
  log_step(result, windows);
  adam_.step(state_.step, result.gradients);
  ++state_.step;
  return {};
}

void Trainer::log_step(const StepResult& result, const std::vector<StepWindow>& windows) {
  std::vector<double> shares;
  for (size_t w = 0; w < windows.size(); ++w) {
    shares.push_back(kept(windows[w].ranks));
    if (objective() == Objective::layerwise) continue;  // no divergences
    double& running = state_.running_kl[nearest_budget(shares.back())];
    running = running == 0 ? result.kl[w] : kSmoothing * running + (1 - kSmoothing) * result.kl[w];
  }
  const Json line{{"step", state_.step},
                  {"tokens", state_.tokens},
                  {"seconds", seconds_before_ + since(start_)},
                  {"rate", adam_.rate_at(state_.step)},
                  {objective() == Objective::layerwise ? "layer_error" : "kl", result.kl},
                  {"cross_entropy", result.cross_entropy},
                  {"kept", shares},
                  {"running_kl", state_.running_kl},
                  {"gradient_norm", result.gradient_norm}};
  if (auto text = dump_json(line)) state_.log.push_back(std::move(*text));
}

size_t Trainer::nearest_budget(double share) const {
  size_t best = 0;
  for (size_t i = 1; i < rungs_.size(); ++i) {
    const auto distance = [&](size_t budget) {
      return std::abs(kept(working_.ranks_at(rungs_[budget])) - share);
    };
    if (distance(i) < distance(best)) best = i;
  }
  return best;
}

Result<void> Trainer::measure() {
  parameters_->store(working_);
  const double error = working_.orthogonality_error();
  if (!(error < kMostOrthogonalityError)) {
    char text[64];
    std::snprintf(text, sizeof text, "%.3g, at most %.3g", error, kMostOrthogonalityError);
    return make_error(ErrorCode::unsupported,
                      std::string("train: the bases are not orthogonal: error ") + text);
  }
  std::vector<double> kl(rungs_.size());
  for (size_t b = 0; b < rungs_.size(); ++b) {
    if (!peers_.takes(b)) continue;
    const size_t rung = rungs_[b];
    MKV_ASSIGN(const CacheFactory caches,
               CacheFactory::coded(in_.model, working_, working_.ranks_at(rung)));
    MKV_ASSIGN(const KlReport found, evaluate_kl(in_.model, *base_, caches, {}, in_.workers));
    kl[b] = found.kl;
    report(in_.options.progress,
           {"training", state_.step, steps_,
            concat("measured at ", b + 1, " of ", rungs_.size(), " budgets")});
  }
  MKV_TRY(peers_.sum(kl));
  judge(kl);
  return {};
}

void Trainer::judge(const std::vector<double>& kl) {
  const double value = mean_log(kl);
  const bool first = state_.kl_before.empty();
  if (first) state_.kl_before = kl;
  if (first || value < state_.best) {
    state_.best = value;
    state_.best_step = state_.step;
    state_.kl_best = kl;
    state_.without_better = 0;
    best_ = copies_of(*parameters_);
  } else if (++state_.without_better >= in_.options.patience && in_.options.patience > 0) {
    stopped_early_ = true;
  }
  sampler_.observe(kl);
  last_kl_ = kl;
  const Json line{{"step", state_.step}, {"held_out_kl", kl}, {"budgets", in_.options.budgets}};
  if (auto text = dump_json(line)) state_.log.push_back(std::move(*text));
}

void Trainer::report_progress() const {
  const auto figure = [](double x) {
    char text[32];
    std::snprintf(text, sizeof text, "%.3f", x);
    return std::string(text);
  };
  std::string detail = "KL";
  const std::vector<double>& kl = last_kl_.empty() ? state_.kl_best : last_kl_;
  for (size_t i = 0; i < kl.size(); ++i) {
    const double running = state_.running_kl[i];
    detail += concat(i == 0 ? " " : ", ", in_.options.budgets[i], " ",
                     running > 0 ? figure(running) : "-", " (held out ", figure(kl[i]), ")");
  }
  const double tokens =
      static_cast<double>((state_.step - first_step_)) *
      static_cast<double>(in_.options.windows_per_step * in_.sequences.front().size());
  detail += concat(", ", static_cast<size_t>(tokens / step_seconds_), " tokens/s");
  report(in_.options.progress, {"training", state_.step, steps_, detail});
}

Result<TrainReport> Trainer::finish(bool finished) {
  const std::vector<Parameters::Moved> moved = parameters_->moved();
  for (size_t i = 0; i < moved.size(); ++i) moved[i].values.copy_(best_[i]);
  parameters_->store(*nest_);
  nest_->measurements().clear();
  TrainReport out;
  out.steps = state_.step;
  out.tokens = state_.tokens;
  out.finished = finished;
  out.stopped_early = stopped_early_;
  out.best_step = state_.best_step;
  out.kl_before = state_.kl_before;
  out.kl_best = state_.kl_best;
  out.seconds = seconds_before_ + since(start_);
  if (step_seconds_ > 0) {
    out.tokens_per_second =
        static_cast<double>((state_.step - first_step_) * in_.options.windows_per_step *
                            in_.sequences.front().size()) /
        step_seconds_;
  }
  return out;
}

}  // namespace mkv::training
