// matryoshka bench: speed of reading a prompt and of decoding, at several depths, alone or side by
// side with a peer.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "cli/bench_peer.h"
#include "cli/command.h"
#include "cli/options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "eval/speed.h"

namespace mkv::cli {
namespace {

OrderedJson samples_json(const Samples& samples, const std::string& name) {
  return OrderedJson{
      {name, samples.median()}, {name + "_min", samples.min()}, {name + "_max", samples.max()}};
}

void add_samples(OrderedJson& to, const Samples& prefill, const Samples& decode) {
  to.update(samples_json(prefill, "prefill_tokens_per_s"));
  to.update(samples_json(decode, "decode_tokens_per_s"));
}

std::string samples_text(const Samples& samples) {
  return format("%.1f (%.1f-%.1f)", samples.median(), samples.min(), samples.max());
}

class Bench : public Command {
 public:
  CLI::App* declare(CLI::App& parent) override {
    CLI::App* app = parent.add_subcommand("bench", "Measure speed and memory");
    model_.declare(*app);
    cache_.declare(*app);
    add_count(*app, "--prefill", lengths_.prefill, "Tokens of prompt that are timed")
        ->check(CLI::Range(1, 1 << 20));
    add_count(*app, "--decode", lengths_.decode, "Tokens that are decoded one by one")
        ->check(CLI::Range(1, 1 << 20));
    add_counts(*app, "--depths", depths_, "Tokens in the cache before, e.g. 0,4096");
    add_count(*app, "--repetitions", repetitions_, "Of each figure, by turns")
        ->check(CLI::Range(1, 1000));
    CLI::Option* against = app->add_option(
        "--against", against_, "Folders with the llama-bench of a peer each, run by turns");
    app->add_option("--against-kv", against_kv_, "Types of the peer's cache: f16, q8_0, q4_0")
        ->delimiter(',')
        ->check(CLI::IsMember({"f16", "q8_0", "q4_0"}))
        ->capture_default_str()
        ->needs(against);
    app->add_option("--against-flash", against_flash_,
                    "The peer's flash attention: on, off (with f16 only)")
        ->delimiter(',')
        ->check(CLI::IsMember({"on", "off"}))
        ->capture_default_str()
        ->needs(against);
    declare_json(*app, json_);
    app->footer(
        "Example:\n  matryoshka bench model.gguf --nest nest --budget 2bits --prefill 512 \\\n"
        "      --decode 64 --depths 0,4096,7680 --threads 2 --json");
    return app;
  }

  Result<void> run() override {
    MKV_ASSIGN(const std::unique_ptr<Engine> engine, open_engine(model_, cache_));
    MKV_TRY(check(engine->model));
    MKV_ASSIGN(const std::vector<PeerMode> modes, peer_modes());
    for (const size_t depth : depths_) {
      DepthSpeed speed;
      speed.depth = depth;
      ours_.push_back(std::move(speed));
      std::vector<PeerSpeed> speeds;
      for (const PeerMode& mode : modes) speeds.push_back({mode, depth, {}, {}});
      peers_.push_back(std::move(speeds));
    }
    MKV_TRY(repeat(*engine));
    weight_bytes_ = engine->model.weight_bytes_of_token();
    read_bandwidth_ = read_bandwidth(*engine->workers);
    if (json_) {
      print_as_json();
    } else {
      print_as_table();
    }
    return {};
  }

 private:
  Result<void> check(const Model& model) const {
    const size_t most = model.config().max_position_embeddings;
    for (const size_t depth : depths_) {
      const size_t needed = depth + std::max(lengths_.prefill, lengths_.decode);
      if (needed <= most) continue;
      return make_error(ErrorCode::invalid_argument,
                        "--depths " + std::to_string(depth) + ": needs a context of " +
                            std::to_string(needed) + ", the model's limit is " +
                            std::to_string(most));
    }
    if (!against_.empty() && !std::filesystem::is_regular_file(model_.model)) {
      return make_error(ErrorCode::invalid_argument,
                        "--against: needs a GGUF file, " + model_.model + " is none");
    }
    return {};
  }

  // Without flash attention a peer refuses quantised values.
  Result<std::vector<PeerMode>> peer_modes() const {
    std::vector<PeerMode> modes;
    for (const std::string& folder : against_) {
      for (const std::string& type : against_kv_) {
        for (const std::string& flash : against_flash_) {
          if (flash == "on" || type == "f16") modes.push_back({folder, type, flash == "on"});
        }
      }
    }
    if (modes.empty() && !against_.empty()) {
      return make_error(ErrorCode::invalid_argument,
                        "--against-flash off: goes with --against-kv f16 alone");
    }
    return modes;
  }

