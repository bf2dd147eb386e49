#include "train/torch/functions.h"

#include "ops/ops.h"

namespace mkv::training {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;

struct RmsNorm : Function<RmsNorm> {
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& weight,
                        double epsilon) {
    const Tensor scale = (x.square().mean(-1, true) + epsilon).rsqrt_();
    context->save_for_backward({x, weight, scale});
    return (x * scale).mul_(weight);
  }
  // dx = r (w dy) - x r^3 / n sum(w dy x)
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &x = saved[0], &weight = saved[1], &r = saved[2];
    Tensor direct = gradients[0] * weight;
    const Tensor along = (direct * x).mean(-1, true).mul_(r.pow(3));
    return {direct.mul_(r).sub_(x * along), Tensor(), Tensor()};
  }
};

// One pass in place of seven. Back is the turn by the opposite angles.
struct Rotate : Function<Rotate> {
  static Tensor turned(const Tensor& x, const Tensor& cos, const Tensor& sin) {
    Tensor out = torch::empty(x.sizes(), x.options());
    out.copy_(x);
    const auto tokens = x.size(1), head_dim = x.size(2);
    const auto size = static_cast<size_t>(head_dim);
    for (int64_t row = 0; row < x.size(0) * tokens; ++row) {
      const int64_t at = row % tokens * cos.size(1);
      rope({out.data_ptr<float>() + row * head_dim, size}, {cos.data_ptr<float>() + at, size / 2},
           {sin.data_ptr<float>() + at, size / 2});
    }
    return out;
  }
  static Tensor forward(AutogradContext* context, const Tensor& x, const Tensor& cos,
                        const Tensor& sin) {
    context->save_for_backward({cos, sin});
    return turned(x, cos, sin);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    return {turned(gradients[0], saved[0], saved[1].neg()), Tensor(), Tensor()};
  }
};

struct SwiGlu : Function<SwiGlu> {
  static Tensor forward(AutogradContext* context, const Tensor& gate, const Tensor& up) {
    context->save_for_backward({gate, up});
    return at::silu(gate).mul_(up);
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const Tensor &gate = saved[0], &up = saved[1];
    Tensor d_up = at::silu(gate).mul_(gradients[0]);
    return {at::silu_backward(gradients[0] * up, gate), d_up};
  }
};

}  // namespace

Tensor rms_norm(const Tensor& x, const Tensor& weight, double epsilon) {
  return RmsNorm::apply(x, weight, epsilon);
}

Tensor rotate(const Tensor& x, const Tensor& cos, const Tensor& sin) {
  if (x.is_cpu()) return Rotate::apply(x, cos.contiguous(), sin.contiguous());
  const std::vector<Tensor> halves = x.chunk(2, -1);
  return torch::cat({halves[0] * cos - halves[1] * sin, halves[1] * cos + halves[0] * sin}, -1);
}

Tensor swiglu(const Tensor& gate, const Tensor& up) { return SwiGlu::apply(gate, up); }

}  // namespace mkv::training
