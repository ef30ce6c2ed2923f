// Which bytes of which tensor a chunk holds: the arithmetic is here and nowhere else.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/status.h"

namespace ckpt::client {

// A range of a tensor's bytes in memory order.
struct ByteRange {
  std::uint64_t offset_bytes = 0;
  std::uint64_t size_bytes = 0;
};

// The chunks of a state's tensors, numbered through from 0 ("ordinal"): tensor after tensor, and each tensor's from its
// start. A tensor here is one box. Tensors without chunks (inline, views, without elements) are added with size 0.
class ChunkLayout {
 public:
  // Where an ordinal is.
  struct Place {
    std::uint64_t tensor = 0;
    std::uint64_t index = 0;
  };

  explicit ChunkLayout(std::uint32_t chunk_size) : chunk_size_(chunk_size) { CKPT_CHECK(chunk_size != 0); }

  // Bytes of a chunk that is not its tensor's last.
  [[nodiscard]] std::uint32_t chunk_size() const { return chunk_size_; }

  static std::uint64_t Count(std::uint64_t size_bytes, std::uint32_t chunk_size) {
    return size_bytes / chunk_size + (size_bytes % chunk_size != 0 ? 1 : 0);
  }

  // Adds the next tensor.
  void Add(std::uint64_t size_bytes) {
    sizes_.push_back(size_bytes);
    first_.push_back(first_.back() + Count(size_bytes, chunk_size_));
  }

  [[nodiscard]] std::uint64_t tensor_count() const { return sizes_.size(); }
  [[nodiscard]] std::uint64_t chunk_count() const { return first_.back(); }
  [[nodiscard]] std::uint64_t chunk_count(std::uint64_t tensor) const { return first_[tensor + 1] - first_[tensor]; }

  // Ordinal of the tensor's first chunk.
  [[nodiscard]] std::uint64_t first(std::uint64_t tensor) const { return first_[tensor]; }

  [[nodiscard]] Place At(std::uint64_t ordinal) const {
    const auto after = std::upper_bound(first_.begin(), first_.end(), ordinal);
    const auto tensor = static_cast<std::uint64_t>(after - first_.begin()) - 1;
    return {tensor, ordinal - first_[tensor]};
  }

  [[nodiscard]] ByteRange Range(Place place) const {
    const std::uint64_t offset = place.index * chunk_size_;
    return {offset, std::min<std::uint64_t>(chunk_size_, sizes_[place.tensor] - offset)};
  }

 private:
  std::uint32_t chunk_size_;
  std::vector<std::uint64_t> sizes_;
  std::vector<std::uint64_t> first_ = {0};  // one more than there are tensors
};

}  // namespace ckpt::client
