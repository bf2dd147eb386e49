#include "train/torch/codes.h"

#include <algorithm>

#include "base/half.h"
#include "nest/basis.h"

namespace mkv::training {
namespace {

constexpr auto kColumns = static_cast<int64_t>(kSlabColumns);
constexpr auto kEntries = static_cast<int64_t>(kCodebookEntries);

int64_t as_int(size_t n) { return static_cast<int64_t>(n); }

float as_half(float x) { return f16_to_f32(f32_to_f16(x)); }

// Of the columns [dims] of a space: what its codebooks span, stage upon stage. A column that no
// slab codes spreads less than any that has one.
Tensor spread_of(const Basis& basis) {
  Tensor square = torch::zeros({as_int(basis.mean.size())}, torch::kDouble);
  double* sum = square.data_ptr<double>();
  for (const CodeSlab& slab : basis.slabs) {
    for (size_t c = 0; c < kSlabColumns; ++c) {
      for (const float entry : slab.codebook.entry[c]) {
        sum[slab.first_column + c] += static_cast<double>(entry * entry) / kCodebookEntries;
      }
    }
  }
  const Tensor coded = square.masked_select(square.gt(0));
  const double least = coded.numel() == 0 ? 1.0 : coded.min().item<double>();
  return square.clamp_min(least).sqrt();
}

}  // namespace

Codes::Codes(const Nest& nest, const CodeRates& rates, torch::Device device)
    : config_(nest.config()), groups_(nest.groups()), dims_(nest.dims()), rates_(rates) {
  const torch::NoGradGuard none;
  read_slabs(nest, device);
  read_bases(nest, device);
  set_units(nest, device);
  turns_ = torch::zeros(whitened_decode_.sizes(), start_entries_.options());
  entries_ = torch::zeros_like(start_entries_);
  scales_ = torch::zeros_like(start_scales_);
  means_ = torch::zeros_like(start_means_);
}

void Codes::read_slabs(const Nest& nest, torch::Device device) {
  std::vector<float> entries, scales;
  for (size_t s = 0; s < nest.spaces(); ++s) {
    std::vector<int64_t> columns;
    for (const CodeSlab& slab : nest.basis(nest.unflat(s)).slabs) {
      columns.push_back(slab.first_column);
      for (const auto& column : slab.codebook.entry) {
        entries.insert(entries.end(), std::begin(column), std::end(column));
      }
      scales.insert(scales.end(), std::begin(slab.scale), std::end(slab.scale));
    }
    slabs_.push_back(as_int(columns.size()));
    columns_.push_back(torch::tensor(at::ArrayRef<int64_t>(columns), torch::kLong));
  }
  const auto tensor = [&](const std::vector<float>& values) {
    return torch::tensor(at::ArrayRef<float>(values), torch::kFloat32).to(device);
  };
  start_entries_ = tensor(entries).view({-1, kColumns, kEntries});
  start_scales_ = tensor(scales).view({-1, kColumns});
}

void Codes::read_bases(const Nest& nest, torch::Device device) {
  const int64_t spaces = as_int(nest.spaces()), dims = as_int(dims_);
  Tensor decode = torch::empty({spaces, dims, dims}), encode = torch::empty_like(decode);
  Tensor means = torch::empty({spaces, dims});
  for (size_t s = 0; s < nest.spaces(); ++s) {
    const Basis& basis = nest.basis(nest.unflat(s));
    const size_t at = s * dims_ * dims_;
    std::ranges::copy(basis.decode.span(), decode.data_ptr<float>() + at);
    std::ranges::copy(basis.encode.span(), encode.data_ptr<float>() + at);
    std::ranges::copy(basis.mean, means.data_ptr<float>() + s * dims_);
  }
  whitened_decode_ = decode.to(device, torch::kDouble);
  whitened_encode_ = encode.to(device, torch::kDouble);
  start_means_ = means.to(device);
}

// Slabs are kept where they remove more error than others would, so that what is left at a budget
// is about the same everywhere: the size of the entries that come next. By a share of that anything
// may move without harm, be it much larger itself.
void Codes::set_units(const Nest& nest, torch::Device device) {
  entry_units_ = start_entries_.square().mean({-2, -1}, true).sqrt_();
  const double most = entry_units_.numel() == 0 ? 1.0 : entry_units_.median().item<double>();
  entry_units_.clamp_max_(most);
  std::vector<Tensor> spreads, by_slab;
  for (size_t s = 0; s < nest.spaces(); ++s) {
    spreads.push_back(spread_of(nest.basis(nest.unflat(s))));
    const Tensor columns = columns_[s].unsqueeze(1) + torch::arange(kColumns);
    by_slab.push_back((most / spreads.back()).clamp_max_(1.0).index({columns}));
  }
  spread_ = torch::stack(spreads).to(device);
  share_ = (most / spread_).clamp_max_(1.0);
  scale_units_ = torch::cat(by_slab).to(device, torch::kFloat32) * start_scales_;
  whitened_decode_.mul_(spread_.unsqueeze(1));
  whitened_encode_.div_(spread_.unsqueeze(2));
}

std::vector<Parameters::Moved> Codes::moved() const {
  std::vector<Moved> all{{"entries", entries_, 1.0}, {"scales", scales_, 1.0}};
  if (rates_.bases > 0) all.push_back({"turns", turns_, rates_.bases});
  if (rates_.means > 0) all.push_back({"means", means_, rates_.means});
  return all;
}

std::vector<Tensor> Codes::made() const {
  const Tensor one = torch::eye(as_int(dims_), whitened_decode_.options());
  const Tensor turn = one + share_.unsqueeze(2) * turns_.to(torch::kDouble);
  const Tensor decode = whitened_decode_.matmul(turn) / spread_.unsqueeze(1);
  const Tensor encode = at::linalg_solve(turn, whitened_encode_) * spread_.unsqueeze(2);
  const Tensor offset =
      whitened_decode_.matmul((share_ * means_.to(torch::kDouble)).unsqueeze(2)).squeeze(2);
  return {decode.to(torch::kFloat32), encode.to(torch::kFloat32),
          start_means_ + offset.to(torch::kFloat32), start_entries_ + entry_units_ * entries_,
          start_scales_ + scale_units_ * scales_};
}

CacheCode Codes::code(const std::vector<Tensor>& made, const Ranks& ranks) const {
  const int64_t layers = as_int(config_.shape.layers), groups = as_int(groups_);
  const int64_t dims = as_int(dims_);
  const auto by_layer = [&](const Tensor& all, std::vector<int64_t> rest) {
    rest.insert(rest.begin(), {layers, groups, 2});
    return all.reshape(rest).unbind(0);
  };
  const std::vector<Tensor> decode = by_layer(made[0], {dims, dims}),
                            encode = by_layer(made[1], {dims, dims}),
                            means = by_layer(made[2], {dims});
  const std::vector<Tensor> entries = made[3].split_with_sizes(slabs_),
                            scales = made[4].split_with_sizes(slabs_);
  CacheCode code;
  code.position_mean = config_.key_mean == KeyMean::position;
  code.view = {as_int(config_.sinks), as_int(config_.recent)};
  code.later_sinks = config_.later_sinks;
  for (size_t l = 0; l < decode.size(); ++l) {
    std::array<SideCode, 2>& sides = code.layers.emplace_back();
    for (size_t side = 0; side < 2; ++side) {
      SideCode& to = sides[side];
      const int64_t which = as_int(side);
      to.decode = decode[l].select(1, which);
      to.encode = encode[l].select(1, which);
      if (side == 1 || config_.key_mean != KeyMean::none) to.mean = means[l].select(1, which);
      for (size_t g = 0; g < groups_; ++g) {
        const size_t space = (l * groups_ + g) * 2 + side;
        const int64_t rank = ranks[space];
        to.slabs.push_back({columns_[space].slice(0, 0, rank), entries[space].slice(0, 0, rank),
                            scales[space].slice(0, 0, rank)});
      }
    }
  }
  return code;
}

void Codes::store(Nest& nest) const {
  const torch::NoGradGuard none;
  std::vector<Tensor> all = made();
  for (Tensor& each : all) each = each.to(torch::kCPU).contiguous();
  const float* decode = all[0].data_ptr<float>();
  const float* mean = all[2].data_ptr<float>();
  const float* entry = all[3].data_ptr<float>();
  const float* scale = all[4].data_ptr<float>();
  for (size_t s = 0; s < nest.spaces(); ++s, decode += dims_ * dims_, mean += dims_) {
    Basis& basis = nest.basis(nest.unflat(s));
    std::transform(decode, decode + dims_ * dims_, basis.decode.data(), as_half);
    if (auto inverted = invert(basis.decode, basis.encode); !inverted) {
      throw std::runtime_error(inverted.error().message);
    }
    basis.mean.assign(mean, mean + dims_);
    for (CodeSlab& slab : basis.slabs) {
      std::transform(entry, entry + kColumns * kEntries, &slab.codebook.entry[0][0], as_half);
      std::transform(scale, scale + kColumns, slab.scale, as_half);
      entry += kColumns * kEntries;
      scale += kColumns;
    }
  }
}

}  // namespace mkv::training
