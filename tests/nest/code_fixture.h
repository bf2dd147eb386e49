// A small nest of code slabs with random bases and codebooks.
#pragma once

#include "base/half.h"
#include "nest/fixture.h"

namespace mkv {

inline float to_f16(double x) { return f16_to_f32(f32_to_f16(static_cast<float>(x))); }

// `slabs` a space, in an order that visits columns unevenly; entries shrink as residuals do. What
// the nest file keeps at 16 bits is rounded to that.
inline Nest make_code_nest(NestConfig config, size_t slabs, uint64_t seed) {
  config.slab_kind = SlabKind::code;
  Nest nest = std::move(Nest::create(config)).value();
  fill_random_bases(nest, seed);
  Rng rng(seed);
  for (size_t space = 0; space < nest.spaces(); ++space) {
    Basis& basis = nest.basis(nest.unflat(space));
    for (float& x : basis.decode.span()) x = to_f16(x);
    std::vector<size_t> stages(nest.dims() / kSlabColumns, 0);
    for (size_t s = 0; s < slabs; ++s) {
      const size_t group = std::min(rng.below(stages.size()), rng.below(stages.size()));
      CodeSlab slab;
      slab.first_column = static_cast<uint16_t>(group * kSlabColumns);
      const double size = std::pow(0.6, static_cast<double>(stages[group]++));
      for (size_t c = 0; c < kSlabColumns; ++c) {
        for (float& x : slab.codebook.entry[c]) x = to_f16(size * rng.normal());
        slab.scale[c] = to_f16(1.0 + 0.2 * rng.uniform());
      }
      basis.slabs.push_back(slab);
    }
  }
  MKV_CHECK(nest.set_ladder(uniform_ladder(nest, 1)).has_value());
  return nest;
}

}  // namespace mkv
