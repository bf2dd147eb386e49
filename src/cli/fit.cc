// matryoshka fit: makes a nest for a model.
#include <cstdio>
#include <map>
#include <optional>

#include "base/stopwatch.h"
#include "cli/calibration_text.h"
#include "cli/command.h"
#include "cli/inspect_nest.h"
#include "cli/ladder_measurement.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "fit/fit_codes.h"
#include "fit/pca.h"

namespace mkv::cli {
namespace {

const std::map<std::string, SlabKind> kKinds{{"code", SlabKind::code},
                                             {"column", SlabKind::column}};
const std::map<std::string, ColumnAxes> kAxes{{"pca", ColumnAxes::principal},
                                              {"dimensions", ColumnAxes::dimensions},
                                              {"random", ColumnAxes::random},
                                              {"metric", ColumnAxes::metric}};
const std::map<std::string, KeyMean> kKeyMeans{
    {"none", KeyMean::none}, {"plain", KeyMean::plain}, {"position", KeyMean::position}};

class Fit : public Command {
 public:
  CLI::App* declare(CLI::App& parent) override {
    CLI::App* app = parent.add_subcommand("fit", "Make a nest for a model");
    model_.declare(*app);
    app->add_option("-o,--output", output_, "Folder of the nest")->required();
    app->add_option("--kind", kind_,
                    "What is cut: code (4-bit codes of 4 columns) or column (16 bits, the paper's)")
        ->transform(CLI::CheckedTransformer(kKinds))
        ->default_str("code");
    calibration_.declare(*app);
    declare_shared(*app);
    app->add_option("--max-bits", codes_.most_bits, "code: bits a value at full size")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    declare_code_tuning(*app);
    add_count(*app, "--step", columns_.step, "column: columns a rung of the ladder")
        ->check(CLI::PositiveNumber);
    app->add_option(
           "--axes", columns_.axes,
           "column: pca, metric (oblique: errors weigh what they do to the output), or for "
           "comparison the head's own dimensions or random rotations")
        ->transform(CLI::CheckedTransformer(kAxes))
        ->default_str("pca");
    measurement_.declare(*app);
    declare_json(*app, json_);
    app->footer(
        "Example:\n  matryoshka fit model.gguf -o nest\n"
        "  matryoshka fit model.gguf -o nest --text train.jsonl --tokens 65536 --measure "
        "valid.txt");
    return app;
  }

  Result<void> run() override {
    MKV_TRY(check_output_folder(output_));
    MKV_ASSIGN(const std::unique_ptr<Engine> engine, open_engine(model_, {}));
    ProgressBar bar;
    const Stopwatch watch;
    MKV_ASSIGN(const Calibration calibration, calibration_.read(*engine, bar.sink()));
    MKV_ASSIGN(Nest nest, fit(*engine, calibration, bar.sink()));
    record_seconds(nest, "fit_seconds", watch.seconds());
    MKV_TRY(measurement_.run(*engine, nest, bar.sink()));
    MKV_TRY(nest.save(output_));
    bar.finish();
    std::fprintf(stderr, "%s: saved\n", output_.c_str());
    return json_ ? print_nest_json(nest) : print_nest_text(nest);
  }

 private:
  // What docs/decisions/0007 was measured with.
  void declare_code_tuning(CLI::App& app) {
    add_count(app, "--context", codes_.context,
              "code: longest context that the nest is for, in tokens; the model's if less")
        ->check(CLI::PositiveNumber);
    add_count(app, "--draws", codes_.draws,
              "code: label draws a token, each a backward pass; more see the loss with less noise")
        ->check(CLI::PositiveNumber);
    app.add_option("--ridge", codes_.ridge,
                   "code, metric axes: of the loss's metric, against noise in few gradients")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    app.add_option("--token-weight-floor", codes_.token_weight_floor,
                   "code, metric axes: 1 weighs all tokens alike, 0 by their gradients alone")
        ->capture_default_str()
        ->check(CLI::Range(0.0, 1.0));
    app.add_option("--key-weight", codes_.key_weight,
                   "code: worth of a key's predicted loss against a value's")
        ->capture_default_str()
        ->check(CLI::PositiveNumber);
    add_count(app, "--correction-windows", codes_.correction_windows,
              "code: windows of the text on which gains are corrected by measurement; 0 is none");
    add_count(
        app, "--joint-rounds", codes_.joint_rounds,
        "code: rounds of fitting all codebooks together; 0 leaves each as it was fitted alone");
    add_count(app, "--most-per-column", codes_.most_per_column,
              "code: slabs on the same columns, i.e. bits a column")
        ->check(CLI::Range(size_t{1}, kMostSlabsPerColumn));
  }
  void declare_shared(CLI::App& app) {
    add_count(app, "--group-size", group_size_,
              "KV heads that share a basis; 0 is all of a layer for code, 1 for column");
    app.add_option("--key-mean", key_mean_,
                   "What is taken off keys before coding: none, plain or position")
        ->transform(CLI::CheckedTransformer(kKeyMeans))
        ->default_str("position");
    add_count(app, "--sinks", sinks_, "Leading tokens that stay exact");
    add_count(app, "--recent", recent_,
              "Most recent tokens that stay exact: a multiple of 64, 0 is none");
    app.add_option("--later-sinks", later_sinks_,
                   "Most tokens a layer that stay exact besides because the model rests its "
                   "attention on them; needs 2 sinks. By default 4096 for code, 0 for column")
        ->check(CLI::Range(size_t{0}, kMostLaterSinks));
  }

  // What both kinds of nest take.
  template <class Options>
  void fill(Options& options, const Calibration& calibration, const ModelConfig& model) const {
    if (group_size_ != 0) options.group_size = group_size_;
    options.key_mean = key_mean_;
    options.sinks = sinks_;
    options.recent = recent_;
    options.origin = origin_of(calibration, model);
  }

  Result<Nest> fit(const Engine& engine, const Calibration& calibration,
                   const ProgressSink& progress) {
    if (kind_ == SlabKind::column) {
      fill(columns_, calibration, engine.model.config());
      columns_.later_sinks = later_sinks_.value_or(0);
      columns_.seed = calibration_.seed();
      columns_.ridge = codes_.ridge;
      columns_.token_weight_floor = codes_.token_weight_floor;
      return fit_nest(engine.model, calibration.sequences, columns_, progress, *engine.workers);
    }
    fill(codes_, calibration, engine.model.config());
    codes_.later_sinks = later_sinks_;
    return fit_code_nest(engine.model, calibration.sequences, codes_, progress, *engine.workers);
  }

  ModelOptions model_;
  CalibrationText calibration_{25000};
  LadderMeasurement measurement_;
  SlabKind kind_ = SlabKind::code;
  KeyMean key_mean_ = KeyMean::position;
  size_t group_size_ = 0, sinks_ = 4, recent_ = 128;
  std::optional<size_t> later_sinks_;
  FitOptions columns_;
  CodeFitOptions codes_;
  std::string output_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_fit() { return std::make_unique<Fit>(); }

}  // namespace mkv::cli
