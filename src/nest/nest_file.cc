// The nest folder: matryoshka_kv.safetensors, matryoshka_kv_config.json and a model card
// (docs/formats.md). Everything read is checked before it is believed.
#include <cmath>
#include <cstring>

#include "base/half.h"
#include "base/workers.h"
#include "nest/basis.h"
#include "nest/kv_cache.h"
#include "nest/model_card.h"
#include "nest/nest.h"
#include "store/atomic_file.h"
#include "store/json.h"
#include "store/safetensors.h"

namespace mkv {
namespace {

constexpr size_t kFormatVersion = 1;
constexpr size_t kMaxConfigBytes = size_t{64} << 20;
constexpr char kTensorFile[] = "matryoshka_kv.safetensors";
constexpr char kConfigFile[] = "matryoshka_kv_config.json";
constexpr char kCardFile[] = "README.md";

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

std::string tensor_name(size_t layer, Side side, const std::string& what) {
  return "model.layers." + std::to_string(layer) + ".self_attn." +
         (side == Side::key ? "k_" : "v_") + what;
}

const char* name_of(KeyMean mean) {
  return mean == KeyMean::none ? "none" : mean == KeyMean::plain ? "plain" : "position";
}

// The tensors of a nest, with the storage that they point into.
class TensorWriter {
 public:
  void add_f32(std::string name, std::vector<size_t> shape, const std::vector<float>& values) {
    add(std::move(name), "F32", std::move(shape), bytes_of(values));
  }
  void add_f16(std::string name, std::vector<size_t> shape, const std::vector<float>& values) {
    std::vector<uint16_t> halves;
    halves.reserve(values.size());
    for (const float x : values) halves.push_back(f32_to_f16(x));
    add(std::move(name), "F16", std::move(shape), bytes_of(halves));
  }
  void add(std::string name, std::string dtype, std::vector<size_t> shape,
           std::span<const std::byte> bytes) {
    storage_.emplace_back(bytes.begin(), bytes.end());
    tensors_.push_back({std::move(name), std::move(dtype), std::move(shape), {}});
  }
  Result<void> write(const std::filesystem::path& path) {
    for (size_t i = 0; i < tensors_.size(); ++i) tensors_[i].bytes = storage_[i];
    return write_safetensors(path, tensors_, {{"format", "pt"}});
  }

