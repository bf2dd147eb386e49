#include "cli/train_sft.h"

#include <cstdio>

#include "base/peak_memory.h"
#include "cli/calibration_text.h"
#include "cli/hold_out.h"
#include "cli/inspect_nest.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "model/export.h"
#include "store/message.h"

namespace mkv::cli {
namespace {

const std::map<std::string, DType> kTypes{
    {"f32", DType::f32}, {"f16", DType::f16}, {"bf16", DType::bf16}, {"q8_0", DType::q8_0}};

// Those that only training on text reads.
constexpr const char* kOfText[] = {
    "--text",          "--tokens",        "--window",      "--held-out",   "--windows-per-step",
    "--learning-rate", "--relative-loss", "--train-means", "--basis-rate", "--measure"};

// The value given, or fine-tuning's own.
template <class T>
void take(const CLI::App& app, const char* option, const T& given, T& value) {
  if (app.count(option) > 0) value = given;
}

std::string figures(const std::vector<double>& values) {
  std::string text;
  for (const double value : values) text += (text.empty() ? "" : ", ") + format("%.4f", value);
  return text;
}

}  // namespace

void TrainSft::declare(CLI::App& app) {
  const std::string group = "Fine-tuning";
  CLI::Option* sft =
      app.add_option("--sft", files_,
                     "Fine-tune on .jsonl files of examples: prompt and text, or a task's")
          ->group(group);
  const auto add = [&](CLI::Option* option) { option->group(group)->needs(sft); };
  add(app.add_option("--merged", merged_,
                     "Fine-tuned model to write: a GGUF file or a folder, as MODEL is"));
  add(app.add_option_function<std::string>(
             "--merged-type", [this](const std::string& name) { type_ = kTypes.at(name); },
             "Of its changed weights: f32, f16, bf16 or q8_0; f16, or a folder's own, if not given")
          ->check(CLI::IsMember(kTypes)));
  add(add_count(app, "--lora-rank", options_.lora_rank, "Of the additions to the weights")
          ->check(CLI::PositiveNumber));
  add(app.add_option("--lora-alpha", options_.lora_alpha, "They are scaled by alpha / rank")
          ->capture_default_str()
          ->check(CLI::PositiveNumber));
  add(app.add_option("--lora-projections", options_.projections, "What has additions")
          ->delimiter(',')
          ->capture_default_str());
  add(add_count(app, "--lora-steps", options_.lora_steps, "At most, on the exact cache"));
  add(add_count(app, "--joint-steps", options_.joint_steps,
                "At most, after it, of additions and rotations together"));
  add(add_count(app, "--examples-per-step", options_.examples_per_step, "One step's examples")
          ->check(CLI::PositiveNumber));
  add(app.add_option("--lora-rate", options_.lora_rate, "Of Adam, on the exact cache")
          ->capture_default_str()
          ->check(CLI::PositiveNumber));
  add(app.add_option("--joint-lora-rate", options_.joint_lora_rate, "Of additions, after it")
          ->capture_default_str()
          ->check(CLI::PositiveNumber));
  add(app.add_option("--joint-basis-rate", options_.basis_rate, "Of rotations")
          ->capture_default_str()
          ->check(CLI::PositiveNumber));
  add(add_count(app, "--longest", longest_, "Longer examples, in tokens, are left out")
          ->check(CLI::PositiveNumber));
  add(add_count(app, "--held-out-examples", held_out_, "Kept for measuring")
          ->check(CLI::PositiveNumber));
}

Result<void> TrainSft::check(const CLI::App& app) const {
  for (const char* option : kOfText) {
    if (app.count(option) > 0) {
      return make_error(ErrorCode::invalid_argument,
                        concat(option, " is of training on text, not of --sft"));
    }
  }
  return {};
}

// From all over the files, which training does not see.
Result<std::vector<ScoredTokens>> TrainSft::hold_out(std::vector<ScoredTokens>& examples) const {
  if (examples.size() <= held_out_) {
    return make_error(ErrorCode::invalid_argument,
                      concat("--held-out-examples ", held_out_, ": the files have ",
                             examples.size(), " examples in all"));
  }
  return take_evenly(examples, held_out_);
}

Result<void> TrainSft::run(const CLI::App& app, const TrainOptions& run, const ModelOptions& model,
                           const std::string& nest_path, const std::string& output, bool json) {
  MKV_TRY(check(app));
  const bool leads = run.peers.rank == 0, joint = options_.joint_steps > 0;
  if (merged_.empty()) {
    return make_error(ErrorCode::invalid_argument, "--merged says where the model goes");
  }
  if (joint && (nest_path.empty() || output.empty())) {
    return make_error(ErrorCode::invalid_argument,
                      "--nest and --output are needed, or --joint-steps 0");
  }
  if (leads && joint) MKV_TRY(check_output_folder(output));
  options_.schedule = run.schedule;
  options_.precision = run.precision;
  options_.device = run.device;
  options_.checkpoint = run.checkpoint;
  options_.checkpoint_seconds = run.checkpoint_seconds;
  options_.stop_after_seconds = run.stop_after_seconds;
  options_.log = run.log;
  options_.peers = run.peers;
  options_.last_rate = run.last_rate;
  options_.most_gradient = run.most_gradient;
  take(app, "--warmup-steps", run.warmup_steps, options_.warmup_steps);
  take(app, "--budgets", run.budgets, options_.budgets);
  take(app, "--kl-weight", run.kl_weight, options_.kl_weight);
  take(app, "--cross-entropy-weight", run.cross_entropy_weight, options_.cross_entropy_weight);
  take(app, "--patience", run.patience, options_.patience);
  take(app, "--steps-per-measurement", run.steps_per_measurement, options_.steps_per_measurement);

  MKV_ASSIGN(const std::unique_ptr<Engine> engine, open_engine(model, {}));
  std::optional<Nest> nest;
  if (joint) {
    MKV_ASSIGN(nest, open_nest(nest_path, engine->model));
  }
  SftExamples read;
  for (const std::string& file : files_) {
    MKV_TRY(read_sft_examples(file, engine->model.tokenizer(), longest_, read));
  }
  MKV_ASSIGN(const std::vector<ScoredTokens> held, hold_out(read.examples));
  ProgressBar bar;
  if (leads) {
    options_.progress = bar.sink();
    std::fprintf(stderr, "%zu examples, %zu held out, %zu longer than %zu tokens left out\n",
                 read.examples.size(), held.size(), read.too_long, longest_);
  }
  MKV_ASSIGN(const SftReport report, fine_tune(engine->model, read.examples, held, options_,
                                               nest ? &*nest : nullptr, *engine->workers));
  bar.finish();
  if (!leads) return {};  // rank 0 has the same, and writes it
  MKV_TRY(write(*engine, model.model, report, nest ? &*nest : nullptr, output));
  print(report, json);
  return {};
}

Result<void> TrainSft::write(const Engine& engine, const std::string& source,
                             const SftReport& report, Nest* nest, const std::string& output) const {
  MKV_TRY(export_model(engine.model, source, report.changes, type_, merged_));
  std::fprintf(stderr, "%s: saved, what held-out examples liked best%s\n", merged_.c_str(),
               report.finished ? "" : "; stopped, the same command goes on");
  if (nest == nullptr) return {};
  MKV_ASSIGN(const Model merged, Model::load(merged_));
  nest->set_model_hash(merged.weights_hash());
  nest->origin()["method"] = "fine-tuned";
  std::string names;
  for (const std::string& file : files_) {
    names += (names.empty() ? "" : ", ") + std::filesystem::path(file).filename().string();
  }
  nest->origin()["fine_tuning_examples"] = names;
  nest->origin()["fine_tuning_tokens"] = std::to_string(report.tokens);
  record_seconds(*nest, "fine_tuning_seconds", report.seconds);
  MKV_TRY(nest->save(output));
  std::fprintf(stderr, "%s: saved\n", output.c_str());
  return {};
}

void TrainSft::print(const SftReport& report, bool json) const {
  const std::pair<const char*, const SftStageReport*> stages[] = {{"lora", &report.lora},
                                                                  {"joint", &report.joint}};
  if (json) {
    OrderedJson out{
        {"finished", report.finished},        {"tokens", report.tokens},
        {"budgets", options_.budgets},        {"tokens_per_second", report.tokens_per_second},
        {"peak_rss_bytes", peak_rss_bytes()}, {"seconds", report.seconds}};
    for (const auto& [name, stage] : stages) {
      out[name] = {{"steps", stage->steps},
                   {"best_step", stage->best_step},
                   {"stopped_early", stage->stopped_early},
                   {"cross_entropy_before", stage->before},
                   {"cross_entropy", stage->best}};
    }
    print_json(out);
    return;
  }
  std::vector<std::vector<std::string>> rows{
      {"stage", "steps", "best", "held-out cross-entropy before", "and after"}};
  for (const auto& [name, stage] : stages) {
    if (stage->before.empty()) continue;
    rows.push_back({name, std::to_string(stage->steps), std::to_string(stage->best_step),
                    figures(stage->before), figures(stage->best)});
  }
  print_table(rows);
  std::printf("\nexact cache, then %s; %zu tokens, %.0f tokens/s%s\n",
              CLI::detail::join(options_.budgets).c_str(), report.tokens, report.tokens_per_second,
              report.finished ? "" : "; stopped, the same command goes on");
}

}  // namespace mkv::cli
