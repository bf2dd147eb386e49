#include "train/torch/twin.h"

#include <algorithm>

#include "model/head_order.h"
#include "model/weights.h"
#include "nest/later_sinks.h"
#include "ops/ops.h"
#include "train/torch/bf16.h"

namespace mkv::training {
namespace {

// Dequantised [rows x cols]. Rows of interleaved heads go to Hugging Face's order.
Tensor matrix(const Weight& w, size_t interleaved_head_dim, const TwinOptions& options) {
  const auto rows = static_cast<int64_t>(w.rows), cols = static_cast<int64_t>(w.cols);
  Tensor out = torch::empty({rows, cols}, torch::kFloat32);
  const size_t head_dim = interleaved_head_dim, half = head_dim / 2;
  for (size_t r = 0; r < w.rows; ++r) {
    size_t to = r;
    if (head_dim != 0) {
      const size_t i = r % head_dim;
      to = r - i + (i % 2 == 0 ? i / 2 : half + i / 2);
    }
    dequantize_row(w, r, {out.data_ptr<float>() + to * w.cols, w.cols});
  }
  return out.to(options.device, options.bf16 ? torch::kBFloat16 : torch::kFloat32);
}

// Undefined for an empty vector.
Tensor vector(const std::vector<float>& values, const TwinOptions& options) {
  if (values.empty()) return {};
  return torch::tensor(at::ArrayRef<float>(values), torch::kFloat32).to(options.device);
}

// heads [kv_heads x tokens x head_dim] <-> groups [groups x tokens x dims], dims of several heads.
Tensor to_groups(const Tensor& heads, int64_t groups) {
  const int64_t size = heads.size(0) / groups;
  if (size == 1) return heads;
  return heads.reshape({groups, size, heads.size(1), heads.size(2)})
      .transpose(1, 2)
      .reshape({groups, heads.size(1), size * heads.size(2)});
}
Tensor to_heads(const Tensor& groups, int64_t head_dim) {
  const int64_t size = groups.size(2) / head_dim;
  if (size == 1) return groups;
  return groups.reshape({groups.size(0), groups.size(1), size, head_dim})
      .transpose(1, 2)
      .reshape({groups.size(0) * size, groups.size(1), head_dim});
}

using Found = std::vector<uint32_t>;

// Of keys before RoPE and values [kv_heads x tokens x head_dim]; `before`: of the layer before.
Found later_sinks_of(const Tensor& keys, const Tensor& values, int64_t sinks,
                     const LaterSinkRule& rule, const Found& before) {
  if (rule.most == 0) return {};
  const auto rows = [](const Tensor& x) {
    return x.detach().transpose(0, 1).reshape({x.size(1), -1}).to(torch::kCPU).contiguous();
  };
  const auto view = [](const Tensor& x) {
    return View<const float>(x.data_ptr<float>(), static_cast<size_t>(x.size(0)),
                             static_cast<size_t>(x.size(1)));
  };
  const Tensor k = rows(keys), v = rows(values);
  return find_later_sinks(view(k), view(v), static_cast<size_t>(sinks), rule, before);
}

Tensor as_halves(const Tensor& x) { return x.to(torch::kHalf).to(torch::kFloat32); }

Tensor cut_columns(const Tensor& latents, const Tensor& mask, bool rounded) {
  const Tensor kept = latents * mask;
  return rounded ? as_halves(kept) : kept;
}

Tensor code_groups(const Tensor& latents, const std::vector<SpaceSlabs>& slabs) {
  std::vector<Tensor> groups;
  for (size_t g = 0; g < slabs.size(); ++g) {
    groups.push_back(code_latents(latents[static_cast<int64_t>(g)], slabs[g]));
  }
  return torch::stack(groups);
}

// x [groups x tokens x dims] times each group's basis^T.
Tensor turn(const Tensor& x, const Tensor& basis, bool in_bf16) {
  if (!in_bf16) return x.bmm(basis.transpose(1, 2));
  return x.to(torch::kBFloat16).bmm(basis.to(torch::kBFloat16).transpose(1, 2)).to(torch::kFloat32);
}

// What the cache gives back of x [kv_heads x tokens x head_dim]; `mean` has x's shape or broadcasts
// to it, or is undefined. The sinks, and the later ones, stay as they are. `in_bf16` is for columns
// only: codes are to be those that the engine chooses.
Tensor code_side(const Tensor& x, const SideCode& code, const Tensor& mean, const CacheCode& all,
                 const Found& later_sinks, bool in_bf16) {
  const bool columns = code.slabs.empty();
  const bool turned_in_bf16 = in_bf16 && columns;
  const Tensor centred = mean.defined() ? x - mean : x;
  const Tensor latents = turn(to_groups(centred, code.encode.size(0)), code.encode, turned_in_bf16);
  const Tensor kept =
      columns ? cut_columns(latents, code.mask, all.rounded) : code_groups(latents, code.slabs);
  Tensor back = to_heads(turn(kept, code.decode, turned_in_bf16), x.size(2));
  if (mean.defined()) back = back + mean;
  if (!later_sinks.empty()) {
    const std::vector<int64_t> wide(later_sinks.begin(), later_sinks.end());
    const Tensor at = torch::tensor(at::ArrayRef<int64_t>(wide), torch::kLong).to(x.device());
    back = back.index_copy(1, at, x.index_select(1, at));
  }
  const int64_t exact = std::min(all.view.sinks, x.size(1));
  return exact == 0 ? back : torch::cat({x.slice(1, 0, exact), back.slice(1, exact)}, 1);
}

}  // namespace

Twin::Twin(const Model& model, const TwinOptions& options)
    : config_(model.config()), options_(options) {
  const torch::NoGradGuard frozen;
  const ModelWeights& w = model.weights();
  const size_t interleaved = model.interleaved_qk() ? config_.head_dim : 0;
  embedding_ = matrix(w.embedding, 0, options);
  output_ = w.output.data == w.embedding.data ? embedding_ : matrix(w.output, 0, options);
  final_norm_ = vector(w.final_norm, options);
  for (const LayerWeights& from : w.layers) {
    Layer to;
    to.query = matrix(from.query, interleaved, options);
    to.key = matrix(from.key, interleaved, options);
    to.value = matrix(from.value, 0, options);
    to.output = matrix(from.output, 0, options);
    to.gate = matrix(from.gate, 0, options);
    to.up = matrix(from.up, 0, options);
    to.down = matrix(from.down, 0, options);
    const std::pair<Tensor*, const std::vector<float>*> vectors[] = {
        {&to.attention_norm, &from.attention_norm},
        {&to.ffn_norm, &from.ffn_norm},
        {&to.query_norm, &from.query_norm},
        {&to.key_norm, &from.key_norm},
        {&to.query_bias, &from.query_bias},
        {&to.key_bias, &from.key_bias},
        {&to.value_bias, &from.value_bias},
        {&to.output_bias, &from.output_bias},
        {&to.gate_bias, &from.gate_bias},
        {&to.up_bias, &from.up_bias},
        {&to.down_bias, &from.down_bias}};
    for (const auto& [target, source] : vectors) *target = vector(*source, options);
    layers_.push_back(std::move(to));
  }
}

Twin::Angles Twin::angles(size_t tokens) const {
  const size_t pairs = config_.rotary(0).pairs();
  const std::vector<int64_t> shape{static_cast<int64_t>(tokens), static_cast<int64_t>(pairs)};
  Tensor cos = torch::empty(shape), sin = torch::empty(shape);
  for (size_t t = 0; t < tokens; ++t) {
    config_.rotary(0).angles(static_cast<double>(t), {cos.data_ptr<float>() + t * pairs, pairs},
                             {sin.data_ptr<float>() + t * pairs, pairs});
  }
  return {cos.to(options_.device), sin.to(options_.device)};
}

Tensor Twin::product(const Tensor& x, const Tensor& weight) const {
  if (!options_.bf16) return x.mm(weight.t());
  return x.to(torch::kBFloat16).mm(weight.t()).to(torch::kFloat32);
}

Tensor Twin::feed_forward(size_t index, const LayerAdapters& own, const Tensor& hidden) const {
  const Layer& layer = layers_[index];
  const Tensor normed = rms_norm(hidden, layer.ffn_norm, config_.rms_norm_epsilon);
  const bool adapted = own.gate.up.defined() || own.up.up.defined();
  const bool biased = layer.gate_bias.defined() || layer.up_bias.defined();
  Tensor wide;
  if (bf16_on_cpu() && !adapted && !biased) {  // nothing between the products needs more
    const Tensor x = normed.to(torch::kBFloat16);
    wide = swiglu_of_bf16(x.mm(layer.gate.t()), x.mm(layer.up.t()));
  } else {
    wide = swiglu(linear(normed, layer.gate, layer.gate_bias, own.gate),
                  linear(normed, layer.up, layer.up_bias, own.up));
  }
  return linear(wide, layer.down, layer.down_bias, own.down);
}

Tensor Twin::logits_backward(const Tensor& d) const {
  if (!options_.bf16) return d.mm(output_);
  return d.to(torch::kBFloat16).mm(output_).to(torch::kFloat32);
}

Tensor Twin::linear(const Tensor& x, const Tensor& weight, const Tensor& bias,
                    const Adapter& adapter) const {
  Tensor y = product(x, weight);
  if (adapter.up.defined()) {
    y = y.add(x.to(torch::kFloat32).mm(adapter.down.t()).mm(adapter.up.t()), adapter.scale);
  }
  return bias.defined() ? y + bias : y;
}

Tensor Twin::heads(const Tensor& y, const Tensor& norm) const {
  const auto head_dim = static_cast<int64_t>(config_.head_dim);
  const Tensor split = y.reshape({y.size(0), -1, head_dim}).transpose(0, 1).contiguous();
  return norm.defined() ? rms_norm(split, norm, config_.rms_norm_epsilon) : split;
}

Tensor Twin::attend_alone(size_t index, const std::array<Tensor, 3>& qkv, const CacheCode* all,
                          const Angles& at, std::vector<uint32_t>& later_sinks) const {
  const Layer& layer = layers_[index];
  const auto kv_heads = static_cast<int64_t>(config_.num_kv_heads);
  const auto head_dim = static_cast<int64_t>(config_.head_dim);
  const Tensor q = rotate(heads(qkv[0], layer.query_norm), at.cos, at.sin);
  AttentionInputs in;
  in.queries = q.view({kv_heads, -1, q.size(1), head_dim});
  const Tensor keys = heads(qkv[1], layer.key_norm);
  in.exact_keys = rotate(keys, at.cos, at.sin);
  in.exact_values = heads(qkv[2], {});
  const bool coded = all != nullptr && !all->layers.empty();
  if (coded && all->rounded && !all->layers[index][0].slabs.empty()) {
    in.exact_keys = as_halves(in.exact_keys);
    in.exact_values = as_halves(in.exact_values);
  }
  in.coded_keys = in.exact_keys;
  in.coded_values = in.exact_values;
  AttentionView view;
  if (coded) {
    const auto& [key, value] = all->layers[index];
    const auto mean_of = [&](const SideCode& side) {
      return side.mean.defined() ? side.mean.reshape({kv_heads, 1, head_dim}) : Tensor();
    };
    view = all->view;
    Tensor key_mean = mean_of(key);
    if (key_mean.defined() && all->position_mean) {
      key_mean = rotate(key_mean.expand({-1, q.size(1), -1}), at.cos, at.sin);
    }
    later_sinks =
        later_sinks_of(keys, in.exact_values, view.sinks,
                       later_sink_rule(config_.layer_types, index, all->later_sinks), later_sinks);
    in.coded_keys = code_side(in.exact_keys, key, key_mean, *all, later_sinks, bf16_on_cpu());
    in.coded_values =
        code_side(in.exact_values, value, mean_of(value), *all, later_sinks, bf16_on_cpu());
  }
  const Tensor out = bf16_on_cpu() ? attention_in_bf16(in, config_.attention_scale(), view)
                                   : attention(in, config_.attention_scale(), view);
  const int64_t tokens = q.size(1);
  return out.reshape({-1, tokens, head_dim}).transpose(0, 1).reshape({tokens, -1});
}

Tensor Twin::attend(size_t index, const LayerAdapters& adapters, const Tensor& x,
                    std::span<const Sequence> sequences, const Angles& angles,
                    std::vector<std::vector<uint32_t>>& later_sinks) const {
  const Layer& layer = layers_[index];
  const Tensor query = linear(x, layer.query, layer.query_bias, adapters.query);
  const Tensor key = linear(x, layer.key, layer.key_bias, adapters.key);
  const Tensor value = linear(x, layer.value, layer.value_bias, adapters.value);
  std::vector<Tensor> out;
  int64_t begin = 0;
  for (size_t s = 0; s < sequences.size(); ++s) {
    const Sequence& sequence = sequences[s];
    const auto count = static_cast<int64_t>(sequence.tokens.size());
    const auto own = [&](const Tensor& rows) { return rows.narrow(0, begin, count); };
    const Angles at{angles.cos.narrow(0, 0, count), angles.sin.narrow(0, 0, count)};
    out.push_back(
        attend_alone(index, {own(query), own(key), own(value)}, sequence.code, at, later_sinks[s]));
    begin += count;
  }
  const Tensor rows = out.size() == 1 ? out[0] : torch::cat(out);
  return linear(rows, layer.output, layer.output_bias, adapters.output);
}

Tensor Twin::hidden(std::span<const Sequence> sequences,
                    const std::vector<LayerAdapters>& adapters) const {
  std::vector<int64_t> ids;
  size_t longest = 0;
  for (const Sequence& sequence : sequences) {
    ids.insert(ids.end(), sequence.tokens.begin(), sequence.tokens.end());
    longest = std::max(longest, sequence.tokens.size());
  }
  const Tensor at_ids = torch::tensor(at::ArrayRef<int64_t>(ids), torch::kLong).to(options_.device);
  Tensor hidden = embedding_.index_select(0, at_ids).to(torch::kFloat32);
  const Angles at = angles(longest);
  const double epsilon = config_.rms_norm_epsilon;
  std::vector<Found> later_sinks(sequences.size());  // of the layer
  for (size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    const LayerAdapters own = adapters.empty() ? LayerAdapters() : adapters[l];
    hidden = hidden + attend(l, own, rms_norm(hidden, layer.attention_norm, epsilon), sequences, at,
                             later_sinks);
    hidden = hidden + feed_forward(l, own, hidden);
  }
  return rms_norm(hidden, final_norm_, epsilon);
}

void Twin::visit_attention(std::span<const TokenId> tokens, const CacheCode& code,
                           const AttentionVisit& visit) const {
  const std::vector<int64_t> ids(tokens.begin(), tokens.end());
  const Tensor at_ids = torch::tensor(at::ArrayRef<int64_t>(ids), torch::kLong).to(options_.device);
  Tensor hidden = embedding_.index_select(0, at_ids).to(torch::kFloat32);
  const Angles at = angles(tokens.size());
  Found later_sinks;  // of the layer
  for (size_t l = 0; l < layers_.size(); ++l) {
    const Layer& layer = layers_[l];
    const auto output = [&](const std::array<Tensor, 3>& qkv, const CacheCode* cache) {
      return linear(attend_alone(l, qkv, cache, at, later_sinks), layer.output, layer.output_bias,
                    {});
    };
    std::array<Tensor, 3> qkv;
    Tensor exact;
    {
      const torch::NoGradGuard none;
      const Tensor x = rms_norm(hidden, layer.attention_norm, config_.rms_norm_epsilon);
      qkv = {linear(x, layer.query, layer.query_bias, {}), linear(x, layer.key, layer.key_bias, {}),
             linear(x, layer.value, layer.value_bias, {})};
      exact = output(qkv, nullptr);
      hidden = hidden + exact;
      hidden = hidden + feed_forward(l, {}, hidden);
    }
    visit(output(qkv, &code), exact);
  }
}

}  // namespace mkv::training
