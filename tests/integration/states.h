// States to save, and how to see that they came back.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "ckpt/client.h"
#include "ckpt/state.h"

namespace ckpt::testing {

// CKPT_SEED, or a random number, printed once.
std::uint64_t Seed();

// Tensors' memory that stays where it is.
class Memory {
 public:
  explicit Memory(std::uint64_t seed = Seed()) : random_(seed) {}

  // A tensor of random bytes.
  Tensor Random(v1::DType dtype, std::vector<std::uint64_t> shape);
  // A row-major float32 tensor of `count` random elements.
  Tensor Floats(std::uint64_t count) { return Random(v1::DTYPE_FLOAT32, {count}); }

  // The bytes of a tensor that was made here, to change them.
  static char* BytesOf(const Tensor& tensor) { return static_cast<char*>(const_cast<void*>(tensor.data)); }

 private:
  std::mt19937_64 random_;
  std::deque<std::vector<std::uint64_t>> blocks_;
};

// {"model": OrderedDict of `tensors` as "t0", "t1", …, "epoch": epoch}.
State ModelState(const std::vector<Tensor>& tensors, std::int64_t epoch = 1);

// Reads the reference back whole, and expects it to be the state: nodes, descriptions and every byte.
void ExpectRestores(Client& client, std::string_view reference, const State& state);

}  // namespace ckpt::testing
