// The two ways in which a chunk's bytes are summed up: the digest, which is its identity, and the fingerprint, which
// proves cheaply that no byte changed by accident.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace ckpt {

// A fixed-size string of bytes, comparable and hashable. Tag keeps digests and fingerprints apart.
template <typename Tag, std::size_t N>
struct ByteString {
  static constexpr std::size_t kSize = N;
  std::array<std::uint8_t, N> bytes{};

  // From exactly N bytes; nullopt for any other length.
  static std::optional<ByteString> From(std::string_view data) {
    if (data.size() != N) return std::nullopt;
    ByteString out;
    std::memcpy(out.bytes.data(), data.data(), N);
    return out;
  }
  // Number `index` of a list of them that stand one after the other in `list`.
  static ByteString At(std::string_view list, std::size_t index) { return *From(list.substr(index * N, N)); }

  [[nodiscard]] std::string_view view() const { return {reinterpret_cast<const char*>(bytes.data()), N}; }
  [[nodiscard]] std::string ToHex() const;  // lower-case

  auto operator<=>(const ByteString&) const = default;

  template <typename H>
  friend H AbslHashValue(H h, const ByteString& value) {
    std::uint64_t word;  // the content is random: any 8 bytes of it do
    std::memcpy(&word, value.bytes.data(), sizeof word);
    return H::combine(std::move(h), word);
  }
};

// SHA-256 of raw bytes: a chunk's identity.
using Digest = ByteString<struct DigestTag, 32>;

// XXH3-128 of raw bytes in xxHash's canonical (big-endian) form. Never an identity.
using Fingerprint = ByteString<struct FingerprintTag, 16>;

using Bytes = std::span<const std::byte>;

inline Bytes AsBytes(std::string_view s) { return std::as_bytes(std::span(s.data(), s.size())); }
inline std::string_view AsChars(Bytes b) { return {reinterpret_cast<const char*>(b.data()), b.size()}; }

// SHA-256 over the concatenation of the pieces.
Digest Sha256(std::span<const Bytes> pieces);
Digest Sha256(Bytes data);
inline Digest Sha256(std::string_view data) { return Sha256(AsBytes(data)); }

// SHA-256 of each of two. Where the processor has SHA instructions it takes little more than half the time of two
// calls, as far as the shorter one goes.
std::array<Digest, 2> Sha256Pair(std::span<const Bytes> a, std::span<const Bytes> b);

// XXH3-128 (seed 0) over the concatenation of the pieces.
Fingerprint Xxh3(std::span<const Bytes> pieces);
Fingerprint Xxh3(Bytes data);
inline Fingerprint Xxh3(std::string_view data) { return Xxh3(AsBytes(data)); }

// Lower-case hexadecimal.
std::string ToHex(std::string_view bytes);

template <typename Tag, std::size_t N>
std::string ByteString<Tag, N>::ToHex() const {
  return ::ckpt::ToHex(view());
}

}  // namespace ckpt
