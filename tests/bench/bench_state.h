// The state that is measured: tensors of random bytes, the same whenever they are made for the same run.
#pragma once

#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <utility>

namespace ckpt::bench {

struct StateShape {
  std::size_t tensors = 0;
  std::size_t tensor_bytes = 0;  // a multiple of 8
};

// Makes them one after the other.
class TensorMaker {
 public:
  // Every run has other bytes in each page, so that a server that has one run's chunks has none of another's.
  TensorMaker(std::string run, std::size_t tensor_bytes) : run_(std::move(run)), tensor_bytes_(tensor_bytes) {}

  std::string Next() {
    std::string tensor(tensor_bytes_, '\0');
    for (std::size_t at = 0; at < tensor.size(); at += sizeof(std::uint64_t)) {
      const std::uint64_t value = random_();
      std::memcpy(tensor.data() + at, &value, sizeof value);
    }
    for (std::size_t at = 0; at + run_.size() <= tensor.size(); at += 4096) tensor.replace(at, run_.size(), run_);
    return tensor;
  }

 private:
  const std::string run_;
  const std::size_t tensor_bytes_;
  std::mt19937_64 random_{20260101};
};

}  // namespace ckpt::bench
