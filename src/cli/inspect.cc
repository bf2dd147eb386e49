// matryoshka inspect: what a model or a nest is made of.
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <map>

#include "cli/command.h"
#include "cli/inspect_nest.h"
#include "cli/options.h"
#include "cli/output.h"
#include "store/gguf.h"
#include "store/safetensors.h"

namespace mkv::cli {
namespace {

struct TypeTotal {
  size_t tensors = 0, elements = 0, bytes = 0;
};

Result<std::map<std::string, TypeTotal>> tensor_types(const std::string& path) {
  std::map<std::string, TypeTotal> totals;
  const auto count = [&](const TensorTable& table) {
    for (const TensorView& tensor : table) {
      TypeTotal& total = totals[std::string(info(tensor.type).name)];
      size_t elements = 1;
      for (const size_t extent : tensor.shape) elements *= extent;
      total.tensors += 1;
      total.elements += elements;
      total.bytes += tensor.size_bytes;
    }
  };
  if (std::filesystem::is_directory(path)) {
    MKV_ASSIGN(const SafetensorsFolder file, SafetensorsFolder::open(path));
    count(file.tensors());
  } else {
    MKV_ASSIGN(const GgufFile file, GgufFile::open(path));
    count(file.tensors());
  }
  return totals;
}

class Inspect : public Command {
 public:
  CLI::App* declare(CLI::App& parent) override {
    CLI::App* app = parent.add_subcommand("inspect", "Show what a model or a nest is made of");
    app->add_option("PATH", path_, "Model (GGUF file, Hugging Face folder) or nest folder")
        ->required();
    declare_json(*app, json_);
    app->footer("Example:\n  matryoshka inspect model.gguf\n  matryoshka inspect nest --json");
    return app;
  }

  Result<void> run() override {
    if (is_nest(path_)) {
      MKV_ASSIGN(const Nest nest, Nest::load(path_));
      return json_ ? print_nest_json(nest) : print_nest_text(nest);
    }
    MKV_ASSIGN(const Model model, Model::load(path_));
    MKV_ASSIGN(const auto types, tensor_types(path_));
    if (json_) {
      print_model_json(model, types);
    } else {
      print_model_text(model, types);
    }
    return {};
  }

 private:
  struct Sliding {
    size_t layers = 0, window = 0;
  };
  static Sliding sliding_layers(const ModelConfig& config) {
    Sliding found;
    for (size_t l = 0; l < config.num_layers; ++l) {
      const size_t window = config.layer_types.of(l).window;
      if (window != kWholeContext) found = {found.layers + 1, window};
    }
    return found;
  }

  static void print_model_json(const Model& model, const std::map<std::string, TypeTotal>& types) {
    const ModelConfig& config = model.config();
    OrderedJson result{{"kind", "model"},
                       {"architecture", config.architecture},
                       {"name", config.name},
                       {"parameters", model.parameters()},
                       {"weight_bytes", model.weight_bytes()},
                       {"vocab_size", config.vocab_size},
                       {"hidden_size", config.hidden_size},
                       {"intermediate_size", config.intermediate_size},
                       {"num_layers", config.num_layers},
                       {"num_heads", config.num_heads},
                       {"num_kv_heads", config.num_kv_heads},
                       {"head_dim", config.head_dim},
                       {"max_position_embeddings", config.max_position_embeddings},
                       {"kv_bytes_per_token", 2 * config.kv_shape().values_per_token()},
                       {"sliding_layers", sliding_layers(config).layers},
                       {"sliding_window", sliding_layers(config).window},
                       {"has_chat_template", model.chat_template().has_value()},
                       {"weights_hash", model.weights_hash()}};
    for (const auto& [type, total] : types) {
      result["tensors"][type] = OrderedJson{
          {"count", total.tensors}, {"elements", total.elements}, {"bytes", total.bytes}};
    }
    print_json(result);
  }

  static void print_model_text(const Model& model, const std::map<std::string, TypeTotal>& types) {
    const ModelConfig& config = model.config();
    const auto kv_bytes = static_cast<double>(2 * config.kv_shape().values_per_token());
    std::printf("%s (%s), %.1f M parameters, %s of weights\n", config.name.c_str(),
                config.architecture.c_str(), static_cast<double>(model.parameters()) / 1e6,
                byte_text(static_cast<double>(model.weight_bytes())).c_str());
    std::printf("%zu layers, hidden %zu, feed-forward %zu, vocabulary %zu, context %zu\n",
                config.num_layers, config.hidden_size, config.intermediate_size, config.vocab_size,
                config.max_position_embeddings);
    std::printf("%zu query heads, %zu KV heads of %zu; KV cache at 16 bits: %s a token\n",
                config.num_heads, config.num_kv_heads, config.head_dim,
                byte_text(kv_bytes).c_str());
    if (const auto [layers, window] = sliding_layers(config); layers > 0) {
      std::printf("%zu layers see the last %zu tokens alone\n", layers, window);
    }
    std::printf("chat template: %s\nweights hash: %s\n\n", model.chat_template() ? "yes" : "no",
                model.weights_hash().c_str());
    std::vector<std::vector<std::string>> rows{{"type", "tensors", "elements", "bytes"}};
    for (const auto& [type, total] : types) {
      rows.push_back({type, std::to_string(total.tensors), std::to_string(total.elements),
                      byte_text(static_cast<double>(total.bytes))});
    }
    print_table(rows);
  }

  std::string path_;
  bool json_ = false;
};

}  // namespace

std::unique_ptr<Command> make_inspect() { return std::make_unique<Inspect>(); }

}  // namespace mkv::cli
