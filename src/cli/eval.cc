// matryoshka eval ppl|kl: perplexity, and the KL divergence from the exact cache, by llama.cpp's
// procedure: windows do not overlap, the second half of each is scored.
#include <cstdio>

#include "cli/budgets.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/text_files.h"
#include "eval/kl.h"
#include "eval/perplexity.h"

namespace mkv::cli {
namespace {

// What both measurements read: a model, a cache, windows of a text.
class Evaluation : public Command {
 protected:
  void declare_common(CLI::App& app) {
    model_.declare(app);
    cache_.declare(app);
    app.add_option("--text", text_, "Text file, or .jsonl with a \"text\" in each line")
        ->required();
    add_count(app, "--context", windows_.context, "Tokens a window");
    add_count(app, "--windows", windows_.limit, "Most windows; 0 is all");
    declare_json(app, json_);
  }

  Result<void> open() {
    MKV_ASSIGN(const std::vector<std::string> documents, read_documents(text_));
    MKV_ASSIGN(engine_, open_engine(model_, cache_));
    auto windows = make_windows(engine_->model.tokenizer(), documents, windows_);
    if (!windows) return in_context(text_, std::move(windows).error());
    cut_ = std::move(*windows);
    return {};
  }

  Result<CacheFactory> caches(const Ranks& ranks) const {
    if (!engine_->nest) return CacheFactory::exact(engine_->model, {.exact = engine_->exact});
    return CacheFactory::coded(engine_->model, *engine_->nest, ranks, {.beam = engine_->beam});
  }

  ModelOptions model_;
  CacheOptions cache_;
  std::string text_;
  WindowOptions windows_{.context = 1024, .limit = 0};
  bool json_ = false;
  std::unique_ptr<Engine> engine_;
  Windows cut_;
};

class EvalPerplexity : public Evaluation {
 public:
  CLI::App* declare(CLI::App& parent) override {
    CLI::App* app = parent.add_subcommand("ppl", "Perplexity of a text");
    declare_common(*app);
    app->footer(
        "Example:\n  matryoshka eval ppl model.gguf --text wiki.test.raw --context 1024 \\\n"
        "      --nest nest --budget 2bits");
    return app;
  }

  Result<void> run() override {
    MKV_TRY(open());
    MKV_ASSIGN(const CacheFactory factory, caches(engine_->ranks));
    ProgressBar bar;
    MKV_ASSIGN(const PerplexityReport report,
               evaluate_perplexity(engine_->model, factory, cut_, {.progress = bar.sink()},
                                   *engine_->workers));
    bar.finish();
    print(report);
    return {};
  }

 private:
  void print(const PerplexityReport& report) const {
    const std::string budget = cache_.name();
    if (json_) {
      OrderedJson result{{"budget", budget},
                         {"perplexity", report.perplexity},
                         {"perplexity_stderr", report.perplexity_stderr},
                         {"tokens", report.tokens},
                         {"windows", report.windows},
                         {"seconds", report.seconds}};
      add_figures(result, report.kv);
      print_json(result);
      return;
    }
    std::printf("perplexity %.4f +/- %.4f over %zu tokens of %zu windows, budget %s\n",
                report.perplexity, report.perplexity_stderr, report.tokens, report.windows,
                budget.c_str());
    std::printf("KV cache %.0f bytes a token, %.2f bits a value, %.2f where coded\n",
                report.kv.kv_bytes_per_token, report.kv.bits_per_value,
                report.kv.coded_bits_per_value);
  }
};

class EvalKl : public Evaluation {
 public:
  CLI::App* declare(CLI::App& parent) override {
    CLI::App* app = parent.add_subcommand("kl", "KL divergence from the exact cache");
    declare_common(*app);
    app->add_option("--budgets", budgets_,
                    "Several budgets, e.g. 100%,50%,25%: one exact pass for all; JSON is a list")
        ->delimiter(',')
        ->needs("--nest")
        ->excludes("--budget");
    app->footer(
        "Example:\n  matryoshka eval kl model.gguf --nest nest --budget 25% --text wiki.test.raw "
        "\\\n"
        "      --context 1024 --windows 8 --json");
    return app;
  }