 private:
  std::vector<std::vector<std::byte>> storage_;
  std::vector<RawTensor> tensors_;
};

void add_slabs(TensorWriter& writer, size_t layer, Side side, size_t group,
               const std::vector<CodeSlab>& slabs) {
  std::vector<float> entries, scales;
  std::vector<uint8_t> columns;
  for (const CodeSlab& slab : slabs) {
    columns.push_back(static_cast<uint8_t>(slab.first_column / kSlabColumns));
    for (size_t c = 0; c < kSlabColumns; ++c) {
      entries.insert(entries.end(), slab.codebook.entry[c],
                     slab.codebook.entry[c] + kCodebookEntries);
      scales.push_back(slab.scale[c]);
    }
  }
  const std::string suffix = "." + std::to_string(group);
  const size_t n = slabs.size();
  writer.add(tensor_name(layer, side, "columns" + suffix), "U8", {n}, bytes_of(columns));
  writer.add_f16(tensor_name(layer, side, "codebooks" + suffix),
                 {n, kSlabColumns, kCodebookEntries}, entries);
  writer.add_f16(tensor_name(layer, side, "scales" + suffix), {n, kSlabColumns}, scales);
}

// Columns whose decode is not encode's transpose.
bool has_oblique_columns(const Nest& nest) {
  if (nest.config().slab_kind != SlabKind::column) return false;
  for (size_t s = 0; s < nest.spaces(); ++s) {
    const Basis& basis = nest.basis(nest.unflat(s));
    for (size_t i = 0; i < nest.dims(); ++i) {
      for (size_t c = 0; c < nest.dims(); ++c) {
        if (basis.encode.at(c, i) != basis.decode.at(i, c)) return true;
      }
    }
  }
  return false;
}

Json config_json(const Nest& nest) {
  const NestConfig& c = nest.config();
  const bool oblique = c.slab_kind == SlabKind::code || has_oblique_columns(nest);
  Json measured = Json::array();
  for (const RungMeasurement& m : nest.measurements()) {
    measured.push_back({{"rung", m.rung},
                        {"bits_per_value", m.bits_per_value},
                        {"kl", m.kl},
                        {"perplexity_increase", m.perplexity_increase}});
  }
  return {{"format", "matryoshka-kv"},
          {"format_version", kFormatVersion},
          {"model_hash", c.model_hash},
          {"num_hidden_layers", c.shape.layers},
          {"num_key_value_heads", c.shape.kv_heads},
          {"head_dim", c.shape.head_dim},
          {"head_order", "hugging_face"},
          {"keys", "after_rope"},
          {"group_size", c.group_size},
          {"slab_kind", c.slab_kind == SlabKind::column ? "column" : "code"},
          {"basis", oblique ? "oblique" : "orthogonal"},
          {"key_mean", name_of(c.key_mean)},
          {"sinks", c.sinks},
          {"recent", c.recent},
          {"later_sinks", c.later_sinks},
          {"ladder_step", nest.ladder().step},
          {"measurements", measured},
          {"origin", c.origin}};
}

// Reading: every getter names the tensor and the shapes that disagree.
class TensorReader {
 public:
  explicit TensorReader(const SafetensorsFile& file) : file_(file) {}

  Result<const RawTensor*> get(const std::string& name, std::string_view dtype,
                               const std::vector<size_t>& shape) const {
    const RawTensor* tensor = file_.find_raw(name);
    if (tensor == nullptr) {
      return make_error(ErrorCode::corrupt, file_.path() + ": tensor " + name + " is missing");
    }
    if (tensor->dtype != dtype || tensor->shape != shape) {
      return make_error(ErrorCode::corrupt, file_.path() + ": tensor " + name + ": expected " +
                                                std::string(dtype) + " " + text(shape) +
                                                ", found " + tensor->dtype + " " +
                                                text(tensor->shape));
    }
    return tensor;
  }
  Result<std::vector<float>> floats(const std::string& name, std::string_view dtype,
                                    const std::vector<size_t>& shape) const {
    MKV_ASSIGN(const RawTensor* tensor, get(name, dtype, shape));
    const size_t size = dtype == "F32" ? 4 : 2, count = tensor->bytes.size() / size;
    std::vector<float> values(count);
    for (size_t i = 0; i < count; ++i) {
      if (size == 4) {
        std::memcpy(&values[i], tensor->bytes.data() + 4 * i, 4);
      } else {
        uint16_t half = 0;
        std::memcpy(&half, tensor->bytes.data() + 2 * i, 2);
        values[i] = f16_to_f32(half);
      }
      if (!std::isfinite(values[i])) {
        return make_error(ErrorCode::corrupt, file_.path() + ": tensor " + name + ": element " +
                                                  std::to_string(i) + " is not finite");
      }
    }
    return values;
  }
  // The length of a one-dimensional tensor, which its content decides.
  Result<size_t> length(const std::string& name, size_t most) const {
    const RawTensor* tensor = file_.find_raw(name);
    if (tensor == nullptr || tensor->shape.size() != 1 || tensor->shape[0] > most) {
      return make_error(ErrorCode::corrupt, file_.path() + ": tensor " + name +
                                                ": expected at most " + std::to_string(most) +
                                                " elements, found " +
                                                (tensor == nullptr ? "none" : text(tensor->shape)));
    }
    return tensor->shape[0];
  }

