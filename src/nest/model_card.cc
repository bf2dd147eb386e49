#include "nest/model_card.h"

#include <cstdio>

namespace mkv {
namespace {

std::string number(const char* format, double value) {
  char text[64];
  std::snprintf(text, sizeof(text), format, value);
  return text;
}

// Origin values come from outside: on one line, as a quoted YAML scalar where they are needed.
std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
  }
  return out + "\"";
}

}  // namespace

std::string model_card(const Nest& nest) {
  const NestConfig& c = nest.config();
  const auto name = c.origin.find("model");
  const std::string model = name == c.origin.end() ? "unknown" : name->second;
  std::string card = "---\nbase_model: " + quoted(model) +
                     "\nbase_model_relation: adapter\nlibrary_name: matryoshka-kv\n"
                     "pipeline_tag: text-generation\ntags:\n- kv-cache\n- compression\n---\n\n";
  card += "# Nested KV cache for " + model + "\n\n";
  card +=
      "Bases" + std::string(c.slab_kind == SlabKind::code ? ", codebooks" : "") +
      " and a ladder of budgets for the KV cache of one model, whose weights have the SHA-256 `" +
      c.model_hash + "`.\n\n";
  card += "- Shape: " + std::to_string(c.shape.layers) + " layers x " +
          std::to_string(c.shape.kv_heads) + " KV heads x " + std::to_string(c.shape.head_dim) +
          "; " + std::to_string(c.group_size) + " KV heads share a basis\n";
  card += "- Exact: the first " + std::to_string(c.sinks) + " tokens and the last " +
          std::to_string(c.recent) + " at most" +
          (c.later_sinks == 0 ? std::string()
                              : ", and up to " + std::to_string(c.later_sinks) +
                                    " later tokens a layer that it uses as sinks") +
          "\n";
  card += "- Largest |encode decode - I|: " + number("%.1e", nest.orthogonality_error()) + "\n";
  for (const auto& [key, value] : c.origin) card += "- " + key + ": " + quoted(value) + "\n";
  if (nest.measurements().empty()) return card;
  card += "\n| rung | coded bits a value | KL divergence | perplexity |\n|---:|---:|---:|---:|\n";
  for (const RungMeasurement& m : nest.measurements()) {
    card += "| " + std::to_string(m.rung) + " | " + number("%.3f", m.bits_per_value) + " | " +
            number("%.5f", m.kl) + " | " + number("%+.2f %%", 100.0 * m.perplexity_increase) +
            " |\n";
  }
  return card;
}

}  // namespace mkv
