// Which bytes of which tensor a chunk holds: the arithmetic is here and nowhere else.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "base/status.h"

namespace ckpt::client {

// A range of a box's bytes in memory order.
struct ByteRange {
  std::uint64_t offset_bytes = 0;
  std::uint64_t size_bytes = 0;
};

// The chunks of a state's tensors, numbered through from 0 ("ordinal"): tensor after tensor, of each box after box, and
// of each box from its start. Tensors without chunks (inline, views, without elements) are added without boxes.
class ChunkLayout {
 public:
  // Where an ordinal is. `index` counts the tensor's chunks over its boxes.
  struct Place {
    std::uint64_t tensor = 0;
    std::uint64_t index = 0;
  };

  // The same, by box: the box's number in its tensor, the chunk's in its box, and its bytes there.
  struct BoxPlace {
    std::uint64_t box = 0;
    std::uint64_t index = 0;
    ByteRange range;
  };

  explicit ChunkLayout(std::uint32_t chunk_size) : chunk_size_(chunk_size) { CKPT_CHECK(chunk_size != 0); }

  // Bytes of a chunk that is not its box's last.
  [[nodiscard]] std::uint32_t chunk_size() const { return chunk_size_; }

  static std::uint64_t Count(std::uint64_t size_bytes, std::uint32_t chunk_size) {
    return size_bytes / chunk_size + (size_bytes % chunk_size != 0 ? 1 : 0);
  }

  // Adds the next tensor, whose boxes have so many bytes.
  void Add(std::span<const std::uint64_t> box_sizes) {
    for (const std::uint64_t size : box_sizes) {
      boxes_.push_back({next_, size});
      next_ += Count(size, chunk_size_);
    }
    tensors_.push_back({next_, boxes_.size()});
  }
  // The same of a tensor that is one box, or none if it has no bytes.
  void Add(std::uint64_t size_bytes) { Add(std::span(&size_bytes, size_bytes == 0 ? 0 : 1)); }

  [[nodiscard]] std::uint64_t tensor_count() const { return tensors_.size() - 1; }
  [[nodiscard]] std::uint64_t chunk_count() const { return next_; }
  [[nodiscard]] std::uint64_t chunk_count(std::uint64_t tensor) const { return first(tensor + 1) - first(tensor); }
  [[nodiscard]] std::uint64_t box_count(std::uint64_t tensor) const {
    return tensors_[tensor + 1].first_box - tensors_[tensor].first_box;
  }
  [[nodiscard]] std::uint64_t box_chunk_count(std::uint64_t tensor, std::uint64_t box) const {
    return Count(boxes_[tensors_[tensor].first_box + box].size_bytes, chunk_size_);
  }

  // Ordinal of the tensor's first chunk, and of its box's.
  [[nodiscard]] std::uint64_t first(std::uint64_t tensor) const { return tensors_[tensor].first_chunk; }
  [[nodiscard]] std::uint64_t first(std::uint64_t tensor, std::uint64_t box) const {
    return boxes_[tensors_[tensor].first_box + box].first_chunk;
  }

  [[nodiscard]] Place At(std::uint64_t ordinal) const {
    const auto after = std::upper_bound(tensors_.begin(), tensors_.end(), ordinal,
                                        [](std::uint64_t o, const Tensor& tensor) { return o < tensor.first_chunk; });
    const auto tensor = static_cast<std::uint64_t>(after - tensors_.begin()) - 1;
    return {tensor, ordinal - first(tensor)};
  }

  [[nodiscard]] BoxPlace InBox(Place place) const {
    const auto begin = boxes_.begin() + static_cast<std::ptrdiff_t>(tensors_[place.tensor].first_box);
    const auto end = boxes_.begin() + static_cast<std::ptrdiff_t>(tensors_[place.tensor + 1].first_box);
    const std::uint64_t ordinal = first(place.tensor) + place.index;
    const auto box =
        std::upper_bound(begin, end, ordinal, [](std::uint64_t o, const Box& b) { return o < b.first_chunk; }) - 1;
    const std::uint64_t index = ordinal - box->first_chunk;
    const std::uint64_t offset = index * chunk_size_;
    return {static_cast<std::uint64_t>(box - begin),
            index,
            {offset, std::min<std::uint64_t>(chunk_size_, box->size_bytes - offset)}};
  }

 private:
  struct Box {
    std::uint64_t first_chunk;
    std::uint64_t size_bytes;
  };
  struct Tensor {
    std::uint64_t first_chunk;
    std::uint64_t first_box;
  };

  std::uint32_t chunk_size_;
  std::uint64_t next_ = 0;
  std::vector<Box> boxes_;
  std::vector<Tensor> tensors_ = {{0, 0}};  // one more than there are
};

}  // namespace ckpt::client
