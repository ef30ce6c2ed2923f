// The tensor is copied tile by tile. A tile is a box of elements that fits into memory, wide enough along the last
// dimensions for long writes and along those of the smallest strides for long reads.
#include "client/formats/row_major_copy.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "base/data_type.h"
#include "base/status.h"
#include "client/tensor_strides.h"

namespace ckpt::formats {
namespace {

constexpr std::uint64_t kTileSize = 16U << 20;
constexpr std::uint64_t kWriteSize = 16U << 10;  // of a tile's run in the target, if the tensor has such runs
constexpr std::uint64_t kMaxReadSize = 1U << 20;
constexpr std::uint64_t kReadGap = 4096;  // bytes between two elements that are rather read than left out

class Copier {
 public:
  Copier(const v1::Tensor& meta, const RowMajorCopy& copy, OutputFile& file)
      : copy_(copy),
        file_(file),
        element_(ElementSize(meta.dtype())),
        shape_(meta.shape().begin(), meta.shape().end()),
        by_stride_(shape_.size()),
        origin_(shape_.size()) {
    for (const std::int64_t stride : client::StridesOf(meta)) strides_.push_back(static_cast<std::uint64_t>(stride) * element_);
    std::iota(by_stride_.begin(), by_stride_.end(), std::size_t{0});
    std::stable_sort(by_stride_.begin(), by_stride_.end(),
                     [&](std::size_t a, std::size_t b) { return strides_[a] < strides_[b]; });
    ChooseTile();
  }

  absl::Status Run();

 private:
  void ChooseTile();
  bool NextTile();
  absl::Status CopyTile();
  void ChooseReadSize();
  absl::Status ReadTile();
  absl::Status WriteTile();

  const RowMajorCopy copy_;
  OutputFile& file_;
  const std::uint64_t element_;
  const std::vector<std::uint64_t> shape_;
  std::vector<std::uint64_t> strides_ = {};  // in bytes
  std::vector<std::size_t> by_stride_;       // dimensions, the one of the smallest stride first
  std::vector<std::uint64_t> tile_ = {};     // shape of all tiles but those at the edges

  // Of the tile that is being copied.
  std::vector<std::uint64_t> origin_;
  std::vector<std::uint64_t> extent_ = {};
  std::string bytes_ = {};  // row-major
  std::uint64_t read_size_ = 0;
};

void Copier::ChooseTile() {
  tile_.assign(shape_.size(), 1);
  std::uint64_t size = element_;
  const auto widen = [&](std::size_t d, std::uint64_t most) {
    const std::uint64_t others = size / tile_[d];
    tile_[d] = std::max(tile_[d], std::min(shape_[d], most / others));
    size = others * tile_[d];
  };
  for (std::size_t d = shape_.size(); d-- > 0;) widen(d, kWriteSize);
  for (const std::size_t d : by_stride_) widen(d, kTileSize);
}

absl::Status Copier::Run() {
  do {
    CKPT_RETURN_IF_ERROR(CopyTile());
  } while (NextTile());
  return absl::OkStatus();
}

// False after the last one.
bool Copier::NextTile() {
  for (std::size_t d = shape_.size(); d-- > 0;) {
    origin_[d] += tile_[d];
    if (origin_[d] < shape_[d]) return true;
    origin_[d] = 0;
  }
  return false;
}

absl::Status Copier::CopyTile() {
  extent_.clear();
  std::uint64_t size = element_;
  for (std::size_t d = 0; d < shape_.size(); ++d) {
    extent_.push_back(std::min(tile_[d], shape_[d] - origin_[d]));
    size *= extent_.back();
  }
  bytes_.resize(size);
  ChooseReadSize();
  CKPT_RETURN_IF_ERROR(ReadTile());
  return WriteTile();
}

// As far as the elements that follow one another in the file are close together.
void Copier::ChooseReadSize() {
  read_size_ = element_;
  for (const std::size_t d : by_stride_) {
    if (extent_[d] == 1) continue;
    if (strides_[d] > 2 * read_size_ + kReadGap) break;
    std::uint64_t more = 0;
    if (__builtin_mul_overflow(strides_[d], extent_[d] - 1, &more) || more >= kMaxReadSize - read_size_) {
      read_size_ = kMaxReadSize;
      break;
    }
    read_size_ += more;
  }
}

// Goes through the tile in the file's order.
absl::Status Copier::ReadTile() {
  std::vector<std::uint64_t> steps(shape_.size());  // in the tile
  std::uint64_t step = element_;
  for (std::size_t d = shape_.size(); d-- > 0; step *= extent_[d]) steps[d] = step;
  std::uint64_t from = copy_.from;
  std::uint64_t last = copy_.from + element_;  // end of the tile's last element
  for (std::size_t d = 0; d < shape_.size(); ++d) {
    from += origin_[d] * strides_[d];
    last += (origin_[d] + extent_[d] - 1) * strides_[d];
  }
  std::vector<std::uint64_t> index(shape_.size());
  std::string read;
  std::uint64_t read_from = 0;
  std::uint64_t to = 0;
  for (std::uint64_t done = 0; done < bytes_.size(); done += element_) {
    if (from < read_from || from + element_ > read_from + read.size()) {
      CKPT_ASSIGN_OR_RETURN(read, file_.ReadAt(from, std::min(read_size_, last - from)));
      read_from = from;
    }
    std::memcpy(bytes_.data() + to, read.data() + (from - read_from), element_);
    for (const std::size_t d : by_stride_) {
      from += strides_[d];
      to += steps[d];
      if (++index[d] < extent_[d]) break;
      from -= strides_[d] * index[d];
      to -= steps[d] * index[d];
      index[d] = 0;
    }
  }
  return absl::OkStatus();
}

absl::Status Copier::WriteTile() {
  // The last dimensions in which the tile is as wide as the tensor, and the one before, are one run of the target.
  std::size_t outer = shape_.size();
  std::uint64_t run = element_;
  for (bool whole = true; whole && outer > 0;) {
    --outer;
    run *= extent_[outer];
    whole = extent_[outer] == shape_[outer];
  }
  std::vector<std::uint64_t> steps(shape_.size());  // in the target
  std::uint64_t step = element_;
  for (std::size_t d = shape_.size(); d-- > 0; step *= shape_[d]) steps[d] = step;
  std::uint64_t to = copy_.to;
  for (std::size_t d = 0; d < shape_.size(); ++d) to += origin_[d] * steps[d];
  std::vector<std::uint64_t> index(outer);
  for (std::uint64_t done = 0; done < bytes_.size(); done += run) {
    CKPT_RETURN_IF_ERROR(file_.WriteAt(to, std::string_view(bytes_).substr(done, run)));
    for (std::size_t d = outer; d-- > 0;) {
      to += steps[d];
      if (++index[d] < extent_[d]) break;
      to -= steps[d] * index[d];
      index[d] = 0;
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CopyRowMajor(const v1::Tensor& meta, const RowMajorCopy& copy, OutputFile& file) {
  const auto& shape = meta.shape();
  if (std::find(shape.begin(), shape.end(), 0U) != shape.end()) return absl::OkStatus();
  return Copier(meta, copy, file).Run();
}

}  // namespace ckpt::formats
