#include "model/export.h"

#include <algorithm>
#include <map>
#include <string>
#include <vector>

#include "base/buffer.h"
#include "model/weights.h"
#include "ops/ops.h"
#include "ops/quantize.h"
#include "store/atomic_file.h"
#include "store/gguf_writer.h"
#include "store/message.h"
#include "store/safetensors.h"

namespace mkv {
namespace {

namespace fs = std::filesystem;

// What general.file_type calls a file that is mostly of this type; GGML_FTYPE.
uint32_t file_type(DType type) {
  switch (type) {
    case DType::f32:
      return 0;
    case DType::q8_0:
      return 7;
    case DType::bf16:
      return 32;
    default:
      return 1;
  }
}

struct Changed {
  DType type;
  Buffer<std::byte> bytes;
};

const Weight& weight_of(const LayerWeights& layer, Projection projection) {
  const Weight* const all[kProjections] = {&layer.query, &layer.key, &layer.value, &layer.output,
                                           &layer.gate,  &layer.up,  &layer.down};
  return *all[static_cast<size_t>(projection)];
}

std::string tensor_name(const TensorNames& names, const WeightChange& change) {
  const std::string_view roles[kProjections] = {
      names.query, names.key, names.value, names.attention_output,
      names.gate,  names.up,  names.down};
  return concat(names.layer_prefix, change.layer, ".",
                roles[static_cast<size_t>(change.projection)], ".weight");
}

Result<void> check_change(const WeightChange& change, const Weight& weight,
                          const std::string& name) {
  if (change.up.rows() == weight.rows && change.down.cols() == weight.cols &&
      change.up.cols() == change.down.rows()) {
    return {};
  }
  return make_error(ErrorCode::invalid_argument,
                    concat("tensor ", name, " is ", weight.rows, " x ", weight.cols,
                           ", its change ", change.up.rows(), " x ", change.down.cols()));
}

// Where Hugging Face's order has row r of a matrix whose heads are interleaved (head_order.h).
size_t separate_row(size_t r, size_t head_dim) {
  const size_t i = r % head_dim;
  return r - i + (i % 2 == 0 ? i / 2 : head_dim / 2 + i / 2);
}

Changed apply(const WeightChange& change, const Weight& weight, size_t interleaved_head_dim,
              DType type) {
  const size_t stride = row_bytes(type, weight.cols);
  Changed out{type, Buffer<std::byte>(weight.rows * stride)};
  std::vector<float> row(weight.cols);
  for (size_t r = 0; r < weight.rows; ++r) {
    dequantize_row(weight, r, row);
    const size_t there = interleaved_head_dim == 0 ? r : separate_row(r, interleaved_head_dim);
    const std::span<const float> up = change.up.row(there);
    for (size_t k = 0; k < up.size(); ++k) {
      const float factor = change.scale * up[k];
      const std::span<const float> down = change.down.row(k);
      for (size_t c = 0; c < row.size(); ++c) row[c] += factor * down[c];
    }
    quantize_row(row, type, out.bytes.span().subspan(r * stride, stride));
  }
  return out;
}

// By tensor. The default type is `fallback`, or the tensor's own.
Result<std::map<std::string, Changed, std::less<>>> apply_all(const Model& model,
                                                              const WeightChanges& changes,
                                                              const TensorNames& names,
                                                              std::optional<DType> type) {
  std::map<std::string, Changed, std::less<>> out;
  for (const WeightChange& change : changes) {
    const std::string name = tensor_name(names, change);
    if (change.layer >= model.config().num_layers) {
      return make_error(ErrorCode::invalid_argument, concat("tensor ", name, ": the model has ",
                                                            model.config().num_layers, " layers"));
    }
    const Weight& weight = weight_of(model.weights().layers[change.layer], change.projection);
    MKV_TRY(check_change(change, weight, name));
    const DType to = type.value_or(weight.type);
    if (!can_quantize(to) || weight.cols % info(to).block_elements != 0) {
      return make_error(ErrorCode::unsupported,
                        concat("tensor ", name, " of ", weight.cols,
                               " columns cannot be written as ", info(to).name));
    }
    const bool turned = model.interleaved_qk() && (change.projection == Projection::query ||
                                                   change.projection == Projection::key);
    out.insert_or_assign(name, apply(change, weight, turned ? model.config().head_dim : 0, to));
  }
  return out;
}

Result<void> export_gguf(const Model& model, const fs::path& source, const WeightChanges& changes,
                         DType type, const fs::path& target) {
  MKV_ASSIGN(const GgufFile file, GgufFile::open(source));
  if (!file.tensors().complete()) {
    return make_error(ErrorCode::unsupported,
                      source.string() + ": has tensors of types that cannot be copied");
  }
  MKV_ASSIGN(const auto changed, apply_all(model, changes, kGgufNames, type));
  std::vector<TensorView> tensors;
  for (const TensorView& tensor : file.tensors()) {
    tensors.push_back(tensor);
    const auto found = changed.find(tensor.name);
    if (found == changed.end()) continue;
    tensors.back().type = found->second.type;
    tensors.back().data = found->second.bytes.data();
    tensors.back().size_bytes = found->second.bytes.size();
  }
  std::map<std::string, uint32_t> numbers;
  if (!changed.empty()) numbers["general.file_type"] = file_type(type);
  return write_gguf(target, file.metadata(), numbers, tensors);
}

// Everything of a model folder but its weights.
Result<void> copy_rest(const fs::path& source, const fs::path& target) {
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(source, error)) {
    const std::string name = entry.path().filename().string();
    const std::string ending = entry.path().extension().string();
    if (!entry.is_regular_file(error) || ending == ".safetensors" || ending == ".bin" ||
        ending == ".gguf" || ending == ".pth" || name.ends_with(".index.json")) {
      continue;
    }
    fs::copy_file(entry.path(), target / name, error);
    if (error) return os_error(target / name, "copy", error.value());
  }
  if (error) return os_error(source, "read", error.value());
  return {};
}

Result<void> export_folder(const Model& model, const fs::path& source, const WeightChanges& changes,
                           std::optional<DType> type, const fs::path& target) {
  if (type == DType::q8_0) {
    return make_error(ErrorCode::unsupported,
                      "safetensors have no Q8_0; F32, F16 or BF16 can be "
                      "written");
  }
  MKV_ASSIGN(const SafetensorsFolder folder, SafetensorsFolder::open(source));
  MKV_ASSIGN(const auto changed, apply_all(model, changes, kHuggingFaceNames, type));
  std::vector<RawTensor> tensors;
  for (const SafetensorsFile& file : folder.files()) {
    for (const RawTensor& tensor : file.raw_tensors()) {
      tensors.push_back(tensor);
      const auto found = changed.find(tensor.name);
      if (found == changed.end()) continue;
      tensors.back().dtype = info(found->second.type).name;
      tensors.back().bytes = found->second.bytes.span();
    }
  }
  MKV_ASSIGN(AtomicFolder out, AtomicFolder::create(target, "config.json"));
  MKV_TRY(copy_rest(source, out.path()));
  MKV_TRY(write_safetensors(out.path() / "model.safetensors", tensors, {{"format", "pt"}}));
  return out.commit();
}

}  // namespace

Result<void> export_model(const Model& model, const fs::path& source, const WeightChanges& changes,
                          std::optional<DType> type, const fs::path& target) {
  std::error_code ignored;
  if (fs::is_directory(source, ignored)) {
    return export_folder(model, source, changes, type, target);
  }
  return export_gguf(model, source, changes, type.value_or(DType::f16), target);
}

}  // namespace mkv
