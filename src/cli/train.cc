// matryoshka train: trains a nest so that every size of the cache works (arXiv:2410.14731 §3.2).
#include "train/train.h"

#include <cstdio>
#include <cstdlib>
#include <map>

#include "base/peak_memory.h"
#include "cli/calibration_text.h"
#include "cli/command.h"
#include "cli/hold_out.h"
#include "cli/ladder_measurement.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/peers.h"
#include "cli/progress.h"
#include "cli/train_sft.h"

namespace mkv::cli {
namespace {

const std::map<std::string, PrefixSchedule> kSchedules{
    {"independent", PrefixSchedule::independent}, {"sandwich", PrefixSchedule::sandwich},
    {"ladder", PrefixSchedule::ladder},           {"curriculum", PrefixSchedule::curriculum},
    {"scattered", PrefixSchedule::scattered},     {"automatic", PrefixSchedule::automatic}};
const std::map<std::string, TrainPrecision> kPrecisions{{"automatic", TrainPrecision::automatic},
                                                        {"f32", TrainPrecision::f32},
                                                        {"bf16", TrainPrecision::bf16}};

class Train : public Command {
 public:
  CLI::App* declare(CLI::App& parent) override {
    CLI::App* app = parent.add_subcommand("train", "Train a nest by what it does to the model");
    model_.declare(*app);
    app->add_option("--nest", nest_, "Nest to start from");
    app->add_option("-o,--output", output_, "Folder of the trained nest");
    calibration_.declare(*app);
    add_count(*app, "--held-out", held_out_, "Windows of the text kept for measuring")
        ->check(CLI::PositiveNumber);
    app->add_option("--budgets", options_.budgets, "At which held-out text is measured")
        ->delimiter(',')
        ->capture_default_str();
    declare_schedule(*app);
    declare_optimiser(*app);
    declare_run(*app);
    measurement_.declare(*app);
    declare_peers(*app, options_.peers);
    sft_.declare(*app);
    app_ = app;
    declare_json(*app, json_);
    app->footer(
        "Example:\n  matryoshka train model.gguf --nest nest -o trained --text train.jsonl \\\n"
        "      --tokens 1000000 --schedule ladder --checkpoint run.state --log run.jsonl\n"
        "The same command continues a run from its checkpoint.\n\n"
        "Fine-tuning on questions and answers, of the weights and then of the nest too:\n"
        "  matryoshka train model.gguf --sft arc_easy_train.jsonl --merged tuned.gguf \\\n"
        "      --nest nest -o tuned-nest\n\n"
        "Several processes share a run if each is started with the same command and torchrun's\n"
        "variables, e.g. for two machines, the first of which is 10.0.0.1:\n"
        "  MASTER_ADDR=10.0.0.1 MASTER_PORT=29500 WORLD_SIZE=2 RANK=0 matryoshka train ...");
    return app;
  }

  Result<void> run() override {
    MKV_TRY(check_training_built());
    options_.checkpoint = checkpoint_;
    options_.log = log_;
    if (sft_.asked()) {
      options_.schedule.seed = calibration_.seed();
      return sft_.run(*app_, options_, model_, nest_, output_, json_);
    }
    if (nest_.empty() || output_.empty()) {
      return make_error(ErrorCode::invalid_argument, "--nest and --output are needed");
    }
    const bool leads = options_.peers.rank == 0;
    if (leads) MKV_TRY(check_output_folder(output_));
    MKV_ASSIGN(const std::unique_ptr<Engine> engine, open_engine(model_, {}));
    MKV_ASSIGN(Nest nest, open_nest(nest_, engine->model));
    ProgressBar bar;
    if (leads) options_.progress = bar.sink();
    MKV_ASSIGN(Calibration text, calibration_.read(*engine, options_.progress));
    MKV_ASSIGN(const Windows held_out, hold_out(text.sequences));
    MKV_ASSIGN(const TrainReport report, train_nest(engine->model, text.sequences, held_out,
                                                    options_, nest, *engine->workers));
    if (!leads) return {};  // rank 0 has the same, and writes it
    describe(nest, text, report);
    MKV_TRY(measurement_.run(*engine, nest, bar.sink()));
    bar.finish();
    MKV_TRY(nest.save(output_));
    std::fprintf(stderr, "%s: saved, as of step %zu of %zu%s\n", output_.c_str(), report.best_step,
                 report.steps, report.finished ? "" : "; stopped, the same command goes on");
    print(report);
    return {};
  }

