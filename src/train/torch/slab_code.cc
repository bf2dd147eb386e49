#include "train/torch/slab_code.h"

#include <algorithm>
#include <vector>

#include "nest/kv_cache.h"
#include "nest/slab_kernels.h"

namespace mkv::training {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

constexpr auto kBlock = static_cast<int64_t>(kBlockTokens);
constexpr int64_t kBlockBytes = kBlock / 2;  // of a slab's codes
constexpr auto kColumns = static_cast<int64_t>(kSlabColumns);
constexpr auto kEntries = static_cast<int64_t>(kCodebookEntries);

// Slabs as the engine's kernels take them.
struct EngineSlabs {
  std::vector<Codebook> books;
  std::vector<int64_t> columns;

  EngineSlabs(const Tensor& first_columns, const Tensor& entries) {
    const Tensor from = entries.to(torch::kCPU, torch::kFloat32).contiguous();
    const auto* first = first_columns.data_ptr<int64_t>();
    columns.assign(first, first + first_columns.numel());
    books.resize(columns.size());
    for (size_t s = 0; s < books.size(); ++s) {
      const float* entry = from.data_ptr<float>() + static_cast<int64_t>(s) * kColumns * kEntries;
      std::copy_n(entry, kColumns * kEntries, &books[s].entry[0][0]);
    }
  }
};

// [tokens x dims] <-> contiguous rows [dims x whole blocks of tokens], zeros at the end.
Tensor to_rows(const Tensor& tokens_first) {
  const int64_t tokens = tokens_first.size(0);
  const int64_t padded = (tokens + kBlock - 1) / kBlock * kBlock;
  Tensor rows = torch::zeros({tokens_first.size(1), padded});
  rows.slice(1, 0, tokens).copy_(tokens_first.t());
  return rows;
}
Tensor from_rows(const Tensor& rows, const Tensor& like) {
  return rows.slice(1, 0, like.size(0)).t().contiguous().to(like.device());
}

// Of each column, the scale of its last slab; 0 where there is none.
Tensor column_scales(const EngineSlabs& slabs, const Tensor& scales, int64_t dims) {
  Tensor out = torch::zeros({dims, 1});
  const Tensor from = scales.to(torch::kCPU, torch::kFloat32).contiguous();
  for (size_t s = 0; s < slabs.columns.size(); ++s) {
    std::copy_n(from.data_ptr<float>() + static_cast<int64_t>(s) * kColumns, kColumns,
                out.data_ptr<float>() + slabs.columns[s]);
  }
  return out;
}

// codes [blocks x slabs x kBlockBytes]; `rows` are left with the residual.
Tensor encode(const EngineSlabs& slabs, Tensor& rows) {
  const int64_t stride = rows.size(1), blocks = stride / kBlock;
  const auto count = static_cast<int64_t>(slabs.books.size());
  Tensor codes = torch::empty({blocks, count, kBlockBytes}, torch::kUInt8);
  auto* to = codes.data_ptr<uint8_t>();
  for (int64_t b = 0; b < blocks; ++b) {
    for (size_t s = 0; s < slabs.books.size(); ++s, to += kBlockBytes) {
      float* residual = rows.data_ptr<float>() + slabs.columns[s] * stride + b * kBlock;
      encode_slab(slabs.books[s], residual, static_cast<size_t>(stride), to);
    }
  }
  return codes;
}

// Sums of entries, without scales: [dims x stride].
Tensor expand(const EngineSlabs& slabs, const Tensor& codes, int64_t dims, int64_t stride) {
  Tensor rows = torch::zeros({dims, stride});
  const auto* from = codes.data_ptr<uint8_t>();
  for (int64_t b = 0; b < codes.size(0); ++b) {
    for (size_t s = 0; s < slabs.books.size(); ++s, from += kBlockBytes) {
      float* to = rows.data_ptr<float>() + slabs.columns[s] * stride + b * kBlock;
      expand_slab(slabs.books[s], from, to, static_cast<size_t>(stride));
    }
  }
  return rows;
}

// sums[column][entry] += d[column][token] over a block's tokens with that code; d has `stride`.
void add_by_code(const uint8_t* codes, const float* d, int64_t stride, float* sums) {
  for (int64_t c = 0; c < kColumns; ++c) {
    const float* low = d + c * stride;
    const float* high = low + kBlockBytes;
    float* sum = sums + c * kEntries;
    for (int64_t i = 0; i < kBlockBytes; ++i) {
      sum[codes[i] & 15] += low[i];
      sum[codes[i] >> 4] += high[i];
    }
  }
}

// The gradient of the entries; d [dims x stride] of the sums of entries.
Tensor entry_gradients(const EngineSlabs& slabs, const Tensor& codes, const Tensor& d) {
  const int64_t stride = d.size(1), count = codes.size(1);
  Tensor out = torch::zeros({count, kColumns, kEntries});
  const auto* from = codes.data_ptr<uint8_t>();
  for (int64_t b = 0; b < codes.size(0); ++b) {
    for (int64_t s = 0; s < count; ++s, from += kBlockBytes) {
      add_by_code(from,
                  d.data_ptr<float>() + slabs.columns[static_cast<size_t>(s)] * stride + b * kBlock,
                  stride, out.data_ptr<float>() + s * kColumns * kEntries);
    }
  }
  return out;
}

// Of a column's product, all goes to the scale of its last slab.
Tensor scale_gradients(const EngineSlabs& slabs, const Tensor& by_column) {
  Tensor left = by_column.clone();
  Tensor out = torch::zeros({static_cast<int64_t>(slabs.columns.size()), kColumns});
  for (size_t s = slabs.columns.size(); s-- > 0;) {
    float* from = left.data_ptr<float>() + slabs.columns[s];
    std::copy_n(from, kColumns, out.data_ptr<float>() + static_cast<int64_t>(s) * kColumns);
    std::fill_n(from, kColumns, 0.0f);
  }
  return out;
}

struct SlabCoding : Function<SlabCoding> {
  static Tensor forward(AutogradContext* context, const Tensor& latents, const Tensor& columns,
                        const Tensor& entries, const Tensor& scales) {
    const EngineSlabs slabs(columns, entries);
    Tensor rows = to_rows(latents);
    const Tensor codes = encode(slabs, rows);
    Tensor decoded = expand(slabs, codes, rows.size(0), rows.size(1));
    context->save_for_backward({columns, entries, scales, codes});
    return from_rows(decoded.mul_(column_scales(slabs, scales, rows.size(0))), latents);
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &entries = saved[1], &scales = saved[2], &codes = saved[3], &d_out = gradients[0];
    const EngineSlabs slabs(saved[0], entries);
    Tensor d = to_rows(d_out);
    const Tensor scale = column_scales(slabs, scales, d.size(0));
    const Tensor d_latents = from_rows(d * scale.ne(0), d_out);
    const Tensor by_column = (expand(slabs, codes, d.size(0), d.size(1)).mul_(d)).sum(1);
    const Tensor d_scales = scale_gradients(slabs, by_column);
    const Tensor d_entries = entry_gradients(slabs, codes, d.mul_(scale));
    return {d_latents, Tensor(), d_entries.to(entries.device()), d_scales.to(scales.device())};
  }
};

}  // namespace

Tensor code_latents(const Tensor& latents, const SpaceSlabs& slabs) {
  if (slabs.columns.numel() == 0) return torch::zeros_like(latents);
  return SlabCoding::apply(latents, slabs.columns, slabs.entries, slabs.scales);
}

}  // namespace mkv::training
