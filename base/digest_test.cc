#include "base/digest.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <random>
#include <vector>

#include "base/seed_fixture.h"

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

// The text in pieces of random sizes, some of them empty.
std::vector<Bytes> Pieces(std::string_view text, std::mt19937_64& random) {
  std::vector<Bytes> pieces;
  while (!text.empty()) {
    const std::size_t limit = random() % 2 == 0 ? 100 : 5000;
    const std::size_t size = std::min<std::size_t>(text.size(), random() % limit);
    pieces.push_back(AsBytes(text.substr(0, size)));
    text.remove_prefix(size);
  }
  return pieces;
}

TEST(Digest, OfAPairIsThatOfEach) {
  std::mt19937_64 random = SeededRandom();
  std::string data(1 << 20, '\0');
  for (char& c : data) c = static_cast<char>(random() >> 8);
  const std::string_view text = data;
  const auto expect_same = [&](std::string_view a, std::string_view b) {
    EXPECT_EQ(Sha256Pair(Pieces(a, random), Pieces(b, random)), (std::array{Sha256(a), Sha256(b)}))
        << a.size() << " and " << b.size() << " bytes";
  };
  // All lengths about the end of a block, where the padding takes one block or two.
  for (std::size_t a = 0; a <= 130; ++a) expect_same(text.substr(7, a), text.substr(a, (a * 37) % 131));
  for (int i = 0; i < 200; ++i)
    expect_same(text.substr(random() % 3000, random() % 20'000), text.substr(0, random() % 20'000));
  expect_same(text, text.substr(1));
  expect_same(text, "");
  expect_same("", text);
  const std::array whole = {AsBytes(text)};
  EXPECT_EQ(Sha256Pair(whole, whole), (std::array{Sha256(text), Sha256(text)}));
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
