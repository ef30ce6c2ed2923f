#include "ckpt/state.h"

#include <bit>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/state_walk.h"
#include "base/status.h"
#include "client/storage_views.h"

namespace ckpt {
namespace {

v1::StateNode ScalarNode() {
  v1::StateNode node;
  node.set_kind(v1::NODE_KIND_SCALAR);
  return node;
}

}  // namespace

StateBuilder::StateBuilder() : tensors_(std::make_unique<client::StorageViews>()) {}

StateBuilder::~StateBuilder() = default;
StateBuilder::StateBuilder(StateBuilder&&) noexcept = default;
StateBuilder& StateBuilder::operator=(StateBuilder&&) noexcept = default;

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

std::uint64_t StateBuilder::AddTensor(const ::ckpt::Tensor& tensor) { return tensors_->AddTensor(tensor); }

std::size_t StateBuilder::AddStorage(std::span<const std::byte> bytes) {
  return tensors_->AddStorage({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

std::uint64_t StateBuilder::AddView(v1::Tensor meta, std::size_t storage, std::uint64_t offset_bytes) {
  const absl::StatusOr<std::uint64_t> number = tensors_->AddView(std::move(meta), storage, offset_bytes);
  status_.Update(number.status());
  return number.value_or(0);
}

absl::StatusOr<State> StateBuilder::Build() && {
  if (!open_.empty()) Fail("a container has no End");
  CKPT_RETURN_IF_ERROR(status_);
  std::vector<bool> placed(tensors_->size());
  StateWalk walk;
  for (const v1::StateNode& node : state_.nodes) {
    CKPT_RETURN_IF_ERROR(walk.Next(node));
    if (!HasTensor(node.kind())) continue;
    if (node.tensor() >= tensors_->size())
      return MakeError(absl::StatusCode::kInvalidArgument, "BAD_STATE",
                       absl::StrCat(walk.path(), ": there is no tensor number ", node.tensor()));
    if (placed[node.tensor()]) continue;
    placed[node.tensor()] = true;
    v1::Tensor& meta = tensors_->meta(node.tensor());
    meta.set_path(walk.path());
    meta.set_component(walk.component());
  }
  if (!walk.Complete()) return MakeError(absl::StatusCode::kInvalidArgument, "BAD_STATE", "the state is empty");
  std::move(*tensors_).MoveInto(state_);
  return std::move(state_);
}

}  // namespace ckpt