  Result<void> run() override {
    MKV_TRY(open());
    const bool several = !budgets_.empty();
    const std::vector<std::string> budgets =
        several ? budgets_ : std::vector<std::string>{cache_.name()};
    std::vector<Ranks> ranks{engine_->ranks};
    if (several) {
      MKV_ASSIGN(ranks, ranks_of(budgets));
    }
    ProgressBar bar;
    const EvalOptions options{.progress = bar.sink()};
    MKV_ASSIGN(const BaseHidden base,
               BaseHidden::compute(engine_->model, std::move(cut_), options, *engine_->workers));
    std::vector<KlReport> reports;
    for (const Ranks& each : ranks) {
      MKV_ASSIGN(const CacheFactory factory, caches(each));
      MKV_ASSIGN(KlReport report,
                 evaluate_kl(engine_->model, base, factory, options, *engine_->workers));
      reports.push_back(report);
    }
    bar.finish();
    if (json_) {
      print_as_json(budgets, reports, several);
    } else {
      print_as_table(budgets, reports);
    }
    return {};
  }

 private:
  Result<std::vector<Ranks>> ranks_of(const std::vector<std::string>& budgets) const {
    std::vector<Ranks> ranks;
    for (const std::string& budget : budgets) {
      auto rung = rung_for_budget(*engine_->nest, budget);
      if (!rung) return in_context("--budgets", std::move(rung).error());
      ranks.push_back(engine_->nest->ranks_at(*rung));
    }
    return ranks;
  }

  void print_as_json(const std::vector<std::string>& budgets, const std::vector<KlReport>& reports,
                     bool several) const {
    OrderedJson list = OrderedJson::array();
    for (size_t i = 0; i < reports.size(); ++i) {
      const KlReport& report = reports[i];
      OrderedJson result{{"budget", budgets[i]},
                         {"perplexity", report.perplexity},
                         {"perplexity_base", report.perplexity_base},
                         {"log_ratio_stderr", report.log_ratio_stderr},
                         {"kl", report.kl},
                         {"kl_stderr", report.kl_stderr},
                         {"top1_agreement", report.top1_agreement},
                         {"tokens", report.tokens},
                         {"windows", report.windows},
                         {"seconds", report.seconds}};
      add_figures(result, report.kv);
      list.push_back(std::move(result));
    }
    print_json(several ? list : list.front());
  }

  void print_as_table(const std::vector<std::string>& budgets,
                      const std::vector<KlReport>& reports) const {
    std::printf("perplexity %.4f with the exact cache, over %zu tokens of %zu windows\n\n",
                reports.front().perplexity_base, reports.front().tokens, reports.front().windows);
    std::vector<std::vector<std::string>> rows{{"budget", "KV bytes/token", "bits/value", "KL",
                                                "+/-", "perplexity", "change", "same top-1"}};
    for (size_t i = 0; i < reports.size(); ++i) {
      const KlReport& report = reports[i];
      rows.push_back({budgets[i], format("%.0f", report.kv.kv_bytes_per_token),
                      format("%.2f", report.kv.bits_per_value), format("%.4f", report.kl),
                      format("%.4f", report.kl_stderr), format("%.3f", report.perplexity),
                      format("%+.2f %%", 100 * report.perplexity_increase()),
                      format("%.1f %%", 100 * report.top1_agreement)});
    }
    print_table(rows);
  }

  std::vector<std::string> budgets_;
};

}  // namespace

std::unique_ptr<Command> make_eval_ppl() { return std::make_unique<EvalPerplexity>(); }
std::unique_ptr<Command> make_eval_kl() { return std::make_unique<EvalKl>(); }

}  // namespace mkv::cli
