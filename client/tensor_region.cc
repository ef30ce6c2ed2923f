#include "client/tensor_region.h"

#include <algorithm>

#include "base/data_type.h"
#include "base/status.h"

namespace ckpt::client {

TensorRegion TensorRegion::Whole(const v1::Tensor& tensor) {
  TensorRegion region;
  region.element_ = ElementSize(tensor.dtype());
  const auto order = DenseOrder(tensor);
  region.dims_.resize(order->size());
  auto stride = static_cast<std::int64_t>(region.element_);
  for (std::size_t d = order->size(); d-- > 0;) {
    const std::uint64_t extent = tensor.shape((*order)[d]);
    region.dims_[d] = {0, extent, stride};
    stride *= static_cast<std::int64_t>(extent);
  }
  return region;
}

TensorRegion TensorRegion::Of(const v1::Tensor& tensor, const Part& part) {
  TensorRegion region;
  region.element_ = ElementSize(tensor.dtype());
  const auto order = DenseOrder(tensor);
  for (const int dim : *order) {
    const auto d = static_cast<std::size_t>(dim);
    region.dims_.push_back({part.offset[d], part.shape[d], part.strides_bytes[d]});
  }
  return region;
}

bool TensorRegion::Meets(const v1::Box& box) const {
  for (std::size_t d = 0; d < dims_.size(); ++d) {
    const int i = static_cast<int>(d);
    if (box.offset(i) >= dims_[d].offset + dims_[d].extent || dims_[d].offset >= box.offset(i) + box.shape(i))
      return false;
  }
  return true;
}

// The box as rows: stretches of its bytes of which [begin, end) lie together in the region too.
struct TensorRegion::Rows {
  std::size_t outer = 0;  // how many dimensions count the rows
  std::uint64_t size = 0;
  std::uint64_t begin = 0;
  std::uint64_t end = 0;
  std::int64_t to = 0;  // where `begin` of the row at the box's start would be in the region
};

TensorRegion::Rows TensorRegion::RowsOf(const v1::Box& box) const {
  Rows rows{.outer = dims_.size(), .size = element_, .end = element_};
  for (bool whole = true; whole && rows.outer != 0;) {
    const std::size_t d = rows.outer - 1;
    const std::uint64_t offset = box.offset(static_cast<int>(d));
    const std::uint64_t extent = box.shape(static_cast<int>(d));
    // Neighbours in this dimension are neighbours in the region; those of extent 1 have none.
    if (extent != 1 && dims_[d].stride_bytes != static_cast<std::int64_t>(rows.size)) break;
    const std::uint64_t first = std::max(offset, dims_[d].offset) - offset;
    const std::uint64_t last = std::min(offset + extent, dims_[d].offset + dims_[d].extent) - offset;
    whole = first == 0 && last == extent;
    rows.begin = first * rows.size;
    rows.end = last * rows.size;
    rows.size *= extent;
    --rows.outer;
    rows.to += static_cast<std::int64_t>(offset + first - dims_[d].offset) * dims_[d].stride_bytes;
  }
  for (std::size_t d = 0; d < rows.outer; ++d)
    rows.to +=
        (static_cast<std::int64_t>(box.offset(static_cast<int>(d))) - static_cast<std::int64_t>(dims_[d].offset)) *
        dims_[d].stride_bytes;
  return rows;
}

std::pair<std::int64_t, std::int64_t> TensorRegion::Span() const {
  std::int64_t first = 0;
  std::int64_t end = static_cast<std::int64_t>(element_);
  for (const Dimension& dim : dims_) {
    if (dim.extent == 0) return {0, 0};
    const std::int64_t reach = static_cast<std::int64_t>(dim.extent - 1) * dim.stride_bytes;
    (reach < 0 ? first : end) += reach;
  }
  return {first, end};
}

bool TensorRegion::Meets(const v1::Box& box, ByteRange range) const {
  const absl::Status none = ForEachRun(box, range, [](const Run&) { return absl::CancelledError(); });
  return !none.ok();
}

absl::Status TensorRegion::ForEachRun(const v1::Box& box, ByteRange range,
                                      absl::FunctionRef<absl::Status(const Run& run)> take) const {
  if (!Meets(box)) return absl::OkStatus();
  const Rows rows = RowsOf(box);
  // The first row's index in each of the dimensions that count rows.
  std::vector<std::uint64_t> at(rows.outer);
  std::uint64_t row = range.offset_bytes / rows.size;
  for (std::uint64_t rest = row, d = rows.outer; d-- > 0;) {
    const std::uint64_t extent = box.shape(static_cast<int>(d));
    at[d] = rest % extent;
    rest /= extent;
  }
  const std::uint64_t end = range.offset_bytes + range.size_bytes;
  for (; row * rows.size < end; ++row) {
    bool inside = true;
    std::int64_t to = rows.to;
    for (std::size_t d = 0; d < rows.outer; ++d) {
      const std::uint64_t index = box.offset(static_cast<int>(d)) + at[d];
      inside &= index >= dims_[d].offset && index < dims_[d].offset + dims_[d].extent;
      to += static_cast<std::int64_t>(at[d]) * dims_[d].stride_bytes;
    }
    const std::uint64_t start = row * rows.size + rows.begin;
    const std::uint64_t from = std::max(start, range.offset_bytes);
    const std::uint64_t until = std::min(row * rows.size + rows.end, end);
    if (inside && from < until)
      CKPT_RETURN_IF_ERROR(take({from, to + static_cast<std::int64_t>(from - start), until - from}));
    for (std::size_t d = rows.outer; d-- > 0;) {
      if (++at[d] < box.shape(static_cast<int>(d))) break;
      at[d] = 0;
    }
  }
  return absl::OkStatus();
}

}  // namespace ckpt::client
