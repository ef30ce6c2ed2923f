// Where bytes of a box go in another part of the same tensor: the n-dimensional arithmetic of restores is here.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "ckpt/v1/state.pb.h"
#include "client/chunk_layout.h"

namespace ckpt::client {

// A part of a tensor, laid out in memory in some way. Dimensions are the tensor's in memory order, as boxes count them.
// Thread-safe.
class TensorRegion {
 public:
  // The whole tensor in memory order; its layout must be dense.
  static TensorRegion Whole(const v1::Tensor& tensor);

  // A part of the tensor, with the distance in bytes of two neighbours in each dimension. All are given in the tensor's
  // own dimensions. The part must lie within the tensor.
  struct Part {
    std::span<const std::uint64_t> offset;
    std::span<const std::uint64_t> shape;
    std::span<const std::int64_t> strides_bytes;
  };
  static TensorRegion Of(const v1::Tensor& tensor, const Part& part);

  // True when the region has some of a range of the box's bytes.
  [[nodiscard]] bool Meets(const v1::Box& box, ByteRange range) const;

  // From the region's first element: where its lowest byte is, and where its highest one ends.
  [[nodiscard]] std::pair<std::int64_t, std::int64_t> Span() const;

  // A stretch of bytes that lie together in a box and in the region.
  struct Run {
    std::uint64_t from = 0;  // in the box's bytes
    std::int64_t to = 0;     // in the region's memory, from its first element
    std::uint64_t size = 0;
  };

  // Calls `take` with those bytes of a range of the box's that are in the region, run by run in rising order of `from`,
  // until it fails.
  absl::Status ForEachRun(const v1::Box& box, ByteRange range,
                          absl::FunctionRef<absl::Status(const Run& run)> take) const;

 private:
  struct Dimension {
    std::uint64_t offset = 0;
    std::uint64_t extent = 0;
    std::int64_t stride_bytes = 0;
  };
  struct Rows;

  [[nodiscard]] bool Meets(const v1::Box& box) const;
  [[nodiscard]] Rows RowsOf(const v1::Box& box) const;

  std::uint64_t element_ = 0;  // bytes
  std::vector<Dimension> dims_;
};

}  // namespace ckpt::client
