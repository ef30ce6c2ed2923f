// The state that is measured: tensors of 16 MiB of random bytes.
#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

namespace ckpt::bench {

// So many MiB, a multiple of 16, the same in every call.
inline std::vector<std::string> MakeTensors(std::size_t mib) {
  std::mt19937_64 random(20260101);
  std::vector<std::string> tensors(mib / 16);
  for (std::string& tensor : tensors) {
    tensor.resize(std::size_t{16} << 20);
    for (std::size_t at = 0; at < tensor.size(); at += sizeof(std::uint64_t)) {
      const std::uint64_t value = random();
      std::memcpy(tensor.data() + at, &value, sizeof value);
    }
  }
  return tensors;
}

}  // namespace ckpt::bench
