#include "client/storage_views.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/data_type.h"
#include "base/state_walk.h"
#include "base/status.h"
#include "base/utf8.h"
#include "client/tensor_strides.h"

namespace ckpt::client {
namespace {

constexpr std::size_t kNone = std::numeric_limits<std::size_t>::max();

// Where a hidden tensor may begin: a multiple of every element's size, so that views of any type can be written again.
constexpr std::uint64_t kAlignment = 16;

bool SameView(const v1::Tensor& a, const v1::Tensor& b) {
  return a.dtype() == b.dtype() && std::equal(a.shape().begin(), a.shape().end(), b.shape().begin(), b.shape().end()) &&
         std::equal(a.strides().begin(), a.strides().end(), b.strides().begin(), b.strides().end());
}

}  // namespace

std::size_t StorageViews::AddStorage(std::string_view bytes) {
  storages_.push_back({.bytes = bytes});
  return storages_.size() - 1;
}

std::uint64_t StorageViews::AddTensor(Tensor tensor) {
  views_.push_back({.tensor = std::move(tensor), .storage = kNone});
  return views_.size() - 1;
}

absl::StatusOr<std::uint64_t> StorageViews::AddView(v1::Tensor meta, std::size_t storage, std::uint64_t offset_bytes) {
  CKPT_ASSIGN_OR_RETURN(const std::uint64_t size, SizeBytes(meta));
  if (size == 0) return AddTensor({std::move(meta), nullptr});
  CKPT_ASSIGN_OR_RETURN(const std::uint64_t reach, ReachBytes(meta));
  if (storage >= storages_.size())
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_TENSOR",
                     absl::StrCat(PrintableUtf8(meta.path()), ": there is no storage ", storage));
  Storage& shown = storages_[storage];
  if (offset_bytes > shown.bytes.size() || reach > shown.bytes.size() - offset_bytes)
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_TENSOR",
                     absl::StrCat(PrintableUtf8(meta.path()), ": the tensor reaches beyond its storage"));
  const bool dense = DenseOrder(meta).has_value();
  View view{{std::move(meta), nullptr}, storage, offset_bytes, offset_bytes + reach, dense};
  if (!shown.has_views) {
    shown.has_views = true;
    shown.first_view = views_.size();
    shown.one_view = dense;
  } else if (shown.one_view) {
    const View& first = views_[shown.first_view];
    shown.one_view = first.begin == view.begin && SameView(first.tensor.meta, view.tensor.meta);
  }
  shown.begin = std::min(shown.begin, view.begin - view.begin % kAlignment);
  shown.end = std::max(shown.end, view.end);
  views_.push_back(std::move(view));
  return views_.size() - 1;
}

void StorageViews::MoveInto(State& state) && {
  std::vector<std::uint64_t> numbers(views_.size());
  std::uint64_t hidden = 0;
  for (std::size_t i = 0; i < views_.size(); ++i) {
    View& view = views_[i];
    Storage* const shown = view.storage == kNone ? nullptr : &storages_[view.storage];
    if (shown != nullptr && !shown->one_view) {
      if (!shown->placed) {
        Tensor holder;
        holder.meta.set_path(absl::StrCat("storage:", hidden++));
        holder.meta.set_component(view.tensor.meta.component());
        holder.meta.set_dtype(v1::DTYPE_UINT8);
        holder.meta.add_shape(shown->end - shown->begin);
        holder.meta.set_role(v1::ROLE_OTHER);
        holder.meta.set_device(view.tensor.meta.device());
        holder.data = shown->bytes.data() + shown->begin;
        shown->holder = state.tensors.size();
        state.tensors.push_back(std::move(holder));
      }
      view.tensor.meta.set_view_of(shown->holder);
      view.tensor.meta.set_view_offset_bytes(view.begin - shown->begin);
      shown->placed = true;
    } else if (shown != nullptr && shown->placed) {
      view.tensor.meta.set_view_of(shown->holder);
    } else if (shown != nullptr) {
      view.tensor.data = shown->bytes.data() + view.begin;
      shown->holder = state.tensors.size();
      shown->placed = true;
    }
    numbers[i] = state.tensors.size();
    state.tensors.push_back(std::move(view.tensor));
  }
  for (v1::StateNode& node : state.nodes)
    if (HasTensor(node.kind())) node.set_tensor(numbers[node.tensor()]);
}

}  // namespace ckpt::client
