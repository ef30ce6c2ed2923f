// SHA-256 (FIPS 180-4) of two messages at once, block by block. A round of the processor's SHA instructions waits for
// the one before it, so one message leaves half of the unit idle; OpenSSL has no call for two.
#include "base/digest.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

#include <algorithm>
#endif

namespace ckpt {

#if defined(__x86_64__)
namespace {

constexpr std::size_t kBlock = 64;

#define CKPT_SHA __attribute__((target("sha,sse4.1")))

bool HasShaInstructions() {
  unsigned int a = 0;
  unsigned int b = 0;
  unsigned int c = 0;
  unsigned int d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & bit_SSE4_1) == 0) return false;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b & bit_SHA) != 0;
}

// FIPS 180-4, 4.2.2.
alignas(16) constexpr std::uint32_t kRoundConstants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

// The eight words of a hash value, a to h, as the instructions take them: the later letter in the lower lane.
struct ShaState {
  __m128i abef;
  __m128i cdgh;
};

// FIPS 180-4, 5.3.3.
CKPT_SHA ShaState InitialState() {
  return {_mm_setr_epi32(static_cast<int>(0x9b05688c), 0x510e527f, static_cast<int>(0xbb67ae85), 0x6a09e667),
          _mm_setr_epi32(0x5be0cd19, 0x1f83d9ab, static_cast<int>(0xa54ff53a), 0x3c6ef372)};
}

CKPT_SHA Digest DigestOf(const ShaState& state) {
  // To a, b, c, d and e, f, g, h; and each word to big-endian.
  const __m128i feba = _mm_shuffle_epi32(state.abef, 0x1b);  // a, b, e, f
  const __m128i hgdc = _mm_shuffle_epi32(state.cdgh, 0x1b);  // c, d, g, h
  const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  Digest out;
  auto* const to = reinterpret_cast<__m128i*>(out.bytes.data());
  _mm_storeu_si128(to, _mm_shuffle_epi8(_mm_unpacklo_epi64(feba, hgdc), swap));
  _mm_storeu_si128(to + 1, _mm_shuffle_epi8(_mm_unpackhi_epi64(feba, hgdc), swap));
  return out;
}

// Takes `blocks` blocks of each of N messages into its state: 64 rounds a block (FIPS 180-4, 6.2.2), four at a time,
// of all messages in turn.
template <std::size_t N>
CKPT_SHA void Compress(std::array<ShaState, N>& states, std::array<const std::byte*, N> data, std::size_t blocks) {
  const __m128i swap = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
  std::array<ShaState, N> now = states;
  for (; blocks != 0; --blocks) {
    __m128i words[N][4];  // the next 16 of the message schedule
    const std::array<ShaState, N> before = now;
#pragma GCC unroll 16
    for (std::size_t i = 0; i < 16; ++i) {
      const __m128i constants = _mm_load_si128(reinterpret_cast<const __m128i*>(kRoundConstants) + i);
#pragma GCC unroll 2
      for (std::size_t n = 0; n < N; ++n) {
        __m128i* const w = words[n];
        __m128i& current = w[i % 4];
        if (i < 4) current = _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i*>(data[n]) + i), swap);
        const __m128i sum = _mm_add_epi32(current, constants);
        now[n].cdgh = _mm_sha256rnds2_epu32(now[n].cdgh, now[n].abef, sum);
        if (i >= 3 && i < 15) {
          __m128i& next = w[(i + 1) % 4];
          next = _mm_add_epi32(next, _mm_alignr_epi8(current, w[(i + 3) % 4], 4));
          next = _mm_sha256msg2_epu32(next, current);
        }
        now[n].abef = _mm_sha256rnds2_epu32(now[n].abef, now[n].cdgh, _mm_shuffle_epi32(sum, 0x0e));
        if (i >= 1 && i < 13) w[(i + 3) % 4] = _mm_sha256msg1_epu32(w[(i + 3) % 4], current);
      }
    }
    for (std::size_t n = 0; n < N; ++n) {
      now[n].abef = _mm_add_epi32(now[n].abef, before[n].abef);
      now[n].cdgh = _mm_add_epi32(now[n].cdgh, before[n].cdgh);
      data[n] += kBlock;
    }
  }
  states = now;
}

