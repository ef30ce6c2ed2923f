#include "client/examples/random.h"

#include <bit>
#include <numeric>
#include <utility>

namespace digits {

Random::Random(std::uint64_t seed) {
  for (std::uint64_t& word : state_) {
    seed += 0x9e3779b97f4a7c15;
    std::uint64_t z = seed;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    word = z ^ (z >> 31);
  }
}

std::uint64_t Random::Next() {
  const std::uint64_t result = std::rotl(state_[1] * 5, 7) * 9;
  const std::uint64_t shifted = state_[1] << 17;
  state_[2] ^= state_[0];
  state_[3] ^= state_[1];
  state_[1] ^= state_[2];
  state_[0] ^= state_[3];
  state_[2] ^= shifted;
  state_[3] = std::rotl(state_[3], 45);
  return result;
}

std::uint64_t Random::Below(std::uint64_t bound) {
  // The lowest 2^64 mod bound values are drawn again: what remains is a multiple of the bound.
  const std::uint64_t rejected = (0 - bound) % bound;
  std::uint64_t value = Next();
  while (value < rejected) value = Next();
  return value % bound;
}

float Random::Uniform(float low, float high) {
  const float unit = static_cast<float>(Next() >> 40) * 0x1p-24F;
  return low + (high - low) * unit;
}

std::vector<std::size_t> Random::Permutation(std::size_t count) {
  std::vector<std::size_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  for (std::size_t left = count; left > 1; --left) std::swap(order[left - 1], order[Below(left)]);
  return order;
}

}  // namespace digits