 private:
  void declare_schedule(CLI::App& app) {
    app.add_option("--schedule", options_.schedule.schedule,
                   "How sizes are drawn: independent (the paper's), sandwich, ladder, curriculum, "
                   "scattered or automatic")
        ->transform(CLI::CheckedTransformer(kSchedules))
        ->default_str("ladder");
    app.add_option("--floor", options_.schedule.floor, "Smallest share of the slabs drawn")
        ->capture_default_str()
        ->check(CLI::Range(0.0, 1.0));
    add_count(app, "--windows-per-step", options_.windows_per_step,
              "Windows whose gradients make one step; as many as threads run at once")
        ->check(CLI::PositiveNumber);
  }
  void declare_optimiser(CLI::App& app) {
    app.add_option("--learning-rate", options_.learning_rate,
                   "Of Adam, after warm-up; for a nest of codes try 4e-3")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    add_count(app, "--warmup-steps", options_.warmup_steps, "Steps in which the rate rises");
    app.add_option("--last-rate", options_.last_rate, "Share of the rate at the end of the cosine")
        ->capture_default_str()
        ->check(CLI::Range(0.0, 1.0));
    app.add_option("--most-gradient", options_.most_gradient,
                   "Longer gradients are shortened to this; 0 leaves them")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber);
    app.add_option("--kl-weight", options_.kl_weight, "Of the divergence from the exact cache")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber);
    app.add_option("--cross-entropy-weight", options_.cross_entropy_weight,
                   "Of the loss on the text's own tokens")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber);
    app.add_option("--relative-loss", options_.relative_loss,
                   "Divide a window's loss by its divergence, so that every size counts alike")
        ->capture_default_str();
    add_count(app, "--layerwise-steps", options_.layerwise_steps,
              "First steps that learn each layer's attention by itself, which is cheaper");
    app.add_flag("--train-means", options_.train_means, "Means move too");
    app.add_option("--basis-rate", options_.basis_rate,
                   "Of a nest of codes: what share of the rate its bases move with; 0 leaves them")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber);
  }
  void declare_run(CLI::App& app) {
    app.add_option("--precision", options_.precision,
                   "Of products with weights: automatic, f32 or bf16")
        ->transform(CLI::CheckedTransformer(kPrecisions))
        ->default_str("automatic");
    app.add_option("--device", options_.device, "Where torch computes, e.g. cpu or cuda:0")
        ->capture_default_str();
    add_count(app, "--steps-per-measurement", options_.steps_per_measurement,
              "Steps between measurements on held-out text")
        ->check(CLI::PositiveNumber);
    add_count(app, "--patience", options_.patience,
              "Measurements without a better one before it stops; 0 is never");
    app.add_option("--checkpoint", checkpoint_, "File to continue from after an interruption");
    app.add_option("--checkpoint-seconds", options_.checkpoint_seconds, "Between checkpoints")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber);
    app.add_option("--stop-after", options_.stop_after_seconds,
                   "Seconds after which it stops with a checkpoint; 0 is never")
        ->capture_default_str()
        ->check(CLI::NonNegativeNumber)
        ->needs("--checkpoint");
    app.add_option("--log", log_, "JSON lines: every step, every measurement");
  }

  // Windows from all over the text, which training does not see.
  Result<Windows> hold_out(Sequences& sequences) const {
    if (sequences.size() <= held_out_) {
      return make_error(ErrorCode::invalid_argument,
                        "--held-out " + std::to_string(held_out_) + ": the text has " +
                            std::to_string(sequences.size()) + " windows in all");
    }
    Windows windows{.context = sequences.front().size(), .tokens = {}};
    for (const std::vector<TokenId>& held : take_evenly(sequences, held_out_)) {
      windows.tokens.insert(windows.tokens.end(), held.begin(), held.end());
    }
    return windows;
  }

  void describe(Nest& nest, const Calibration& text, const TrainReport& report) const {
    std::map<std::string, std::string>& origin = nest.origin();
    origin["method"] = "trained";
    origin["training_text"] = text.source;
    // A nest may be trained in stages; what is not a number counts as none.
    const auto before = [&](const char* key) {
      return std::strtoull(origin[key].c_str(), nullptr, 10);
    };
    record_seconds(nest, "train_seconds",
                   static_cast<double>(before("train_seconds")) + report.seconds);
    const size_t tokens =
        report.best_step * options_.windows_per_step * text.sequences.front().size();
    origin["training_tokens"] = std::to_string(before("training_tokens") + tokens);
    std::string& gain = origin["held_out_kl"];
    gain.clear();
    for (size_t i = 0; i < report.kl_best.size(); ++i) {
      gain += (i == 0 ? "" : ", ") + options_.budgets[i] +
              format(" %.4f -> %.4f", report.kl_before[i], report.kl_best[i]);
    }
  }

  void print(const TrainReport& report) const {
    if (json_) {
      print_json({{"steps", report.steps},
                  {"tokens", report.tokens},
                  {"finished", report.finished},
                  {"stopped_early", report.stopped_early},
                  {"best_step", report.best_step},
                  {"budgets", options_.budgets},
                  {"kl_before", report.kl_before},
                  {"kl", report.kl_best},
                  {"tokens_per_second", report.tokens_per_second},
                  {"peak_rss_bytes", peak_rss_bytes()},
                  {"seconds", report.seconds}});
      return;
    }
    std::vector<std::vector<std::string>> rows{{"budget", "KL before", "KL"}};
    for (size_t i = 0; i < report.kl_best.size(); ++i) {
      rows.push_back({options_.budgets[i], format("%.4f", report.kl_before[i]),
                      format("%.4f", report.kl_best[i])});
    }
    print_table(rows);
    std::printf("\n%zu tokens, %.0f tokens/s, peak memory %s\n", report.tokens,
                report.tokens_per_second, byte_text(static_cast<double>(peak_rss_bytes())).c_str());
  }

  ModelOptions model_;
  CalibrationText calibration_{1000000};
  TrainOptions options_;
  LadderMeasurement measurement_;
  TrainSft sft_;
  CLI::App* app_ = nullptr;
  std::string nest_, output_, checkpoint_, log_;
  size_t held_out_ = 4;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_train() { return std::make_unique<Train>(); }

}  // namespace mkv::cli
