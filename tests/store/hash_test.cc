#include "store/hash.h"

#include <gtest/gtest.h>

#include <string>

#include "store/gguf_builder.h"

namespace mkv {
namespace {

using testing::bytes_of;

// The vectors of FIPS 180-4's examples.
TEST(Sha256, KnownValues) {
  EXPECT_EQ(sha256_hex({}), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex(bytes_of("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex(bytes_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST(Sha256, PiecesAreTheWhole) {
  Sha256 hash;
  const std::string million(1'000'000, 'a');
  for (size_t i = 0; i < million.size(); i += 7) {
    hash.update(bytes_of(std::string_view(million).substr(i, 7)));
    if (i == 700) hash.hex();  // asking in between changes nothing
  }
  EXPECT_EQ(hash.hex(), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  Sha256 moved = std::move(hash);
  EXPECT_EQ(moved.hex(), sha256_hex(bytes_of(million)));
}

}  // namespace
}  // namespace mkv