  // One repetition of everything after the other, so that what disturbs the machine disturbs all;
  // before them one that warms up and is not counted.
  Result<void> repeat(const Engine& engine) {
    ProgressBar bar;
    SpeedTest test(
        engine.model, [&](size_t capacity) { return engine.make_cache(capacity); }, lengths_,
        *engine.workers);
    DepthSpeed warm_up;
    MKV_TRY(test.repeat(warm_up));
    const size_t total = repetitions_ * depths_.size();
    for (size_t r = 0; r < repetitions_; ++r) {
      for (size_t d = 0; d < depths_.size(); ++d) {
        bar.update({"bench", r * depths_.size() + d, total, {}});
        MKV_TRY(test.repeat(ours_[d]));
        for (PeerSpeed& peer : peers_[d]) {
          MKV_TRY(measure_peer({model_.model, engine.workers->count(), lengths_}, peer));
        }
      }
    }
    bar.update({"bench", total, total, {}});
    bar.finish();
    return {};
  }

  // What decoding reads: its weights, and the cache at this depth.
  double decode_bytes_per_s(const DepthSpeed& speed) const {
    return static_cast<double>(weight_bytes_ + speed.kv_bytes) * speed.decode.median();
  }

  void print_as_json() const {
    OrderedJson list = OrderedJson::array();
    for (size_t d = 0; d < ours_.size(); ++d) {
      const DepthSpeed& speed = ours_[d];
      OrderedJson entry{{"depth", speed.depth}, {"budget", cache_.name()}};
      add_samples(entry, speed.prefill, speed.decode);
      entry["kv_bytes"] = speed.kv_bytes;
      entry["peak_rss_bytes"] = speed.peak_rss_bytes;
      entry["output_hash"] = speed.output_hash;
      entry["decode_gb_per_s"] = decode_bytes_per_s(speed) * 1e-9;
      entry["read_peak_gb_per_s"] = read_bandwidth_ * 1e-9;
      if (!against_.empty()) {
        entry["against"] = OrderedJson::array();
        for (const PeerSpeed& peer : peers_[d]) entry["against"].push_back(peer_json(peer, speed));
      }
      list.push_back(std::move(entry));
    }
    print_json(list);
  }

  static OrderedJson peer_json(const PeerSpeed& peer, const DepthSpeed& speed) {
    OrderedJson json{{"peer", peer.mode.folder.string()},
                     {"kv_type", peer.mode.kv_type},
                     {"flash_attention", peer.mode.flash_attention}};
    add_samples(json, peer.prefill, peer.decode);
    json["prefill_ratio"] = speed.prefill.median() / peer.prefill.median();
    json["decode_ratio"] = speed.decode.median() / peer.decode.median();
    return json;
  }

  // With the place of its folder among those given, where there are several.
  std::string peer_name(const PeerMode& mode) const {
    const auto place = std::ranges::find(against_, mode.folder.string()) - against_.begin();
    return "  peer " + (against_.size() > 1 ? std::to_string(place + 1) + " " : std::string()) +
           mode.kv_type + (mode.flash_attention ? "" : ", no flash");
  }

  void print_as_table() const {
    std::printf("%s, prefill %zu, decode %zu, budget %s; medians (least-most) of %zu\n",
                model_.model.c_str(), lengths_.prefill, lengths_.decode, cache_.name().c_str(),
                repetitions_);
    std::printf("memory reads at most %.1f GB/s\n\n", read_bandwidth_ * 1e-9);
    std::vector<std::vector<std::string>> rows{
        {"depth", "prefill tokens/s", "decode tokens/s", "GB/s", "KV cache", "peak RSS", "output"}};
    for (size_t d = 0; d < ours_.size(); ++d) {
      const DepthSpeed& speed = ours_[d];
      rows.push_back({std::to_string(speed.depth), samples_text(speed.prefill),
                      samples_text(speed.decode), format("%.1f", decode_bytes_per_s(speed) * 1e-9),
                      byte_text(static_cast<double>(speed.kv_bytes)),
                      byte_text(static_cast<double>(speed.peak_rss_bytes)), speed.output_hash});
      for (const PeerSpeed& peer : peers_[d]) {
        rows.push_back(
            {peer_name(peer.mode), samples_text(peer.prefill), samples_text(peer.decode)});
        rows.push_back({"  ratio", format("%.2f x", speed.prefill.median() / peer.prefill.median()),
                        format("%.2f x", speed.decode.median() / peer.decode.median())});
      }
    }
    print_table(rows);
  }

  ModelOptions model_;
  CacheOptions cache_;
  BenchLengths lengths_;
  std::vector<size_t> depths_{0};
  size_t repetitions_ = 5;
  std::vector<std::string> against_, against_kv_{"f16"}, against_flash_{"on"};
  bool json_ = false;

  std::vector<DepthSpeed> ours_;               // by depth
  std::vector<std::vector<PeerSpeed>> peers_;  // by depth, then by mode
  size_t weight_bytes_ = 0;
  double read_bandwidth_ = 0;  // bytes/s
};

}  // namespace

std::unique_ptr<Command> make_bench() { return std::make_unique<Bench>(); }

}  // namespace mkv::cli
