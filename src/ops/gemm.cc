#include "ops/gemm.h"

#include <dnnl.h>

// Declared here because <omp.h> comes with the compiler, and clang's is for another runtime than
// the one Debian's oneDNN is linked with.
extern "C" void omp_set_num_threads(int threads);

namespace mkv {

namespace {

// Rows and columns as oneDNN takes them; op is 'N' or 'T'.
void product(char a_op, char b_op, size_t k, View<const float> a, View<const float> b, float beta,
             View<float> c) {
  if (c.rows == 0 || c.cols == 0) return;
  const auto dim = [](size_t n) { return static_cast<dnnl_dim_t>(n); };
  // Our workers are the parallelism. The setting belongs to the calling thread and costs a store.
  omp_set_num_threads(1);
  const dnnl_status_t status =
      dnnl_sgemm(a_op, b_op, dim(c.rows), dim(c.cols), dim(k), 1.0f, a.data, dim(a.stride), b.data,
                 dim(b.stride), beta, c.data, dim(c.stride));
  MKV_CHECK(status == dnnl_success);
}

}  // namespace

void gemm(View<const float> a, View<const float> b, Transpose b_transposed, float beta,
          View<float> c) {
  const bool transposed = b_transposed == Transpose::yes;
  MKV_CHECK(a.rows == c.rows && c.cols == (transposed ? b.rows : b.cols));
  MKV_CHECK(a.cols == (transposed ? b.cols : b.rows));
  product('N', transposed ? 'T' : 'N', a.cols, a, b, beta, c);
}

void add_transposed(View<const float> a, View<const float> b, View<float> c) {
  MKV_CHECK(a.cols == c.rows && b.cols == c.cols && a.rows == b.rows);
  product('T', 'N', a.rows, a, b, 1.0f, c);
}

}  // namespace mkv