// A message as runs of whole blocks, with its padding (FIPS 180-4, 5.1.1).
class Message {
 public:
  explicit Message(std::span<const Bytes> pieces) : pieces_(pieces) {
    for (const Bytes piece : pieces) bits_ += piece.size() * 8;
    Advance();
  }
  Message(const Message&) = delete;
  Message& operator=(const Message&) = delete;

  // Blocks that lie together; none at the end. `edge_` may hold them: they are good until Take.
  [[nodiscard]] Bytes run() const { return run_; }

  // So many blocks of the run have been taken.
  void Take(std::size_t blocks) {
    run_ = run_.subspan(blocks * kBlock);
    if (run_.empty()) Advance();
  }

 private:
  void Advance() {
    while (!pieces_.empty()) {
      const Bytes rest = pieces_.front().subspan(offset_);
      if (edge_size_ == 0 && rest.size() >= kBlock) {
        run_ = rest.first(rest.size() / kBlock * kBlock);
        offset_ += run_.size();
        return;
      }
      const std::size_t size = std::min(kBlock - edge_size_, rest.size());
      std::copy_n(rest.begin(), size, edge_.begin() + static_cast<std::ptrdiff_t>(edge_size_));
      edge_size_ += size;
      offset_ += size;
      if (size == rest.size()) {
        pieces_ = pieces_.subspan(1);
        offset_ = 0;
      }
      if (edge_size_ == kBlock) {
        run_ = Bytes(edge_).first(kBlock);
        edge_size_ = 0;
        return;
      }
    }
    if (!padded_) Pad();
  }

  void Pad() {
    padded_ = true;
    const std::size_t size = edge_size_ < kBlock - 8 ? kBlock : 2 * kBlock;
    std::fill(edge_.begin() + static_cast<std::ptrdiff_t>(edge_size_), edge_.end(), std::byte{0});
    edge_[edge_size_] = std::byte{0x80};
    for (std::size_t i = 0; i < 8; ++i) edge_[size - 1 - i] = static_cast<std::byte>(bits_ >> 8 * i);
    run_ = Bytes(edge_).first(size);
  }

  std::span<const Bytes> pieces_;  // that are not in a run yet
  std::size_t offset_ = 0;         // in the first of them
  std::uint64_t bits_ = 0;
  Bytes run_;
  std::array<std::byte, 2 * kBlock> edge_;  // a block across pieces, or the last ones
  std::size_t edge_size_ = 0;
  bool padded_ = false;
};

CKPT_SHA Digest Finish(Message& message, const ShaState& state) {
  std::array<ShaState, 1> one = {state};
  while (!message.run().empty()) {
    const std::size_t blocks = message.run().size() / kBlock;
    Compress<1>(one, {message.run().data()}, blocks);
    message.Take(blocks);
  }
  return DigestOf(one[0]);
}

CKPT_SHA std::array<Digest, 2> PairWithShaInstructions(std::span<const Bytes> a, std::span<const Bytes> b) {
  Message first(a);
  Message second(b);
  std::array<ShaState, 2> states = {InitialState(), InitialState()};
  while (!first.run().empty() && !second.run().empty()) {
    const std::size_t blocks = std::min(first.run().size(), second.run().size()) / kBlock;
    Compress<2>(states, {first.run().data(), second.run().data()}, blocks);
    first.Take(blocks);
    second.Take(blocks);
  }
  return {Finish(first, states[0]), Finish(second, states[1])};
}

}  // namespace

std::array<Digest, 2> Sha256Pair(std::span<const Bytes> a, std::span<const Bytes> b) {
  static const bool has_instructions = HasShaInstructions();
  if (has_instructions) return PairWithShaInstructions(a, b);
  return {Sha256(a), Sha256(b)};
}

#else

std::array<Digest, 2> Sha256Pair(std::span<const Bytes> a, std::span<const Bytes> b) { return {Sha256(a), Sha256(b)}; }

#endif

}  // namespace ckpt
