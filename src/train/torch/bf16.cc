#include "train/torch/bf16.h"

#include <array>
#include <dnnl.hpp>
#include <map>

#include "base/check.h"
#include "ops/bf16.h"

namespace mkv::training {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::Function;
using torch::autograd::variable_list;
using Dims = dnnl::memory::dims;

// Making a product costs as much as a small one takes, and training makes the same ones again.
// Each is of two matrices: oneDNN has kernels on tiles for these, whatever lies between the rows of
// one and of the next; for batches of views only those without (2.6, twice to three times slower).
struct Product {
  dnnl::matmul run;
  dnnl::memory a, b, out;
};

class Products {
 public:
  // Of the matrices of a batch.
  Product& of(const std::array<Tensor, 3>& abc, bool adds) {
    std::vector<int64_t> key{adds ? 1 : 0};
    for (const Tensor& t : abc) {
      key.insert(key.end(), t.sizes().begin() + 1, t.sizes().end());
      key.insert(key.end(), t.strides().begin() + 1, t.strides().end());
    }
    const auto found = products_.find(key);
    if (found != products_.end()) return found->second;
    const auto describe = [](const Tensor& t, dnnl::memory::data_type type) {
      return dnnl::memory::desc(Dims(t.sizes().begin() + 1, t.sizes().end()), type,
                                Dims(t.strides().begin() + 1, t.strides().end()));
    };
    const auto a = describe(abc[0], dnnl::memory::data_type::bf16),
               b = describe(abc[1], dnnl::memory::data_type::bf16),
               out = describe(abc[2], dnnl::memory::data_type::f32);
    dnnl::primitive_attr attributes;
    if (adds) {
      dnnl::post_ops sum;
      sum.append_sum(1.0f);
      attributes.set_post_ops(sum);
    }
    Product product{dnnl::matmul(dnnl::matmul::primitive_desc(dnnl::matmul::desc(a, b, out),
                                                              attributes, engine_)),
                    dnnl::memory(a, engine_, nullptr), dnnl::memory(b, engine_, nullptr),
                    dnnl::memory(out, engine_, nullptr)};
    return products_.emplace(std::move(key), std::move(product)).first->second;
  }
  void run(const Tensor& a, const Tensor& b, const Tensor& out, bool adds) {
    Product& product = of({a, b, out}, adds);
    const auto matrix = [](const Tensor& t, int64_t index) {
      return static_cast<char*>(t.data_ptr()) +
             index * t.stride(0) * static_cast<int64_t>(t.element_size());
    };
    for (int64_t i = 0; i < out.size(0); ++i) {
      product.a.set_data_handle(matrix(a, i));
      product.b.set_data_handle(matrix(b, i));
      product.out.set_data_handle(matrix(out, i));
      product.run.execute(
          stream_,
          {{DNNL_ARG_SRC, product.a}, {DNNL_ARG_WEIGHTS, product.b}, {DNNL_ARG_DST, product.out}});
    }
    stream_.wait();
  }

 private:
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  std::map<std::vector<int64_t>, Product> products_;
};

Products& products() {
  thread_local Products own;
  return own;
}

struct SwigluOfBf16 : Function<SwigluOfBf16> {
  static Tensor forward(AutogradContext* context, const Tensor& gate, const Tensor& up) {
    context->save_for_backward({gate, up});
    Tensor out = torch::empty_like(gate);
    for (int64_t row = 0; row < gate.size(0); ++row) {
      swiglu_bf16(bf16_row(gate, row), bf16_row(up, row), bf16_row(out, row));
    }
    return out;
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    const variable_list saved = context->get_saved_variables();
    const Tensor d = gradients[0].contiguous();
    Tensor d_gate = torch::empty_like(d), d_up = torch::empty_like(d);
    for (int64_t row = 0; row < d.size(0); ++row) {
      swiglu_bf16_backward({bf16_row(d, row), bf16_row(saved[0], row), bf16_row(saved[1], row)},
                           bf16_row(d_gate, row), bf16_row(d_up, row));
    }
    return {d_gate, d_up};
  }
};

}  // namespace

std::span<uint16_t> bf16_row(const Tensor& tensor, int64_t row) {
  const int64_t size = tensor.size(-1);
  return {static_cast<uint16_t*>(tensor.data_ptr()) + row * size, static_cast<size_t>(size)};
}

std::span<float> f32_row(const Tensor& tensor, int64_t row) {
  const int64_t size = tensor.size(-1);
  return {tensor.data_ptr<float>() + row * size, static_cast<size_t>(size)};
}

void bf16_products(const Tensor& a, const Tensor& b, Tensor out) {
  products().run(a, b, out, false);
}

void add_bf16_products(const Tensor& a, const Tensor& b, Tensor sum) {
  products().run(a, b, sum, true);
}

Tensor swiglu_of_bf16(const Tensor& gate, const Tensor& up) {
  return SwigluOfBf16::apply(gate, up);
}

}  // namespace mkv::training
