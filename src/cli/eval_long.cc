// matryoshka eval long: perplexity by position over whole documents.
#include <cstdio>

#include "cli/budgets.h"
#include "cli/command.h"
#include "cli/progress.h"
#include "cli/text_files.h"
#include "eval/long_text.h"

namespace mkv::cli {
namespace {

class EvalLong : public Command {
 public:
  CLI::App* declare(CLI::App& parent) override {
    CLI::App* app = parent.add_subcommand("long", "Perplexity by position over whole documents");
    budgets_.declare(*app);
    app->add_option("--text", files_, "Text files, each a document, or .jsonl of documents")
        ->required();
    add_count(*app, "--context", options_.context, "Tokens a piece of a document");
    add_count(*app, "--bucket", options_.bucket, "Positions that are summed up together");
    add_count(*app, "--pieces", options_.limit, "Most pieces of a document; 0 is all");
    declare_json(*app, json_);
    app->footer(
        "Example:\n  matryoshka eval long model.gguf --nest nest --budgets exact,q4_0,2bits \\\n"
        "      --text book.txt --context 8192 --pieces 4 --json");
    return app;
  }

  Result<void> run() override {
    MKV_TRY(budgets_.open());
    std::vector<std::string> documents;
    for (const std::string& file : files_) {
      MKV_ASSIGN(const std::vector<std::string> of_file, read_documents(file));
      documents.insert(documents.end(), of_file.begin(), of_file.end());
    }
    ProgressBar bar;
    options_.eval.progress = bar.sink();
    MKV_ASSIGN(const auto pieces, cut_documents(budgets_.model(), documents, options_));
    MKV_ASSIGN(
        const auto reports, budgets_.measure_all<LongReport>([&](const CacheFactory& caches) {
          return evaluate_long(budgets_.model(), caches, pieces, options_, budgets_.workers());
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
  void print_as_json(const std::vector<LongReport>& reports) const {
    budgets_.print_reports(
        reports, [](const CacheFactory&, const LongReport& report, OrderedJson& result) {
          result["perplexity"] = report.all.perplexity;
          result["tokens"] = report.all.tokens;
          result["pieces"] = report.pieces;
          result["seconds"] = report.seconds;
          add_figures(result, report.kv);
          result["buckets"] = OrderedJson::array();
          for (const LongBucket& bucket : report.buckets) {
            result["buckets"].push_back({{"first", bucket.first},
                                         {"end", bucket.end},
                                         {"tokens", bucket.tokens},
                                         {"perplexity", bucket.perplexity},
                                         {"nll", bucket.nll.mean},
                                         {"nll_stderr", bucket.nll.standard_error}});
          }
        });
  }

  void print_as_table(const std::vector<LongReport>& reports) const {
    std::printf("perplexity over %zu pieces of at most %zu tokens\n\n", reports.front().pieces,
                options_.context);
    std::vector<std::vector<std::string>> rows{{"positions", "tokens"}};
    for (const NamedCaches& each : budgets_.all()) rows.front().push_back(each.budget);
    const auto add = [&](const std::string& name, const auto& bucket_of) {
      std::vector<std::string> row{name, std::to_string(bucket_of(reports.front()).tokens)};
      for (const LongReport& report : reports) {
        row.push_back(format("%.4f", bucket_of(report).perplexity));
      }
      rows.push_back(std::move(row));
    };
    for (size_t i = 0; i < reports.front().buckets.size(); ++i) {
      const LongBucket& bucket = reports.front().buckets[i];
      add(format("%zu-%zu", bucket.first, bucket.end - 1),
          [i](const LongReport& report) { return report.buckets[i]; });
    }
    add("all", [](const LongReport& report) { return report.all; });
    rows.push_back({"KV bytes/token", ""});
    for (const LongReport& report : reports) {
      rows.back().push_back(format("%.0f", report.kv.kv_bytes_per_token));
    }
    print_table(rows);
  }

  BudgetOptions budgets_;
  std::vector<std::string> files_;
  LongOptions options_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_eval_long() { return std::make_unique<EvalLong>(); }

}  // namespace mkv::cli
