// AMX: eight registers of 16 rows x 64 bytes and their products, of bytes (a tile of 16 x 64 times
// 64 x 16) and of bf16 (16 x 32 times 32 x 16). The right side has four bytes, or two bf16, of a
// column beside each other. Kernels that use it ask has_amx() (ops/instruction_set.h) and hold a
// TileScope.
#pragma once

#include <hwy/base.h>

#include <cstddef>
#include <cstdint>

namespace mkv {

inline constexpr size_t kAmxTiles = 8, kAmxRows = 16, kAmxRowBytes = 64;

// Whether the processor has it and the system lets this process use it (it must be asked on Linux).
bool machine_has_amx();

// The shapes of the tiles, as the processor reads them.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};

  // All eight tiles of 16 rows x 64 bytes.
  static constexpr TileConfig whole() {
    TileConfig config;
    for (size_t i = 0; i < kAmxTiles; ++i) {
      config.row_bytes[i] = kAmxRowBytes;
      config.rows[i] = kAmxRows;
    }
    return config;
  }
};

// This thread's tiles have these shapes for as long as this lives; tiles in use make every switch
// of threads dearer, so it ends with the kernel. Not nested. Only where has_amx().
class TileScope {
 public:
  explicit TileScope(const TileConfig& config);
  ~TileScope();
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
};

}  // namespace mkv
