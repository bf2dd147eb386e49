// matryoshka autopilot: flies the autopilot over a stream of texts and writes its trace.
#include <algorithm>
#include <cstdio>
#include <filesystem>

#include "cli/command.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/page_output.h"
#include "cli/progress.h"
#include "cli/refit.h"
#include "cli/text_files.h"
#include "pilot/stream_report.h"

namespace mkv::cli {
namespace {

class AutopilotCommand : public Command {
 public:
  CLI::App* declare(CLI::App& parent) override {
    CLI::App* app = parent.add_subcommand(
        "autopilot", "Hold a tolerance over a stream of texts that changes, as a trace");
    model_.declare(*app);
    app->add_option("--nest", nest_, "Nest folder, with measurements (fit --measure)")->required();
    app->add_option("--stream", texts_, "Text files, one kind of text after the other")->required();
    app->add_option("--max-kl", options_.tolerance, "Most mean KL divergence, nats a token")
        ->capture_default_str();
    add_count(*app, "--requests", windows_.limit, "Most of each text; 0 is all");
    add_count(*app, "--context", windows_.context,
              "Tokens of a request, of which the second half is served")
        ->check(CLI::PositiveNumber);
    app->add_option("--shadow-share", options_.shadow_share,
                    "Share of the requests that the exact cache computes too")
        ->capture_default_str();
    app->add_option("--margin", options_.margin,
                    "How far below the tolerance moves go, as a share of it")
        ->capture_default_str();
    app->add_option("--seed", options_.seed, "Of the choice of shadowed requests")
        ->capture_default_str();
    declare_refit(*app);
    output_.declare(*app);
    declare_json(*app, json_);
    app->footer(
        "Example:\n  matryoshka autopilot model.gguf --nest nest --stream news.txt code.jsonl \\\n"
        "      --max-kl 0.01 --requests 100 -o autopilot.html");
    return app;
  }

  Result<void> run() override {
    MKV_TRY(output_.check());
    MKV_ASSIGN(const std::unique_ptr<Engine> engine, open_engine(model_, {}));
    MKV_ASSIGN(const Nest nest, open_nest(nest_, engine->model));
    auto levels = autopilot_levels(nest);
    if (!levels) return in_context(nest_, std::move(levels).error());
    MKV_ASSIGN(Autopilot autopilot, Autopilot::create(*std::move(levels), options_));
    MKV_ASSIGN(const std::vector<StreamPart> parts, read_parts(engine->model));
    ProgressBar bar;
    StreamOptions stream;
    stream.eval.progress = bar.sink();
    stream.refit = refit_options_;
    if (refit_) {
      MKV_ASSIGN(stream.refit.make, make_refit(engine->model, nest, windows_.context,
                                               std::max<size_t>(1, engine->workers->count() / 2)));
    }
    MKV_ASSIGN(const StreamReport report,
               run_stream(engine->model, nest, parts, autopilot, stream, *engine->workers));
    bar.finish();
    const Json json = stream_json(report, parts, options_, context(engine->model));
    MKV_ASSIGN(const std::string page, stream_page(json));
    MKV_TRY(output_.write(page, json));
    print(json, report);
    return {};
  }

 private:
  void declare_refit(CLI::App& app) {
    CLI::Option* refit = app.add_flag("--refit", refit_,
                                      "Where drift is noticed, fit a nest to the text that is "
                                      "served, in the background, and keep "
                                      "it if it is better");
    add_count(app, "--refit-tokens", refit_options_.tokens, "Served tokens that a refit looks at")
        ->check(CLI::PositiveNumber)
        ->needs(refit);
    add_count(app, "--refit-requests", refit_options_.requests,
              "Requests that are served while it is made; then it is waited for")
        ->needs(refit);
    add_count(app, "--refit-trial", refit_options_.trial,
              "Requests on which the old nest and the new are compared")
        ->check(CLI::PositiveNumber)
        ->needs(refit);
  }

  Result<std::vector<StreamPart>> read_parts(const Model& model) const {
    std::vector<StreamPart> parts;
    for (const std::string& text : texts_) {
      MKV_ASSIGN(const std::vector<std::string> documents, read_documents(text));
      auto windows = make_windows(model.tokenizer(), documents, windows_);
      if (!windows) return in_context(text, std::move(windows).error());
      parts.push_back({std::filesystem::path(text).filename().string(), *std::move(windows)});
    }
    return parts;
  }

  StreamContext context(const Model& model) const {
    StreamContext context;
    context.command = "matryoshka autopilot " + model_.model + " --nest " + nest_ + " --stream";
    for (const std::string& text : texts_) context.command += " " + text;
    context.command +=
        format(" --max-kl %g --requests %zu --context %zu --shadow-share %g --margin %g --seed %zu",
               options_.tolerance, windows_.limit, windows_.context, options_.shadow_share,
               options_.margin, static_cast<size_t>(options_.seed));
    if (refit_) {
      context.command +=
          format(" --refit --refit-tokens %zu --refit-requests %zu --refit-trial %zu",
                 refit_options_.tokens, refit_options_.requests, refit_options_.trial);
    }
    context.command += " -o " + output_.path();
    context.created = today();
    context.model = model.config().name;
    context.nest = nest_;
    return context;
  }

  void print(const Json& json, const StreamReport& report) const {
    size_t drifts = 0;
    for (const StreamRequest& request : report.requests) drifts += request.decision.drift;
    if (json_) {
      print_json({{"page", output_.path()},
                  {"report", output_.beside(".json").string()},
                  {"tolerance", options_.tolerance},
                  {"mean_kl", report.kl},
                  {"mean_bits_per_value", report.bits_per_value},
                  {"drifts", drifts},
                  {"refits", json.at("refits")},
                  {"parts", json.at("parts")}});
      return;
    }
    std::printf("mean KL %.4f with %g accepted, %.2f bits a value, %zu drifts\n\n", report.kl,
                options_.tolerance, report.bits_per_value, drifts);
    std::vector<std::vector<std::string>> rows{{"text", "requests", "KL", "bits/value"}};
    for (const Json& part : json.at("parts")) {
      rows.push_back({part.at("name"), std::to_string(part.at("requests").get<size_t>()),
                      format("%.4f", part.at("mean_kl").get<double>()),
                      format("%.2f", part.at("mean_bits_per_value").get<double>())});
    }
    print_table(rows);
    for (const RefitRecord& refit : report.refits) std::printf("\n%s\n", refit_text(refit).c_str());
  }

  // What became of a refit, in a line; requests are counted from 1.
  static std::string refit_text(const RefitRecord& refit) {
    const std::string asked = format("refit asked for by request %zu: ", refit.asked + 1);
    if (!refit.failed.empty()) return asked + "failed, " + refit.failed;
    if (!refit.made) return asked + "the stream ended before there was enough text";
    if (!refit.decided) return asked + "the stream ended before it was tried";
    return asked + format("%zu tokens, KL %.4f before and %.4f after, %s from request %zu on",
                          refit.tokens, refit.kl_before, refit.kl_after,
                          refit.kept ? "kept" : "dropped", *refit.decided + 2);
  }

  ModelOptions model_;
  AutopilotOptions options_;
  PageOutput output_;
  std::string nest_;
  std::vector<std::string> texts_;
  WindowOptions windows_{.context = 512, .limit = 100};
  RefitOptions refit_options_;
  bool refit_ = false, json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_autopilot() { return std::make_unique<AutopilotCommand>(); }

}  // namespace mkv::cli
