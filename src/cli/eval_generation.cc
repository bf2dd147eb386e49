// matryoshka eval generation: how long greedy output stays what the full cache gives.
#include <cstdio>

#include "cli/budgets.h"
#include "cli/command.h"
#include "cli/progress.h"
#include "cli/text_files.h"
#include "eval/agreement.h"

namespace mkv::cli {
namespace {

class EvalGeneration : public Command {
 public:
  CLI::App* declare(CLI::App& parent) override {
    CLI::App* app =
        parent.add_subcommand("generation", "First token that differs from the full cache's");
    budgets_.declare(*app);
    app->add_option("--text", file_, "Text whose parts are the prompts")->required();
    add_count(*app, "--prompts", options_.prompts, "How many, evenly spaced over the text");
    add_count(*app, "--prompt-tokens", options_.prompt, "Tokens of a prompt");
    add_count(*app, "-n,--max-tokens", options_.tokens, "Tokens that are generated");
    declare_json(*app, json_);
    app->footer(
        "Example:\n  matryoshka eval generation model.gguf --nest nest --budgets max,2bits \\\n"
        "      --text test.txt --prompts 16 --prompt-tokens 512 -n 64 --json");
    return app;
  }

  Result<void> run() override {
    MKV_TRY(budgets_.open());
    MKV_ASSIGN(const std::vector<std::string> documents, read_documents(file_));
    auto prompts = cut_prompts(budgets_.model(), documents, options_);
    if (!prompts) return in_context(file_, std::move(prompts).error());
    ProgressBar bar;
    options_.progress = bar.sink();
    MKV_ASSIGN(const auto base,
               greedy_answers(budgets_.model(), CacheFactory::exact(budgets_.model()), *prompts,
                              options_, budgets_.workers()));
    MKV_ASSIGN(const auto reports,
               budgets_.measure_all<AgreementReport>([&](const CacheFactory& caches) {
                 return evaluate_agreement(budgets_.model(), caches, *prompts, base, options_,
                                           budgets_.workers());
               }));
    bar.finish();
    if (json_) {
      print_as_json(reports);
    } else {
      print_as_table(reports);
    }
    return {};
  }

 private:
  void print_as_json(const std::vector<AgreementReport>& reports) const {
    budgets_.print_reports(reports, [this](const CacheFactory& caches,
                                           const AgreementReport& report, OrderedJson& result) {
      result["coded_bits_per_value"] = caches.coded_bits_per_value();
      result["prompts"] = report.first_difference.size();
      result["max_tokens"] = options_.tokens;
      result["identical"] = report.identical;
      result["mean_agreed_tokens"] = report.mean_agreed;
      result["median_agreed_tokens"] = report.median_agreed;
      result["first_difference"] = report.first_difference;
      result["seconds"] = report.seconds;
    });
  }

  void print_as_table(const std::vector<AgreementReport>& reports) const {
    std::printf("%zu greedy answers of at most %zu tokens against the full cache's\n\n",
                options_.prompts, options_.tokens);
    std::vector<std::vector<std::string>> rows{{"budget", "bits where coded", "identical",
                                                "tokens before the first difference", "median"}};
    for (size_t b = 0; b < reports.size(); ++b) {
      const AgreementReport& report = reports[b];
      rows.push_back({budgets_.all()[b].budget,
                      format("%.2f", budgets_.all()[b].caches.coded_bits_per_value()),
                      format("%.0f %%", 100 * report.identical), format("%.1f", report.mean_agreed),
                      format("%.1f", report.median_agreed)});
    }
    print_table(rows);
  }

  BudgetOptions budgets_;
  std::string file_;
  AgreementOptions options_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_eval_generation() { return std::make_unique<EvalGeneration>(); }

}  // namespace mkv::cli
