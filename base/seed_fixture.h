// Randomness that can be had again.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <random>

namespace ckpt {

// Seeded with CKPT_SEED, or anew; prints the seed.
inline std::mt19937_64 SeededRandom() {
  const char* given = std::getenv("CKPT_SEED");
  const std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
  std::cout << "CKPT_SEED=" << seed << std::endl;
  return std::mt19937_64(seed);
}

}  // namespace ckpt
