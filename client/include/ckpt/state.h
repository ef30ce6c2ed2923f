// The state that a trainer saves, in memory: a tree of nodes over tensors that stay where they are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ckpt/v1/state.pb.h"

namespace ckpt {

namespace client {
class StorageViews;
}

// A part of a tensor in the caller's memory: an n-dimensional interval of it, row-major and contiguous.
struct TensorBox {
  // The first element's index in each dimension of the whole tensor, and the extent in each.
  std::vector<std::uint64_t> offset;
  std::vector<std::uint64_t> shape;

  // Its bytes, little-endian. Not owned.
  const void* data = nullptr;
};

// A tensor in the caller's memory.
struct Tensor {
  // dtype, shape, strides, role, …; path and component are filled in from the tree by StateBuilder and Save. Has
  // neither boxes nor inline_data.
  v1::Tensor meta;

  // Its bytes in memory order (see v1::Tensor.strides), little-endian, as many as its shape says. Null for a view and
  // for a tensor without elements. Not owned.
  const void* data = nullptr;

  // In one part of a save by several trainers, where `meta` is the whole tensor, of which this one saves these boxes
  // and others the rest; `data` is null then. The whole is row-major.
  std::optional<std::vector<TensorBox>> boxes = {};
};

// A state. Copying it copies the description, never the tensors' bytes.
struct State {
  // The tree in pre-order.
  std::vector<v1::StateNode> nodes;

  // Its tensors: a node's `tensor` is an index into this.
  std::vector<Tensor> tensors;

  // Optional. Called, from the saving thread, with a range of a tensor's bytes that the save does not need for now (it
  // may read it again after a lost connection): a mapped file gives its pages back here.
  std::function<void(const void* data, std::size_t size)> release;

  // Optional. Called, from the saving thread, when all bytes have been read and before the commit: an error ends the
  // save with it, uncommitted. A file says here that it was changed meanwhile.
  std::function<absl::Status()> check;
};

// Builds a State in the order of its tree:
//
//   StateBuilder b;
//   b.Dict().Key("model").OrderedDict().Key("fc.weight").Tensor(weight).Key("fc.bias").Tensor(bias).End()
//    .Key("epoch").Int(3).End();
//   absl::StatusOr<State> state = std::move(b).Build();
//
// A mistake (a missing Key, an End too many) is remembered and returned by Build. Not thread-safe.
class StateBuilder {
 public:
  StateBuilder();
  ~StateBuilder();
  StateBuilder(StateBuilder&&) noexcept;
  StateBuilder& operator=(StateBuilder&&) noexcept;

  // Open a container; End closes it.
  StateBuilder& Dict() { return Open(v1::NODE_KIND_DICT); }
  StateBuilder& OrderedDict() { return Open(v1::NODE_KIND_ORDERED_DICT); }
  StateBuilder& List() { return Open(v1::NODE_KIND_LIST); }
  StateBuilder& Tuple() { return Open(v1::NODE_KIND_TUPLE); }
  StateBuilder& Open(v1::NodeKind kind, std::string_view type_name = {});
  StateBuilder& End();

  // The key of the next child of a mapping.
  StateBuilder& Key(std::string_view key);
  StateBuilder& Key(std::int64_t key);
  StateBuilder& Key(v1::Scalar key);

  // What follows, up to the container's End, are its attributes; Key gives their names.
  StateBuilder& Attributes();

  // Leaves.
  StateBuilder& None();
  StateBuilder& Bool(bool value);
  StateBuilder& Int(std::int64_t value);
  StateBuilder& Float(double value);
  StateBuilder& Str(std::string_view value);
  StateBuilder& Tensor(const ::ckpt::Tensor& tensor);
  // Any leaf. If its kind has a tensor, node.tensor is the number of one added with AddTensor.
  StateBuilder& Leaf(v1::StateNode node);

  // Adds a tensor without a node (one that several nodes share) and returns its number for Leaf.
  std::uint64_t AddTensor(const ::ckpt::Tensor& tensor);

  // Adds memory that tensors may share, and returns its number for AddView. It is saved once, and of it only what the
  // views reach; views that are all the same, and dense, are saved as plain tensors.
  std::size_t AddStorage(std::span<const std::byte> bytes);

  // Adds a tensor that begins `offset_bytes` into a storage. `meta` has its shape, and its strides in elements unless
  // it is row-major there. Returns its number for Leaf.
  std::uint64_t AddView(v1::Tensor meta, std::size_t storage, std::uint64_t offset_bytes);

  // The finished state, its tensors' paths and components filled in. The numbers of its tensors are its own.
  // InvalidArgument if it is not well-formed.
  absl::StatusOr<State> Build() &&;

 private:
  StateBuilder& Add(v1::StateNode node);
  void Fail(std::string_view what);

  State state_;
  std::unique_ptr<client::StorageViews> tensors_;
  struct Frame {
    std::size_t node;
    bool attributes;
  };
  std::vector<Frame> open_;
  v1::Scalar key_;
  bool has_key_ = false;
  absl::Status status_;
};

// The nodes below the chosen top-level keys (`components`; empty: all) and, of those, the leaves whose path matches one
// of the globs (`include`; empty: all) with the containers above them. A container without children is a leaf.
// Attributes are not chosen by themselves: a container that stays keeps its own, with all that is below them. Tensors
// keep their numbers. NotFound for a component that is not there, and for globs that match nothing; InvalidArgument
// where only some members of a list, tuple or set would stay, and for a malformed tree or glob.
absl::StatusOr<std::vector<v1::StateNode>> SelectNodes(std::span<const v1::StateNode> nodes,
                                                       std::span<const std::string> components,
                                                       std::span<const std::string> include);

}  // namespace ckpt
