#include "base/digest.h"

#include <gtest/gtest.h>

namespace ckpt {
namespace {

TEST(Digest, IsSha256) {
  // FIPS 180-4's example.
  EXPECT_EQ(Sha256("abc").ToHex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST(Digest, PiecesAreOneText) {
  const std::array<Bytes, 3> pieces = {AsBytes("a"), AsBytes(""), AsBytes("bc")};
  EXPECT_EQ(Sha256(pieces), Sha256("abc"));
  EXPECT_EQ(Xxh3(pieces), Xxh3("abc"));
}

TEST(Fingerprint, IsCanonicalXxh3) {
  // xxHash's own sanity value for the empty input, seed 0.
  EXPECT_EQ(Xxh3("").ToHex(), "99aa06d3014798d86001c324468d497f");
}

TEST(ByteString, RefusesOtherLengths) {
  EXPECT_FALSE(Digest::From("short").has_value());
  EXPECT_TRUE(Digest::From(std::string(32, 'x')).has_value());
}

}  // namespace
}  // namespace ckpt
