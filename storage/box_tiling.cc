#include "storage/box_tiling.h"

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/box.h"
#include "base/data_type.h"
#include "base/status.h"
#include "base/utf8.h"
#include "storage/limits.h"

namespace ckpt::storage {
namespace {

// Copies a box of a tensor of a few bytes into its place.
void Place(const v1::Box& box, const v1::Box& whole, std::uint32_t element, std::string& bytes) {
  const int dims = box.shape_size();
  std::vector<std::uint64_t> at(static_cast<std::size_t>(dims));
  for (std::size_t from = 0; from < box.inline_data().size(); from += element) {
    std::uint64_t to = 0;
    for (int d = 0; d < dims; ++d) to = to * whole.shape(d) + box.offset(d) + at[static_cast<std::size_t>(d)];
    box.inline_data().copy(&bytes[to * element], element, from);
    for (int d = dims - 1; d >= 0 && ++at[static_cast<std::size_t>(d)] == box.shape(d); --d)
      at[static_cast<std::size_t>(d)] = 0;
  }
}

}  // namespace

absl::Status TileBoxes(v1::Tensor& tensor) {
  auto& boxes = *tensor.mutable_boxes();
  std::sort(boxes.begin(), boxes.end(), IsBefore);
  int kept = 0;
  for (int i = 0; i < boxes.size(); ++i) {
    if (kept != 0 && !IsBefore(boxes[kept - 1], boxes[i])) {  // of the same place, as they are sorted
      if (boxes[kept - 1].digests() != boxes[i].digests() || boxes[kept - 1].inline_data() != boxes[i].inline_data())
        return MakeError(absl::StatusCode::kInvalidArgument, "RANKS_DIFFER",
                         absl::StrCat("tensor ", PrintableUtf8(tensor.path()),
                                      ": two ranks saved the same part of it, with different bytes"));
      continue;
    }
    if (kept != i) boxes.SwapElements(kept, i);
    ++kept;
  }
  boxes.DeleteSubrange(kept, boxes.size() - kept);
  CKPT_RETURN_IF_ERROR(CheckTiling(tensor));
  if (tensor.ByteSizeLong() > kMaxTensorBytes)
    return MakeError(absl::StatusCode::kInvalidArgument, "TENSOR_TOO_LARGE",
                     absl::StrCat("tensor ", PrintableUtf8(tensor.path()), ": it has too many chunks; split it"));
  if (boxes.empty() || boxes[0].inline_data().empty()) return absl::OkStatus();
  CKPT_ASSIGN_OR_RETURN(const std::uint64_t size, SizeBytes(tensor));
  std::string bytes(size, '\0');
  const v1::Box whole = WholeBox(tensor);
  for (const v1::Box& box : boxes) Place(box, whole, ElementSize(tensor.dtype()), bytes);
  boxes.Clear();
  tensor.set_inline_data(std::move(bytes));
  return absl::OkStatus();
}

}  // namespace ckpt::storage
