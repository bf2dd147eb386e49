// matryoshka search: finds the order in which a nest gives up its slabs, by measured change of the
// model's output (arXiv:2410.14731 §3.4).
#include "fit/search.h"

#include <cstdio>
#include <map>

#include "cli/calibration_text.h"
#include "cli/command.h"
#include "cli/inspect_nest.h"
#include "cli/ladder_measurement.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"

namespace mkv::cli {
namespace {

const std::map<std::string, SearchObjective> kObjectives{
    {"kl", SearchObjective::kl}, {"hidden-error", SearchObjective::hidden_error}};

class Search : public Command {
 public:
  CLI::App* declare(CLI::App& parent) override {
    CLI::App* app = parent.add_subcommand("search", "Find a nest's best order of cuts");
    model_.declare(*app);
    app->add_option("--nest", nest_, "Nest folder")->required();
    app->add_option("-o,--output", output_, "Folder of the result; without one NEST is replaced");
    calibration_.declare(*app);
    app->add_option("--objective", options_.objective,
                    "What a cut should change least: kl or "
                    "hidden-error")
        ->transform(CLI::CheckedTransformer(kObjectives))
        ->default_str("kl");
    add_count(*app, "--step", options_.step, "Slabs a rung, the least that a cut takes")
        ->check(CLI::PositiveNumber);
    app->add_option("--cut-share", options_.cut_share,
                    "What a cut takes of what its latent space has left, in whole steps; 0 is one "
                    "step")
        ->capture_default_str()
        ->check(CLI::Range(0.0, 1.0));
    add_count(*app, "--cuts-per-round", options_.cuts_per_round,
              "Cuts before anything is measured again")
        ->check(CLI::PositiveNumber);
    app->add_option("--floor", options_.floor, "Share of the slabs at which the search ends")
        ->capture_default_str()
        ->check(CLI::Range(0.0, 1.0));
    app->add_flag("--exhaustive", options_.exhaustive, "Measure every space before every cut");
    app->add_option("--checkpoint", checkpoint_, "File to continue from after an interruption");
    measurement_.declare(*app);
    declare_json(*app, json_);
    app->footer(
        "Example:\n  matryoshka search model.gguf --nest nest --text train.jsonl --tokens 4096");
    return app;
  }

  Result<void> run() override {
    if (output_.empty()) output_ = nest_;
    MKV_TRY(check_output_folder(output_));
    MKV_ASSIGN(const std::unique_ptr<Engine> engine, open_engine(model_, {}));
    MKV_ASSIGN(Nest nest, open_nest(nest_, engine->model));
    ProgressBar bar;
    MKV_ASSIGN(const Calibration calibration, calibration_.read(*engine, bar.sink()));
    options_.checkpoint = checkpoint_;
    options_.progress = bar.sink();
    MKV_ASSIGN(SearchReport found, search_ladder(engine->model, nest, calibration.sequences,
                                                 options_, *engine->workers));
    MKV_TRY(nest.set_ladder(std::move(found.ladder)));
    record_seconds(nest, "search_seconds", found.seconds);
    nest.measurements().clear();  // they were of the old ladder
    MKV_TRY(measurement_.run(*engine, nest, bar.sink()));
    MKV_TRY(nest.save(output_));
    bar.finish();
    std::fprintf(stderr, "%s: saved; %zu cuts from %zu evaluations in %.0f s\n", output_.c_str(),
                 found.searched_cuts, found.evaluations, found.seconds);
    return json_ ? print_nest_json(nest) : print_nest_text(nest);
  }

 private:
  ModelOptions model_;
  CalibrationText calibration_{4096};
  LadderMeasurement measurement_;
  SearchOptions options_;
  std::string nest_, output_, checkpoint_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_search() { return std::make_unique<Search>(); }

}  // namespace mkv::cli
