// SHA-256, to name models, nests and cache blocks by their content.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace mkv {

class Sha256 {
 public:
  Sha256();

  void update(std::span<const std::byte> bytes);
  // 64 lower-case digits for all the bytes so far; more may follow.
  std::string hex() const;

 private:
  struct FreeContext {
    void operator()(void* context) const;
  };
  std::unique_ptr<void, FreeContext> context_;
};

std::string sha256_hex(std::span<const std::byte> bytes);

}  // namespace mkv
