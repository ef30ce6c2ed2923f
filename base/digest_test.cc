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
  // Long inputs take another way, by what vectors the processor has.
  std::string data(1 << 20, '\0');
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<char>(i * 7 + i / 256);
  EXPECT_EQ(Xxh3(data).ToHex(), "8791ce561b8e4239a7f4639f0ccbfda9");
  std::vector<Bytes> pieces;
  for (std::size_t at = 0, size = 1; at < data.size(); at += size, size = size * 3 % 70'001)
    pieces.push_back(AsBytes(std::string_view(data).substr(at, size)));
  EXPECT_EQ(Xxh3(pieces).ToHex(), "8791ce561b8e4239a7f4639f0ccbfda9");
}

TEST(ByteString, RefusesOtherLengths) {
  EXPECT_FALSE(Digest::From("short").has_value());
  EXPECT_TRUE(Digest::From(std::string(32, 'x')).has_value());
}

}  // namespace
}  // namespace ckpt
