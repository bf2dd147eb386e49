// Which instruction set the vector kernels run: the best of the machine, unless lowered here.
#pragma once

#include <string_view>
#include <vector>

#include "base/result.h"

namespace mkv {

// Names of the sets that this build has kernels for and this machine runs, best first, e.g.
// avx512_amx, avx512_vnni, avx512, avx2_vnni, avx2, sse4, ssse3, scalar.
std::vector<std::string_view> instruction_sets();

// The one in use.
std::string_view instruction_set();

// Uses `name` and nothing better; "auto" is the best. Call it before any other thread computes.
// oneDNN (ops/gemm.h) follows only if it has not run yet, and never below sse4.
Result<void> set_instruction_set(std::string_view name);

// Whether products of tiles (AMX, of bytes and of bf16; ops/amx.h) may be used: the machine has
// them, and the set in use is avx512_amx.
bool has_amx();
// Whether integer dot products (AVX-512 VNNI) may be used: the machine has them, and the set in use
// is avx512_vnni or avx512_amx.
bool has_vnni();
// The same for those of AVX2 (AVX-VNNI) and avx2_vnni.
bool has_avx2_vnni();
// Whether AVX2 and FMA may be used: the set in use is avx2 or one above it.
bool has_avx2();

}  // namespace mkv
