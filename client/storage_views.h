// Tensors that are views of storages, and how a state holds them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ckpt/state.h"

namespace ckpt::client {

// The tensors of a tree, in its order, with the storages that they show. Not thread-safe.
class StorageViews {
 public:
  [[nodiscard]] std::size_t size() const { return views_.size(); }

  // The description of a tensor, by its number here.
  [[nodiscard]] v1::Tensor& meta(std::uint64_t number) { return views_[number].tensor.meta; }

  // Adds a storage and returns its number.
  std::size_t AddStorage(std::string_view bytes);

  // Adds a tensor and returns its number here. `meta` has its shape and its strides (empty: row-major).
  // InvalidArgument when it reaches beyond the storage.
  absl::StatusOr<std::uint64_t> AddView(v1::Tensor meta, std::size_t storage, std::uint64_t offset_bytes);

  // Adds a tensor with bytes that nothing else shows.
  std::uint64_t AddTensor(Tensor tensor);

  // Moves the tensors into `state`, with the hidden ones behind views each before the first of them, and renumbers the
  // state's nodes.
  void MoveInto(State& state) &&;

 private:
  struct View {
    Tensor tensor;
    std::size_t storage;  // kNone without elements, or for bytes that nothing else shows
    std::uint64_t begin = 0;
    std::uint64_t end = 0;  // of the bytes that it reaches
    bool dense = true;
  };
  struct Storage {
    std::string_view bytes;
    std::uint64_t begin = UINT64_MAX;
    std::uint64_t end = 0;  // of the bytes that views reach
    std::uint64_t first_view = 0;
    bool has_views = false;
    bool one_view = true;      // all views are the same, and dense
    std::uint64_t holder = 0;  // number of the tensor that holds its bytes, once it is in the state
    bool placed = false;
  };

  std::vector<View> views_;
  std::vector<Storage> storages_;
};

}  // namespace ckpt::client
