// matryoshka eval retrieval: a needle at depths and lengths.
#include <cstdio>

#include "cli/budgets.h"
#include "cli/command.h"
#include "cli/progress.h"
#include "cli/text_files.h"
#include "eval/needle.h"

namespace mkv::cli {
namespace {

class EvalRetrieval : public Command {
 public:
  CLI::App* declare(CLI::App& parent) override {
    CLI::App* app = parent.add_subcommand("retrieval", "Find a needle in a long text");
    budgets_.declare(*app);
    app->add_option("--text", file_, "The text that the needle is put into")->required();
    add_counts(*app, "--lengths", options_.lengths, "Tokens of a prompt");
    app->add_option("--depths", depths_, "Where the needle is: 0% is the beginning")
        ->delimiter(',')
        ->capture_default_str();
    add_count(*app, "--samples", options_.samples, "Needles of each length and depth");
    add_count(*app, "--answer", options_.answer, "Most tokens of an answer");
    add_count(*app, "--seed", options_.seed, "Of keys and stretches of text");
    declare_json(*app, json_);
    app->footer(
        "Example:\n  matryoshka eval retrieval model.gguf --nest nest --budgets exact,2bits \\\n"
        "      --text book.txt --lengths 1024,4096 --depths 0%,50%,100% --json");
    return app;
  }

  Result<void> run() override {
    MKV_ASSIGN(options_.depths, parse_fractions("--depths", depths_));
    MKV_TRY(budgets_.open());
    MKV_ASSIGN(const std::string filler, read_text(file_));
    auto prompts = make_needles(budgets_.model(), filler, options_);
    if (!prompts) return in_context(file_, std::move(prompts).error());
    ProgressBar bar;
    options_.progress = bar.sink();
    MKV_ASSIGN(
        const auto reports, budgets_.measure_all<NeedleReport>([&](const CacheFactory& caches) {
          return evaluate_needles(budgets_.model(), caches, *prompts, options_, budgets_.workers());
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
  void print_as_json(const std::vector<NeedleReport>& reports) const {
    budgets_.print_reports(
        reports, [](const CacheFactory&, const NeedleReport& report, OrderedJson& result) {
          result["found"] = report.found;
          result["key_log_likelihood"] = report.key_log_likelihood;
          result["seconds"] = report.seconds;
          add_figures(result, report.kv);
          result["cells"] = OrderedJson::array();
          for (const NeedleCell& cell : report.cells) {
            result["cells"].push_back({{"length", cell.length},
                                       {"depth", cell.depth},
                                       {"samples", cell.samples},
                                       {"found", cell.found},
                                       {"key_log_likelihood", cell.key_log_likelihood}});
          }
        });
  }

  void print_as_table(const std::vector<NeedleReport>& reports) const {
    std::printf("needles found, and the mean log-likelihood of their keys\n\n");
    std::vector<std::vector<std::string>> rows{{"length", "depth"}};
    for (const NamedCaches& each : budgets_.all()) rows.front().push_back(each.budget);
    for (size_t i = 0; i < reports.front().cells.size(); ++i) {
      const NeedleCell& cell = reports.front().cells[i];
      std::vector<std::string> row{std::to_string(cell.length),
                                   format("%.0f %%", 100 * cell.depth)};
      for (const NeedleReport& report : reports) {
        const NeedleCell& own = report.cells[i];
        row.push_back(format("%zu/%zu %7.3f", own.found, own.samples, own.key_log_likelihood));
      }
      rows.push_back(std::move(row));
    }
    rows.push_back({"all", ""});
    for (const NeedleReport& report : reports) {
      rows.back().push_back(format("%.0f %% %7.3f", 100 * report.found, report.key_log_likelihood));
    }
    print_table(rows);
  }

  BudgetOptions budgets_;
  std::string file_;
  std::vector<std::string> depths_{"0%", "25%", "50%", "75%", "100%"};
  NeedleOptions options_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_eval_retrieval() { return std::make_unique<EvalRetrieval>(); }

}  // namespace mkv::cli
