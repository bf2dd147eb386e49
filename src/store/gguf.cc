#include "store/gguf.h"

#include <algorithm>
#include <bit>
#include <iterator>
#include <optional>
#include <utility>
#include <vector>

#include "store/byte_reader.h"
#include "store/message.h"

namespace mkv {
namespace {

constexpr uint64_t kMaxDimensions = 4;

// By ggml's type id. Those of kDTypes' names are ours, the others are known only by name.
constexpr std::string_view kTypeNames[] = {
    "F32",     "F16",    "Q4_0",    "Q4_1",  "Q4_2",   "Q4_3",  "Q5_0",  "Q5_1",
    "Q8_0",    "Q8_1",   "Q2_K",    "Q3_K",  "Q4_K",   "Q5_K",  "Q6_K",  "Q8_K",
    "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS",
    "I8",      "I16",    "I32",     "I64",   "F64",    "IQ1_M", "BF16",
};

std::optional<DType> dtype_of(uint32_t id) {
  if (id >= std::size(kTypeNames)) return std::nullopt;
  for (size_t type = 0; type < std::size(kDTypes); ++type) {
    if (kDTypes[type].name == kTypeNames[id]) return static_cast<DType>(type);
  }
  return std::nullopt;
}

struct TensorInfo {
  std::string name;
  std::vector<size_t> shape;  // outermost first
  uint32_t type = 0;
  uint64_t offset = 0;
};

struct Extent {  // of a tensor, in the data
  size_t begin, end;
  const std::string* name;
};

struct Header {
  uint64_t tensors = 0, keys = 0;
};

Result<Header> read_header(ByteReader& reader) {
  MKV_ASSIGN(const auto magic, reader.take(4, "magic"));
  const std::string_view text(reinterpret_cast<const char*>(magic.data()), magic.size());
  if (text != "GGUF") {
    return make_error(ErrorCode::corrupt,
                      "not a GGUF file: expected the magic GGUF, found " + printable(text));
  }
  MKV_ASSIGN(const uint32_t version, reader.read<uint32_t>("version"));
  if (version != 0 && (version & 0xffffu) == 0) {
    return make_error(ErrorCode::unsupported,
                      concat("a big-endian file is not supported (version bytes ", version, ")"));
  }
  if (version != 2 && version != 3) {
    return make_error(ErrorCode::unsupported,
                      concat("expected GGUF version 2 or 3, found ", version));
  }
  Header header;
  MKV_ASSIGN(header.tensors, reader.read<uint64_t>("tensor count"));
  MKV_ASSIGN(header.keys, reader.read<uint64_t>("key count"));
  return header;
}

Result<std::vector<size_t>> read_shape(ByteReader& reader) {
  MKV_ASSIGN(const uint32_t dimensions, reader.read<uint32_t>("dimension count"));
  if (dimensions < 1 || dimensions > kMaxDimensions) {
    return make_error(ErrorCode::corrupt,
                      concat("expected 1 to ", kMaxDimensions, " dimensions, found ", dimensions));
  }
  std::vector<size_t> shape(dimensions);
  for (size_t d = dimensions; d-- > 0;) {
    MKV_ASSIGN(shape[d], reader.read<uint64_t>("extent"));
    if (shape[d] == 0) {
      return make_error(ErrorCode::corrupt, "expected extents of 1 or more, found 0");
    }
  }
  return shape;
}

Result<TensorInfo> read_tensor_info(ByteReader& reader) {
  TensorInfo tensor;
  MKV_ASSIGN(tensor.name, reader.read_string("tensor name"));
  const auto rest = [&]() -> Result<void> {
    MKV_ASSIGN(tensor.shape, read_shape(reader));
    MKV_ASSIGN(tensor.type, reader.read<uint32_t>("type"));
    MKV_ASSIGN(tensor.offset, reader.read<uint64_t>("offset"));
    return {};
  }();
  if (!rest) return in_context("tensor " + printable(tensor.name), rest.error());
  return tensor;
}

Result<std::vector<TensorInfo>> read_tensor_infos(ByteReader& reader, uint64_t count) {
  // A name's length, a dimension count, one extent, a type and an offset.
  MKV_TRY(reader.check_count(count, 8 + 4 + 8 + 4 + 8, "tensors"));
  std::vector<TensorInfo> infos;
  for (uint64_t i = 0; i < count; ++i) {
    MKV_ASSIGN(TensorInfo tensor, read_tensor_info(reader));
    infos.push_back(std::move(tensor));
  }
  return infos;
}

Result<size_t> read_alignment(const GgufMetadata& metadata) {
  MKV_ASSIGN(const uint64_t alignment, metadata.get_or<uint64_t>("general.alignment", 32));
  // The format asks for a multiple of 8, which also keeps f32 where the processor wants it.
  if (!std::has_single_bit(alignment) || alignment < 8 || alignment > 65536) {
    return make_error(ErrorCode::corrupt, concat(metadata.source(),
                                                 ": key general.alignment: expected a power of two "
                                                 "from 8 to 65536, found ",
                                                 alignment));
  }
  return alignment;
}

Result<TensorView> place(const TensorInfo& tensor, DType type, std::span<const std::byte> data) {
  MKV_ASSIGN(const size_t elements, count_elements(tensor.shape));
  const DTypeInfo& layout = info(type);
  const size_t cols = tensor.shape.back();
  if (cols % layout.block_elements != 0) {
    return make_error(ErrorCode::corrupt, concat("expected a multiple of ", layout.block_elements,
                                                 " columns for ", layout.name, ", found ", cols));
  }
  const size_t bytes = row_bytes(type, elements);
  if (tensor.offset > data.size() || bytes > data.size() - tensor.offset) {
    return make_error(ErrorCode::corrupt,
                      concat("expected ", bytes, " bytes for ", layout.name, " ",
                             shape_text(tensor.shape), " at offset ", tensor.offset,
                             " of the data, found ", data.size(), " bytes of data"));
  }
  return TensorView{tensor.name, type, tensor.shape, data.data() + tensor.offset, bytes};
}

Result<void> check_disjoint(std::vector<Extent> extents) {
  std::sort(extents.begin(), extents.end(),
            [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  for (size_t i = 1; i < extents.size(); ++i) {
    if (extents[i].begin < extents[i - 1].end) {
      return make_error(ErrorCode::corrupt,
                        concat("tensor ", printable(*extents[i].name), ": expected to begin at ",
                               extents[i - 1].end, " or later, where ",
                               printable(*extents[i - 1].name), " ends, found ", extents[i].begin));
    }
  }
  return {};
}

Result<void> add_tensors(const std::vector<TensorInfo>& infos, size_t alignment,
                         std::span<const std::byte> data, TensorTable& table) {
  std::vector<Extent> extents;
  for (const TensorInfo& tensor : infos) {
    const std::string where = "tensor " + printable(tensor.name);
    if (tensor.offset % alignment != 0) {
      return make_error(ErrorCode::corrupt, concat(where, ": expected a multiple of ", alignment,
                                                   " as offset, found ", tensor.offset));
    }
    bool added = false;
    if (const auto type = dtype_of(tensor.type)) {
      auto placed = place(tensor, *type, data);
      if (!placed) return in_context(where, std::move(placed).error());
      extents.push_back({tensor.offset, tensor.offset + placed->size_bytes, &tensor.name});
      added = table.add(*std::move(placed));
    } else {
      std::string type_name = "id " + std::to_string(tensor.type);
      if (tensor.type < std::size(kTypeNames)) {
        type_name += concat(" (", kTypeNames[tensor.type], ")");
      }
      added = table.add_unsupported(tensor.name, std::move(type_name));
    }
    if (!added) {
      return make_error(ErrorCode::corrupt, where + ": expected once, found twice");
    }
  }
  return check_disjoint(std::move(extents));
}

}  // namespace

uint32_t gguf_type_id(DType type) {
  const auto* found = std::ranges::find(kTypeNames, info(type).name);
  return static_cast<uint32_t>(found - std::begin(kTypeNames));
}

Result<GgufFile> GgufFile::open(const std::filesystem::path& path) {
  MKV_ASSIGN(MappedFile mapped, MappedFile::open(path));
  MKV_ASSIGN(GgufFile file, parse(mapped.bytes(), path.string()));
  file.file_ = std::move(mapped);
  return file;
}

Result<GgufFile> GgufFile::parse(std::span<const std::byte> bytes, std::string name) {
  GgufFile file;
  file.tensors_ = TensorTable(name);
  ByteReader reader(bytes);
  std::vector<TensorInfo> infos;
  const auto read = [&]() -> Result<void> {
    MKV_ASSIGN(const Header header, read_header(reader));
    MKV_ASSIGN(file.metadata_, GgufMetadata::parse(reader, header.keys, name));
    MKV_ASSIGN(infos, read_tensor_infos(reader, header.tensors));
    return {};
  }();
  if (!read) return in_context(name, read.error());
  MKV_ASSIGN(const size_t alignment, read_alignment(file.metadata_));
  const size_t start = (reader.offset() + alignment - 1) / alignment * alignment;
  const auto data = bytes.subspan(std::min(start, bytes.size()));
  if (const auto added = add_tensors(infos, alignment, data, file.tensors_); !added) {
    return in_context(name, added.error());
  }
  return file;
}

}  // namespace mkv
