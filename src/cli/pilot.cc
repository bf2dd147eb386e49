// matryoshka pilot: measures what a nest saves and costs for a model and a text, picks a size, and
// writes a page about it.
#include <cstdio>
#include <filesystem>

#include "base/stopwatch.h"
#include "cli/calibration_text.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/page_output.h"
#include "cli/progress.h"
#include "cli/text_files.h"
#include "fit/fit_codes.h"
#include "pilot/report.h"

namespace mkv::cli {
namespace {

namespace fs = std::filesystem;

class Pilot : public Command {
 public:
  CLI::App* declare(CLI::App& parent) override {
    CLI::App* app =
        parent.add_subcommand("pilot", "Measure what a nest saves and costs, and pick its size");
    model_.declare(*app);
    CLI::Option* nest = app->add_option(
        "--nest", nest_, "Nest folder; without one, one is fitted and saved beside the page");
    app->add_option("--text", texts_,
                    "Text files like what the model will read, or .jsonl with a \"text\" in each "
                    "line; other than what the nest was made of")
        ->required();
    app->add_option("--max-ppl-increase", tolerance_, "What you accept, e.g. 1%")
        ->capture_default_str();
    output_.declare(*app);
    declare_lengths(*app);
    calibration_.declare(*app, "fit-");
    app->add_option("--preparation-minutes", preparation_minutes_,
                    "What making the nest took, where the nest does not say")
        ->check(CLI::NonNegativeNumber)
        ->needs(nest);
    declare_json(*app, json_);
    app->footer(
        "Example:\n  matryoshka pilot model.gguf --nest nest --text support.jsonl \\\n"
        "      --max-ppl-increase 1% -o pilot.html");
    return app;
  }

  Result<void> run() override {
    MKV_TRY(check());
    MKV_ASSIGN(const std::vector<std::string> documents, read_documents(texts_));
    MKV_ASSIGN(const std::unique_ptr<Engine> engine, open_engine(model_, {}));
    ProgressBar bar;
    MKV_ASSIGN(const Nest nest, open_or_fit(*engine, bar.sink()));
    options_.progress = bar.sink();
    MKV_ASSIGN(const PilotResult result,
               run_pilot(engine->model, nest, documents, options_, *engine->workers));
    bar.finish();
    const Json report = pilot_json(engine->model, nest, result, options_, context(*engine));
    MKV_ASSIGN(const std::string page, pilot_page(report));
    MKV_TRY(output_.write(page, report));
    print(report, result);
    return {};
  }

 private:
  void declare_lengths(CLI::App& app) {
    add_count(app, "--context", options_.windows.context, "Tokens a window of the text")
        ->check(CLI::PositiveNumber);
    add_count(app, "--windows", options_.windows.limit, "Most windows; 0 is all");
    add_counts(app, "--depths", options_.speed.depths,
               "Tokens in the cache where speed is measured");
    add_count(app, "--repetitions", options_.speed.repetitions, "Of each speed")
        ->check(CLI::Range(1, 1000));
    add_count(app, "--prompts", options_.answers.prompts, "Sample answers")
        ->check(CLI::Range(1, 100));
    add_count(app, "--prompt-tokens", options_.answers.excerpt_tokens, "Of the text, each is about")
        ->check(CLI::PositiveNumber);
    add_count(app, "-n,--max-tokens", options_.answers.tokens, "Most tokens of a sample answer")
        ->check(CLI::PositiveNumber);
  }

  std::string fitted_nest() const { return output_.beside(".nest").string(); }

  // Before minutes of work.
  Result<void> check() {
    MKV_TRY(output_.check());
    auto tolerance = parse_fraction(tolerance_);
    if (!tolerance) return in_context("--max-ppl-increase", std::move(tolerance).error());
    options_.quality.tolerance = *tolerance;
    return nest_.empty() ? check_output_folder(fitted_nest()) : Result<void>{};
  }

  Result<Nest> open_or_fit(const Engine& engine, const ProgressSink& progress) {
    if (!nest_.empty()) {
      auto nest = open_nest(nest_, engine.model);
      if (nest && preparation_seconds_ < 0) preparation_seconds_ = recorded_seconds(*nest);
      preparation_source_ = preparation_seconds_ < 0 ? "" : "recorded in the nest";
      if (preparation_minutes_ >= 0) {
        preparation_seconds_ = 60 * preparation_minutes_;
        preparation_source_ = "as given";
      }
      return nest;
    }
    nest_ = fitted_nest();
    const Stopwatch watch;
    MKV_ASSIGN(const Calibration calibration, calibration_.read(engine, progress));
    CodeFitOptions options;
    options.origin = origin_of(calibration, engine.model.config());
    MKV_ASSIGN(Nest nest, fit_code_nest(engine.model, calibration.sequences, options, progress,
                                        *engine.workers));
    record_seconds(nest, "fit_seconds", watch.seconds());
    MKV_TRY(nest.save(nest_));
    preparation_seconds_ = watch.seconds();
    preparation_source_ = "measured by this pilot";
    return nest;
  }

  PilotContext context(const Engine& engine) const {
    PilotContext context;
    context.created = today();
    context.model_path = model_.model;
    context.nest_path = nest_;
    context.threads = engine.workers->count();
    context.preparation_seconds = preparation_seconds_;
    context.preparation_source = preparation_source_;
    context.command = "matryoshka pilot " + model_.model + " --nest " + nest_ + " --text";
    for (const std::string& text : texts_) {
      context.texts.push_back(fs::path(text).filename().string());
      context.command += " " + text;
    }
    context.command += " --max-ppl-increase " + tolerance_ + " -o " + output_.path();
    return context;
  }

  void print(const Json& report, const PilotResult& result) const {
    if (json_) {
      print_json({{"page", output_.path()},
                  {"report", output_.beside(".json").string()},
                  {"tolerance", options_.quality.tolerance},
                  {"recommended", report.at("recommended")},
                  {"confident", report.at("confident")}});
      return;
    }
    if (!result.recommended) {
      std::printf("no size of the nest keeps perplexity within %s\n", tolerance_.c_str());
    } else {
      const QualityPoint& point = result.quality[*result.recommended];
      std::printf("%s\n", report.at("recommended").at("flags").get<std::string>().c_str());
      std::printf("perplexity %+.2f %%, KL %.4f, %.0f bytes a token of %.0f\n",
                  100 * point.perplexity_increase(0), point.quality.kl,
                  point.quality.kv.kv_bytes_per_token,
                  result.quality.front().quality.kv.kv_bytes_per_token);
    }
  }

  ModelOptions model_;
  CalibrationText calibration_{8192};  // some minutes; fit looks at three times as many
  PilotOptions options_;
  PageOutput output_;
  std::vector<std::string> texts_;
  std::string nest_, tolerance_ = "1%", preparation_source_;
  double preparation_minutes_ = -1, preparation_seconds_ = -1;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_pilot() { return std::make_unique<Pilot>(); }

}  // namespace mkv::cli
