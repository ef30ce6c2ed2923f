#include "base/box.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/data_type.h"
#include "base/status.h"
#include "base/utf8.h"

namespace ckpt {
namespace {

bool Overlap(const v1::Box& a, const v1::Box& b) {
  for (int i = 0; i < a.shape_size(); ++i)
    if (a.offset(i) >= b.offset(i) + b.shape(i) || b.offset(i) >= a.offset(i) + a.shape(i)) return false;
  return true;
}

std::string Show(const v1::Box& box) {
  return absl::StrCat("[", absl::StrJoin(box.offset(), ", "), "] + [", absl::StrJoin(box.shape(), ", "), "]");
}

absl::Status Invalid(std::string_view reason, const v1::Tensor& tensor, const std::string& what) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason,
                   absl::StrCat("tensor ", PrintableUtf8(tensor.path()), ": ", what));
}

}  // namespace

v1::Box WholeBox(const v1::Tensor& tensor) {
  v1::Box whole;
  const auto order = DenseOrder(tensor);
  for (const int dim : *order) {
    whole.add_offset(0);
    whole.add_shape(tensor.shape(dim));
  }
  return whole;
}

std::uint64_t BoxBytes(const v1::Tensor& tensor, const v1::Box& box) {
  std::uint64_t size = ElementSize(tensor.dtype());
  for (const std::uint64_t extent : box.shape()) size *= extent;
  return size;
}

absl::Status CheckBox(const v1::Tensor& tensor, const v1::Box& box) {
  const v1::Box whole = WholeBox(tensor);
  if (box.offset_size() != whole.shape_size() || box.shape_size() != whole.shape_size())
    return Invalid("BAD_BOX", tensor, "a box has not as many dimensions as the tensor");
  for (int i = 0; i < box.shape_size(); ++i)
    if (box.shape(i) == 0 || box.offset(i) > whole.shape(i) || box.shape(i) > whole.shape(i) - box.offset(i))
      return Invalid("BAD_BOX", tensor, absl::StrCat("its box ", Show(box), " is empty or reaches beyond it"));
  return absl::OkStatus();
}

bool IsBefore(const v1::Box& a, const v1::Box& b) {
  if (!std::equal(a.offset().begin(), a.offset().end(), b.offset().begin(), b.offset().end()))
    return std::lexicographical_compare(a.offset().begin(), a.offset().end(), b.offset().begin(), b.offset().end());
  return std::lexicographical_compare(a.shape().begin(), a.shape().end(), b.shape().begin(), b.shape().end());
}

absl::Status CheckTiling(const v1::Tensor& tensor) {
  if (tensor.boxes_size() > kMaxBoxes)
    return Invalid("BOXES_DO_NOT_TILE", tensor,
                   absl::StrCat("it is in ", tensor.boxes_size(), " boxes, more than ", kMaxBoxes));
  std::uint64_t covered = 0;
  for (int i = 0; i < tensor.boxes_size(); ++i) {
    const v1::Box& box = tensor.boxes(i);
    // Those that begin in it, in the first dimension, come next.
    for (int j = i + 1; j < tensor.boxes_size(); ++j) {
      const v1::Box& next = tensor.boxes(j);
      if (box.shape_size() != 0 && next.offset(0) >= box.offset(0) + box.shape(0)) break;
      if (Overlap(box, next))
        return Invalid("BOXES_DO_NOT_TILE", tensor,
                       absl::StrCat("its boxes ", Show(box), " and ", Show(next), " overlap"));
    }
    covered += BoxBytes(tensor, box);  // no more than the whole, as long as none overlaps
  }
  CKPT_ASSIGN_OR_RETURN(const std::uint64_t size, SizeBytes(tensor));
  if (covered == size) return absl::OkStatus();
  return Invalid("BOXES_DO_NOT_TILE", tensor,
                 absl::StrCat("its boxes have ", covered, " of its ", size, " bytes: some of it was saved by nobody"));
}

}  // namespace ckpt
