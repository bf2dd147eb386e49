// matryoshka eval tasks: zero-shot tasks as lm-evaluation-harness scores them.
#include <cstdio>

#include "cli/budgets.h"
#include "cli/command.h"
#include "cli/progress.h"
#include "eval/tasks.h"

namespace mkv::cli {
namespace {

std::string percent_text(const Average& average) {
  return format("%.2f +/- %.2f", 100 * average.mean, 100 * average.standard_error);
}

class EvalTasks : public Command {
 public:
  CLI::App* declare(CLI::App& parent) override {
    CLI::App* app = parent.add_subcommand("tasks", "Accuracy on zero-shot tasks");
    budgets_.declare(*app);
    app->add_option("--tasks", files_,
                    ".jsonl files: context, choices, label; or contexts, continuation, label; or "
                    "context, continuation")
        ->required();
    add_count(*app, "--limit", limit_, "Most examples of a task, its first; 0 is all");
    declare_json(*app, json_);
    app->add_flag("--examples", examples_, "With --json: the log-likelihoods of every example")
        ->needs("--json");
    app->footer(
        "Example:\n  matryoshka eval tasks model.gguf --nest nest --budgets exact,2bits \\\n"
        "      --tasks arc_easy.jsonl piqa.jsonl --limit 200 --json");
    return app;
  }

  Result<void> run() override {
    MKV_TRY(budgets_.open());
    std::vector<Task> tasks;
    for (const std::string& file : files_) {
      MKV_ASSIGN(Task task, read_task(file, limit_));
      tasks.push_back(std::move(task));
    }
    std::vector<std::vector<TaskReport>> reports;  // [budget][task]
    ProgressBar bar;
    for (const NamedCaches& each : budgets_.all()) {
      std::vector<TaskReport>& of_budget = reports.emplace_back();
      for (const Task& task : tasks) {
        MKV_ASSIGN(TaskReport report, evaluate_task(budgets_.model(), each.caches, task, bar.sink(),
                                                    budgets_.workers()));
        of_budget.push_back(std::move(report));
      }
    }
    bar.finish();
    if (json_) {
      print_as_json(tasks, reports);
    } else {
      print_as_table(tasks, reports);
    }
    return {};
  }

 private:
  static void add_average(OrderedJson& to, const std::string& name, const Average& average) {
    to[name] = average.mean;
    to[name + "_stderr"] = average.standard_error;
  }

  // What a paper's average is over: acc_norm where a task has it.
  static double average_accuracy(const std::vector<TaskReport>& reports, bool normed) {
    double sum = 0;
    for (const TaskReport& report : reports) {
      sum += normed && report.acc_norm ? report.acc_norm->mean : report.acc.mean;
    }
    return sum / static_cast<double>(reports.size());
  }

  OrderedJson task_json(const Task& task, const TaskReport& report) const {
    OrderedJson result{{"task", task.name}, {"examples", report.examples}};
    add_average(result, "acc", report.acc);
    if (report.acc_norm) add_average(result, "acc_norm", *report.acc_norm);
    if (report.perplexity) add_average(result, "perplexity", *report.perplexity);
    result["coded_share"] = report.coded_share;
    result["seconds"] = report.seconds;
    if (!examples_) return result;
    result["log_likelihoods"] = OrderedJson::array();
    for (size_t i = 0; i < task.examples.size(); ++i) {
      result["log_likelihoods"].push_back(
          {{"id", task.examples[i].id}, {"sums", report.log_likelihoods[i]}});
    }
    return result;
  }

  void print_as_json(const std::vector<Task>& tasks,
                     const std::vector<std::vector<TaskReport>>& reports) const {
    budgets_.print_reports(reports,
                           [&](const CacheFactory& caches, const std::vector<TaskReport>& of_budget,
                               OrderedJson& result) {
                             result["coded_bits_per_value"] = caches.coded_bits_per_value();
                             result["average_acc"] = average_accuracy(of_budget, false);
                             result["average_acc_norm"] = average_accuracy(of_budget, true);
                             result["tasks"] = OrderedJson::array();
                             for (size_t t = 0; t < tasks.size(); ++t) {
                               result["tasks"].push_back(task_json(tasks[t], of_budget[t]));
                             }
                           });
  }

  void print_as_table(const std::vector<Task>& tasks,
                      const std::vector<std::vector<TaskReport>>& reports) const {
    std::vector<std::vector<std::string>> rows{
        {"task", "budget", "examples", "acc %", "acc_norm %", "perplexity", "seen coded"}};
    for (size_t t = 0; t < tasks.size(); ++t) {
      for (size_t b = 0; b < reports.size(); ++b) {
        const TaskReport& report = reports[b][t];
        rows.push_back({tasks[t].name, budgets_.all()[b].budget, std::to_string(report.examples),
                        percent_text(report.acc),
                        report.acc_norm ? percent_text(*report.acc_norm) : "",
                        report.perplexity ? format("%.3f +/- %.3f", report.perplexity->mean,
                                                   report.perplexity->standard_error)
                                          : "",
                        format("%.1f %%", 100 * report.coded_share)});
      }
    }
    for (size_t b = 0; b < reports.size() && tasks.size() > 1; ++b) {
      rows.push_back({"average", budgets_.all()[b].budget, "",
                      format("%.2f", 100 * average_accuracy(reports[b], false)),
                      format("%.2f", 100 * average_accuracy(reports[b], true)), "", ""});
    }
    print_table(rows);
  }

  BudgetOptions budgets_;
  std::vector<std::string> files_;
  size_t limit_ = 0;
  bool examples_ = false, json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_eval_tasks() { return std::make_unique<EvalTasks>(); }

}  // namespace mkv::cli
