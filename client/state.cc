#include "ckpt/state.h"

#include <bit>

#include "absl/strings/str_cat.h"
#include "base/glob.h"
#include "base/state_walk.h"
#include "base/status.h"

namespace ckpt {
namespace {

v1::StateNode ScalarNode() {
  v1::StateNode node;
  node.set_kind(v1::NODE_KIND_SCALAR);
  return node;
}

}  // namespace

void StateBuilder::Fail(std::string_view what) {
  if (status_.ok()) status_ = MakeError(absl::StatusCode::kInvalidArgument, "BAD_STATE", what);
}

StateBuilder& StateBuilder::Key(v1::Scalar key) {
  if (has_key_) Fail("Key was called twice");
  key_ = std::move(key);
  has_key_ = true;
  return *this;
}

StateBuilder& StateBuilder::Key(std::string_view key) {
  v1::Scalar scalar;
  scalar.set_str_value(std::string(key));
  return Key(std::move(scalar));
}

StateBuilder& StateBuilder::Key(std::int64_t key) {
  v1::Scalar scalar;
  scalar.set_int_value(key);
  return Key(std::move(scalar));
}

StateBuilder& StateBuilder::Add(v1::StateNode node) {
  if (has_key_) *node.mutable_key() = std::move(key_);
  has_key_ = false;
  if (!open_.empty()) {
    v1::StateNode& parent = state_.nodes[open_.back().node];
    if (open_.back().attributes) {
      parent.set_attribute_count(parent.attribute_count() + 1);
    } else {
      parent.set_child_count(parent.child_count() + 1);
    }
  }
  state_.nodes.push_back(std::move(node));
  return *this;
}

StateBuilder& StateBuilder::Open(v1::NodeKind kind, std::string_view type_name) {
  v1::StateNode node;
  node.set_kind(kind);
  node.set_type_name(std::string(type_name));
  Add(std::move(node));
  open_.push_back({state_.nodes.size() - 1, false});
  return *this;
}

StateBuilder& StateBuilder::End() {
  if (has_key_) Fail("End after a Key");
  if (open_.empty()) {
    Fail("End without a container");
  } else {
    open_.pop_back();
  }
  return *this;
}

StateBuilder& StateBuilder::Attributes() {
  if (open_.empty()) {
    Fail("Attributes without a container");
  } else {
    open_.back().attributes = true;
  }
  return *this;
}

StateBuilder& StateBuilder::None() {
  v1::StateNode node = ScalarNode();
  node.mutable_value()->set_none(true);
  return Add(std::move(node));
}

StateBuilder& StateBuilder::Bool(bool value) {
  v1::StateNode node = ScalarNode();
  node.mutable_value()->set_bool_value(value);
  return Add(std::move(node));
}

StateBuilder& StateBuilder::Int(std::int64_t value) {
  v1::StateNode node = ScalarNode();
  node.mutable_value()->set_int_value(value);
  return Add(std::move(node));
}

StateBuilder& StateBuilder::Float(double value) {
  v1::StateNode node = ScalarNode();
  node.mutable_value()->set_float_bits(std::bit_cast<std::uint64_t>(value));
  return Add(std::move(node));
}

StateBuilder& StateBuilder::Str(std::string_view value) {
  v1::StateNode node = ScalarNode();
  node.mutable_value()->set_str_value(std::string(value));
  return Add(std::move(node));
}

StateBuilder& StateBuilder::Tensor(const ::ckpt::Tensor& tensor) {
  v1::StateNode node;
  node.set_kind(v1::NODE_KIND_TENSOR);
  node.set_tensor(AddTensor(tensor));
  return Add(std::move(node));
}

StateBuilder& StateBuilder::Leaf(v1::StateNode node) { return Add(std::move(node)); }

std::uint64_t StateBuilder::AddTensor(const ::ckpt::Tensor& tensor) {
  state_.tensors.push_back(tensor);
  return state_.tensors.size() - 1;
}

absl::StatusOr<State> StateBuilder::Build() && {
  if (!open_.empty()) Fail("a container has no End");
  CKPT_RETURN_IF_ERROR(status_);
  std::vector<bool> placed(state_.tensors.size());
  StateWalk walk;
  for (const v1::StateNode& node : state_.nodes) {
    CKPT_RETURN_IF_ERROR(walk.Next(node));
    if (!HasTensor(node.kind())) continue;
    if (node.tensor() >= state_.tensors.size())
      return MakeError(absl::StatusCode::kInvalidArgument, "BAD_STATE",
                       absl::StrCat(walk.path(), ": there is no tensor number ", node.tensor()));
    if (placed[node.tensor()]) continue;
    placed[node.tensor()] = true;
    v1::Tensor& meta = state_.tensors[node.tensor()].meta;
    meta.set_path(walk.path());
    meta.set_component(walk.component());
  }
  if (!walk.Complete()) return MakeError(absl::StatusCode::kInvalidArgument, "BAD_STATE", "the state is empty");
  return std::move(state_);
}

absl::StatusOr<std::vector<v1::StateNode>> SelectNodes(std::span<const v1::StateNode> nodes,
                                                       std::span<const std::string> components,
                                                       std::span<const std::string> include) {
  for (const std::string& glob : include) CKPT_RETURN_IF_ERROR(CheckGlob(glob));
  std::vector<bool> found(components.size());
  // Which nodes stay, and each node's container.
  std::vector<bool> keep(nodes.size());
  std::vector<std::size_t> parent(nodes.size());
  std::vector<std::size_t> open;
  std::vector<std::uint64_t> left;
  std::vector<bool> attribute(nodes.size());
  StateWalk walk;
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    CKPT_RETURN_IF_ERROR(walk.Next(nodes[i]));
    if (i != 0) {
      parent[i] = open.back();
      attribute[i] = left.back() <= nodes[parent[i]].attribute_count();
      --left.back();
    }
    bool chosen = components.empty() || (i == 0 && nodes.size() == 1);
    for (std::size_t c = 0; c < components.size() && i != 0; ++c) {
      if (components[c] != walk.component()) continue;
      chosen = true;
      found[c] = true;
    }
    const std::uint64_t below = nodes[i].child_count() + nodes[i].attribute_count();
    // Without globs an empty container is kept like a leaf; with them, only what leads to a leaf that matches.
    if (chosen && (include.empty() || below == 0)) keep[i] = include.empty() || MatchesAnyGlob(walk.path(), include);
    if (below != 0) {
      open.push_back(i);
      left.push_back(below);
    }
    while (!left.empty() && left.back() == 0) {
      open.pop_back();
      left.pop_back();
    }
  }
  for (std::size_t c = 0; c < components.size(); ++c)
    if (!found[c])
      return MakeError(absl::StatusCode::kNotFound, "COMPONENT_NOT_FOUND",
                       absl::StrCat("the checkpoint has no component ", components[c]));
  std::vector<v1::StateNode> out;
  if (nodes.empty()) return out;
  keep[0] = true;
  for (std::size_t i = nodes.size(); i-- > 1;)
    if (keep[i] && !attribute[i]) keep[parent[i]] = true;
  // A kept container keeps its attributes, and they all that is below them.
  for (std::size_t i = 1; i < nodes.size(); ++i)
    if (keep[parent[i]] && (attribute[i] || (attribute[parent[i]] && !attribute[i]))) keep[i] = true;
  std::vector<std::uint64_t> children(nodes.size());
  std::vector<std::uint64_t> attributes(nodes.size());
  for (std::size_t i = 1; i < nodes.size(); ++i)
    if (keep[i]) ++(attribute[i] ? attributes : children)[parent[i]];
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    if (!keep[i]) continue;
    const v1::NodeKind kind = nodes[i].kind();
    const bool positional = kind == v1::NODE_KIND_LIST || kind == v1::NODE_KIND_TUPLE || kind == v1::NODE_KIND_SIZE;
    if (positional && i != 0 && children[i] != nodes[i].child_count())
      return MakeError(absl::StatusCode::kInvalidArgument, "CANNOT_SELECT",
                       "the globs take only some members of a list or tuple; widen them to all or none of it");
    out.push_back(nodes[i]);
    out.back().set_child_count(children[i]);
    out.back().set_attribute_count(attributes[i]);
  }
  return out;
}

}  // namespace ckpt
