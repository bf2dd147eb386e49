#include "train/torch/bases.h"

#include <algorithm>

#include "base/check.h"
#include "nest/basis.h"

namespace mkv::training {
namespace {

int64_t as_int(size_t n) { return static_cast<int64_t>(n); }

}  // namespace

Bases::Bases(const Nest& nest, bool move_means, torch::Device device)
    : config_(nest.config()), groups_(nest.groups()), move_means_(move_means) {
  const torch::NoGradGuard none;
  const int64_t spaces = as_int(nest.spaces()), dims = as_int(nest.dims());
  Tensor encode = torch::empty({spaces, dims, dims}), decode = torch::empty_like(encode);
  Tensor means = torch::empty({spaces, dims});
  for (size_t s = 0; s < nest.spaces(); ++s) {
    const Basis& basis = nest.basis(nest.unflat(s));
    const size_t at = s * nest.dims() * nest.dims();
    std::ranges::copy(basis.encode.span(), encode.data_ptr<float>() + at);
    std::ranges::copy(basis.decode.span(), decode.data_ptr<float>() + at);
    std::ranges::copy(basis.mean, means.data_ptr<float>() + s * nest.dims());
  }
  if (torch::equal(encode.transpose(1, 2), decode)) {
    start_ = decode.to(device, torch::kDouble);
  } else {
    encode_ = encode.to(device);
    decode_ = decode.to(device);
  }
  means_ = means.to(device);
  turns_ = torch::zeros({spaces, dims, dims}, torch::TensorOptions(device).dtype(torch::kFloat32));
}

std::vector<Parameters::Moved> Bases::moved() const {
  std::vector<Moved> all{{"turns", turns_}};
  if (move_means_) all.push_back({"means", means_});
  return all;
}

Tensor Bases::bases() const {
  const Tensor lower = turns_.to(torch::kDouble).tril(-1);
  const Tensor skew = lower - lower.transpose(1, 2);
  const Tensor one = torch::eye(skew.size(1), skew.options());
  // (I + A)^-1 (I - A) = 2 (I + A)^-1 - I
  const Tensor turn = 2 * at::linalg_inv(one + skew) - one;
  return (start_.defined() ? start_.matmul(turn) : turn).to(torch::kFloat32);
}

double Bases::orthogonality_error(const Tensor& bases) {
  const Tensor u = bases.detach().to(torch::kDouble);
  const Tensor one = torch::eye(u.size(1), u.options());
  return (u.transpose(1, 2).matmul(u) - one).abs().max().item<double>();
}

CacheCode Bases::code(const std::vector<Tensor>& made, const Ranks& ranks) const {
  const Tensor &bases = made[0], &means = made[1];
  const bool oblique = decode_.defined();
  const int64_t layers = as_int(config_.shape.layers), groups = as_int(groups_);
  const int64_t dims = bases.size(1);
  const std::vector<int64_t> wide(ranks.begin(), ranks.end());
  const Tensor rank = torch::tensor(at::ArrayRef<int64_t>(wide), torch::kLong).to(bases.device());
  const Tensor kept = torch::arange(dims, rank.options()).unsqueeze(0).lt(rank.unsqueeze(1));
  const auto by_layer = [&](const Tensor& all, std::vector<int64_t> rest) {
    rest.insert(rest.begin(), {layers, groups, 2});
    return all.reshape(rest).unbind(0);
  };
  const Tensor decode = oblique ? decode_.bmm(bases) : bases;
  const Tensor encode = oblique ? bases.transpose(1, 2).bmm(encode_) : Tensor();
  const std::vector<Tensor> u = by_layer(decode, {dims, dims}), m = by_layer(means, {dims}),
                            masks = by_layer(kept.to(torch::kFloat32), {1, dims});
  const std::vector<Tensor> e = oblique ? by_layer(encode, {dims, dims}) : std::vector<Tensor>();
  CacheCode code;
  code.position_mean = config_.key_mean == KeyMean::position;
  code.view = {as_int(config_.sinks), as_int(config_.recent)};
  code.later_sinks = config_.later_sinks;
  for (size_t l = 0; l < u.size(); ++l) {
    std::array<SideCode, 2> sides;
    for (int64_t side = 0; side < 2; ++side) {
      const bool with_mean = side == 1 || config_.key_mean != KeyMean::none;
      const Tensor basis = u[l].select(1, side).contiguous();
      sides[static_cast<size_t>(side)] = {
          oblique ? e[l].select(1, side).contiguous() : basis.transpose(1, 2),
          basis,
          with_mean ? m[l].select(1, side) : Tensor(),
          masks[l].select(1, side),
          {}};
    }
    code.layers.push_back(std::move(sides));
  }
  return code;
}

void Bases::store(Nest& nest) const {
  const torch::NoGradGuard none;
  const Tensor turned = bases();
  const Tensor u =
      (decode_.defined() ? decode_.to(torch::kDouble).matmul(turned.to(torch::kDouble)) : turned)
          .to(torch::kCPU, torch::kFloat32)
          .contiguous();
  const Tensor m = means_.to(torch::kCPU).contiguous();
  const size_t dims = nest.dims();
  for (size_t s = 0; s < nest.spaces(); ++s) {
    Basis& basis = nest.basis(nest.unflat(s));
    const float* from = u.data_ptr<float>() + s * dims * dims;
    for (size_t i = 0; i < dims; ++i) {
      for (size_t c = 0; c < dims; ++c) {
        basis.decode.at(i, c) = from[i * dims + c];
        basis.encode.at(c, i) = from[i * dims + c];
      }
    }
    // As a nest's file is read. What turns an invertible matrix leaves it invertible.
    if (decode_.defined()) MKV_CHECK(invert(basis.decode, basis.encode).has_value());
    const float* mean = m.data_ptr<float>() + s * dims;
    basis.mean.assign(mean, mean + dims);
  }
}

}  // namespace mkv::training
