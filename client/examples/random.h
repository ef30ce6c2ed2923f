// Random numbers whose whole state is 32 bytes that a checkpoint can hold.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace digits {

// xoshiro256** (Blackman and Vigna, 2018). The algorithms are written out here, distributions and shuffling too: those
// of the C++ library may differ from one build to the next, and a resumed run must draw what the interrupted one would
// have drawn. Not thread-safe.
class Random {
 public:
  using State = std::array<std::uint64_t, 4>;

  // The state comes from the seed by SplitMix64, as the authors recommend.
  explicit Random(std::uint64_t seed);

  // The next 64 bits.
  std::uint64_t Next();

  // A number below `bound` (which is positive), each equally likely.
  std::uint64_t Below(std::uint64_t bound);

  // A number from [low, high), one of 2^24 equally spaced ones.
  float Uniform(float low, float high);

  // The numbers below `count`, each order equally likely (Fisher-Yates).
  std::vector<std::size_t> Permutation(std::size_t count);

  // What a checkpoint saves, and writes back on a restore. Never all zero.
  State& state() { return state_; }

 private:
  State state_;
};

}  // namespace digits