 private:
  static std::string text(const std::vector<size_t>& shape) {
    std::string out = "[";
    for (size_t i = 0; i < shape.size(); ++i) {
      out += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
    }
    return out + "]";
  }
  const SafetensorsFile& file_;
};

Result<NestConfig> config_from(const Json& json) {
  MKV_ASSIGN(const size_t version, get_size(json, "format_version"));
  if (version != kFormatVersion) {
    return make_error(ErrorCode::unsupported, "format_version " + std::to_string(version) +
                                                  ", this program reads " +
                                                  std::to_string(kFormatVersion));
  }
  NestConfig c;
  MKV_ASSIGN(c.model_hash, get_string(json, "model_hash"));
  MKV_ASSIGN(c.shape.layers, get_size(json, "num_hidden_layers"));
  MKV_ASSIGN(c.shape.kv_heads, get_size(json, "num_key_value_heads"));
  MKV_ASSIGN(c.shape.head_dim, get_size(json, "head_dim"));
  MKV_ASSIGN(c.group_size, get_size(json, "group_size"));
  MKV_ASSIGN(c.sinks, get_size(json, "sinks"));
  MKV_ASSIGN(c.recent, get_size(json, "recent"));
  const bool told = json.contains("later_sinks");  // older nests do not
  MKV_ASSIGN(c.later_sinks, told ? get_size(json, "later_sinks") : Result<size_t>(0));
  MKV_ASSIGN(const std::string kind, get_string(json, "slab_kind"));
  MKV_ASSIGN(const std::string mean, get_string(json, "key_mean"));
  const auto unknown = [](const std::string& key, const std::string& value) {
    return make_error(ErrorCode::unsupported, key + " '" + value + "' is not known");
  };
  if (kind != "column" && kind != "code") return unknown("slab_kind", kind);
  c.slab_kind = kind == "column" ? SlabKind::column : SlabKind::code;
  if (mean != "none" && mean != "plain" && mean != "position") return unknown("key_mean", mean);
  c.key_mean = mean == "none"    ? KeyMean::none
               : mean == "plain" ? KeyMean::plain
                                 : KeyMean::position;
  MKV_ASSIGN(const Json* origin, get_object(json, "origin"));
  for (const auto& [key, value] : origin->items()) {
    if (value.is_string()) c.origin[key] = value.get_ref<const std::string&>();
  }
  return c;
}

Result<bool> read_oblique(const Json& json, SlabKind kind) {
  MKV_ASSIGN(const std::string basis, get_string(json, "basis"));
  if (basis != "orthogonal" && basis != "oblique") {
    return make_error(ErrorCode::unsupported, "basis '" + basis + "' is not known");
  }
  return kind == SlabKind::code || basis == "oblique";
}

Result<void> read_measurements(const Json& json, Nest& nest) {
  MKV_ASSIGN(const Json* measured, get_array(json, "measurements"));
  for (const Json& entry : *measured) {
    RungMeasurement m;
    MKV_ASSIGN(m.rung, get_size(entry, "rung"));
    MKV_ASSIGN(m.bits_per_value, get_double(entry, "bits_per_value"));
    MKV_ASSIGN(m.kl, get_double(entry, "kl"));
    MKV_ASSIGN(m.perplexity_increase, get_double(entry, "perplexity_increase"));
    if (m.rung >= nest.ladder().rungs()) {
      return make_error(ErrorCode::corrupt, "a measurement of rung " + std::to_string(m.rung) +
                                                ", the ladder has " +
                                                std::to_string(nest.ladder().rungs()));
    }
    nest.measurements().push_back(m);
  }
  return {};
}

Result<void> read_slabs(const TensorReader& reader, const NestConfig& config, GroupId id,
                        Basis& basis) {
  const std::string suffix = "." + std::to_string(id.group);
  const size_t dims = config.group_size * config.shape.head_dim;
  const std::string columns_name = tensor_name(id.layer, id.side, "columns" + suffix);
  MKV_ASSIGN(const size_t n, reader.length(columns_name, size_t{64} * dims));
  MKV_ASSIGN(const RawTensor* columns, reader.get(columns_name, "U8", {n}));
  MKV_ASSIGN(const std::vector<float> entries,
             reader.floats(tensor_name(id.layer, id.side, "codebooks" + suffix), "F16",
                           {n, kSlabColumns, kCodebookEntries}));
  MKV_ASSIGN(
      const std::vector<float> scales,
      reader.floats(tensor_name(id.layer, id.side, "scales" + suffix), "F16", {n, kSlabColumns}));
  basis.slabs.resize(n);
  std::vector<size_t> on_columns(dims / kSlabColumns);
  for (size_t s = 0; s < n; ++s) {
    CodeSlab& slab = basis.slabs[s];
    const size_t first = static_cast<size_t>(columns->bytes[s]) * kSlabColumns;
    if (first + kSlabColumns > dims) {
      return make_error(ErrorCode::corrupt, "tensor " + columns_name + ": slab " +
                                                std::to_string(s) + " begins at column " +
                                                std::to_string(first) + " of " +
                                                std::to_string(dims));
    }
    if (++on_columns[first / kSlabColumns] > kMostSlabsPerColumn) {
      return make_error(ErrorCode::corrupt, "tensor " + columns_name + ": more than " +
                                                std::to_string(kMostSlabsPerColumn) +
                                                " slabs begin at column " + std::to_string(first));
    }
    slab.first_column = static_cast<uint16_t>(first);
    const float* from = entries.data() + s * kSlabColumns * kCodebookEntries;
    std::memcpy(slab.codebook.entry, from, sizeof(slab.codebook.entry));
    std::copy_n(scales.data() + s * kSlabColumns, kSlabColumns, slab.scale);
  }
  return {};
}

Result<void> read_layer_side(const TensorReader& reader, size_t layer, Side side, bool oblique,
                             Nest& nest) {
  const bool columns = nest.config().slab_kind == SlabKind::column;
  const size_t dims = nest.dims(), groups = nest.groups();
  MKV_ASSIGN(const std::vector<float> decode,
             reader.floats(tensor_name(layer, side, "projection"), columns ? "F32" : "F16",
                           {groups, dims, dims}));
  MKV_ASSIGN(const std::vector<float> mean,
             reader.floats(tensor_name(layer, side, "mean"), "F32", {groups, dims}));
  for (size_t g = 0; g < groups; ++g) {
    const GroupId id{layer, g, side};
    Basis& basis = nest.basis(id);
    std::copy_n(decode.data() + g * dims * dims, dims * dims, basis.decode.data());
    std::copy_n(mean.data() + g * dims, dims, basis.mean.data());
    if (oblique) {
      MKV_TRY(invert(basis.decode, basis.encode));
    } else {
      for (size_t i = 0; i < dims; ++i) {
        for (size_t c = 0; c < dims; ++c) basis.encode.at(c, i) = basis.decode.at(i, c);
      }
    }
    if (!columns) MKV_TRY(read_slabs(reader, nest.config(), id, basis));
  }
  return {};
}

Result<Ladder> read_ladder(const TensorReader& reader, const Json& json, const Nest& nest) {
  Ladder ladder;
  MKV_ASSIGN(ladder.step, get_size(json, "ladder_step"));
  size_t slabs = 0;
  for (const uint16_t rank : nest.full_ranks()) slabs += rank;
  MKV_ASSIGN(const size_t n, reader.length("ladder", slabs));
  MKV_ASSIGN(const RawTensor* cuts, reader.get("ladder", "I32", {n}));
  ladder.cuts.resize(n);
  if (n != 0) std::memcpy(ladder.cuts.data(), cuts->bytes.data(), n * sizeof(uint32_t));
  return ladder;
}

Result<void> write_text(const std::filesystem::path& path, std::string_view text) {
  return write_file_atomically(path, std::as_bytes(std::span(text)));
}

}  // namespace

Result<void> Nest::save(const std::filesystem::path& folder) const {
  TensorWriter writer;
  const size_t n = dims();
  MKV_CHECK(!is_compact(bases_.front()));
  for (size_t layer = 0; layer < config_.shape.layers; ++layer) {
    for (const Side side : {Side::key, Side::value}) {
      std::vector<float> decode, mean;
      for (size_t g = 0; g < groups(); ++g) {
        const Basis& b = basis({layer, g, side});
        decode.insert(decode.end(), b.decode.span().begin(), b.decode.span().end());
        mean.insert(mean.end(), b.mean.begin(), b.mean.end());
        if (config_.slab_kind == SlabKind::code) add_slabs(writer, layer, side, g, b.slabs);
      }
      const std::string name = tensor_name(layer, side, "projection");
      if (config_.slab_kind == SlabKind::column)
        writer.add_f32(name, {groups(), n, n}, decode);
      else
        writer.add_f16(name, {groups(), n, n}, decode);
      writer.add_f32(tensor_name(layer, side, "mean"), {groups(), n}, mean);
    }
  }
  writer.add("ladder", "I32", {ladder_.cuts.size()}, bytes_of(ladder_.cuts));
  MKV_ASSIGN(AtomicFolder out, AtomicFolder::create(folder, kTensorFile));
  MKV_TRY(writer.write(out.path() / kTensorFile));
  MKV_ASSIGN(const std::string config, dump_json(config_json(*this), 1));
  MKV_TRY(write_text(out.path() / kConfigFile, config + "\n"));
  MKV_TRY(write_text(out.path() / kCardFile, model_card(*this)));
  return out.commit();
}

Result<Nest> Nest::load(const std::filesystem::path& folder) {
  const std::string config_path = (folder / kConfigFile).string();
  MKV_ASSIGN(const Json json, read_json_file(config_path, kMaxConfigBytes));
  auto config = config_from(json);
  if (!config) return in_context(config_path, std::move(config).error());
  MKV_ASSIGN(const SafetensorsFile file, SafetensorsFile::open(folder / kTensorFile));
  // A hostile shape must not allocate before the tensors that it promises are seen to be there.
  const KvShape& shape = config->shape;
  if (shape.values_per_token() / 2 * config->group_size * shape.head_dim > (size_t{1} << 32)) {
    return make_error(ErrorCode::corrupt, config_path + ": a shape of " +
                                              std::to_string(shape.layers) + " layers x " +
                                              std::to_string(shape.kv_heads) + " KV heads x " +
                                              std::to_string(shape.head_dim) + " is out of range");
  }
  const TensorReader reader(file);
  MKV_TRY(reader.get(tensor_name(shape.layers - 1, Side::value, "mean"), "F32",
                     {config->group_size == 0 ? 0 : shape.kv_heads / config->group_size,
                      config->group_size * shape.head_dim}));
  auto nest = create(std::move(*config));
  if (!nest) return in_context(config_path, std::move(nest).error());
  const auto fill = [&]() -> Result<void> {
    MKV_ASSIGN(const bool oblique, read_oblique(json, nest->config().slab_kind));
    std::vector<Result<void>> read(2 * nest->config().shape.layers);
    Workers workers;  // most of the time goes into inverses of bases
    workers.run(read.size(), [&](size_t i, size_t) {
      read[i] = read_layer_side(reader, i / 2, static_cast<Side>(i % 2), oblique, *nest);
    });
    for (Result<void>& each : read) MKV_TRY(std::move(each));
    MKV_ASSIGN(Ladder ladder, read_ladder(reader, json, *nest));
    MKV_TRY(nest->set_ladder(std::move(ladder)));
    return read_measurements(json, *nest);
  };
  if (auto filled = fill(); !filled) return in_context(folder.string(), std::move(filled).error());
  return nest;
}

}  // namespace mkv
