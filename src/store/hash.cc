#include "store/hash.h"

#include <openssl/evp.h>

#include <array>

#include "base/check.h"

namespace mkv {
namespace {

EVP_MD_CTX* as_context(void* context) { return static_cast<EVP_MD_CTX*>(context); }

}  // namespace

void Sha256::FreeContext::operator()(void* context) const { EVP_MD_CTX_free(as_context(context)); }

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  MKV_CHECK(context_ != nullptr);
  MKV_CHECK(EVP_DigestInit_ex(as_context(context_.get()), EVP_sha256(), nullptr) == 1);
}

void Sha256::update(std::span<const std::byte> bytes) {
  MKV_CHECK(EVP_DigestUpdate(as_context(context_.get()), bytes.data(), bytes.size()) == 1);
}

std::string Sha256::hex() const {
  // Finishing spends a context, so a copy is finished.
  const std::unique_ptr<void, FreeContext> copy(EVP_MD_CTX_new());
  MKV_CHECK(copy != nullptr);
  MKV_CHECK(EVP_MD_CTX_copy_ex(as_context(copy.get()), as_context(context_.get())) == 1);
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned size = 0;
  MKV_CHECK(EVP_DigestFinal_ex(as_context(copy.get()), digest.data(), &size) == 1);
  constexpr char kHex[] = "0123456789abcdef";
  std::string text;
  for (unsigned i = 0; i < size; ++i) text += {kHex[digest[i] >> 4], kHex[digest[i] & 15]};
  return text;
}

std::string sha256_hex(std::span<const std::byte> bytes) {
  Sha256 hash;
  hash.update(bytes);
  return hash.hex();
}

}  // namespace mkv
