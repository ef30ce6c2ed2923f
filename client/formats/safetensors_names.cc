#include "client/formats/safetensors_names.h"

#include <string_view>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/state_walk.h"
#include "base/status.h"
#include "client/formats/file_error.h"

namespace ckpt::formats {
namespace {

constexpr std::string_view kAdvice =
    "a .safetensors file holds mappings of tensors only; choose a component that is that (--component model), or write "
    "a .pth";

// As people call it: "int", "list".
std::string TypeOf(const v1::StateNode& node) {
  switch (node.value().value_case()) {
    case v1::Scalar::kNone: return "None";
    case v1::Scalar::kBoolValue: return "bool";
    case v1::Scalar::kIntValue:
    case v1::Scalar::kBigInt: return "int";
    case v1::Scalar::kFloatBits: return "float";
    case v1::Scalar::kComplexValue: return "complex";
    case v1::Scalar::kStrValue: return "str";
    case v1::Scalar::kBytesValue: return "bytes";
    case v1::Scalar::VALUE_NOT_SET: break;
  }
  constexpr std::string_view kPrefix = "NODE_KIND_";
  return absl::AsciiStrToLower(v1::NodeKind_Name(node.kind()).substr(kPrefix.size()));
}

class Namer {
 public:
  explicit Namer(std::span<const v1::StateNode> nodes) : nodes_(nodes) {}
  absl::StatusOr<SafetensorsNames> Run();

 private:
  struct Open {
    std::uint64_t children_left;
    std::uint64_t attributes_left;
    std::size_t name_size;  // of the container's own name
    bool in_attributes;     // it is an attribute, or below one
    bool in_metadata;
  };

  absl::Status Take(const v1::StateNode& node);

  const std::span<const v1::StateNode> nodes_;
  StateWalk walk_;
  std::vector<Open> open_;
  std::string name_;
  absl::flat_hash_set<std::string> taken_;
  SafetensorsNames names_;
};

absl::Status Namer::Take(const v1::StateNode& node) {
  CKPT_RETURN_IF_ERROR(walk_.Next(node));
  Open next{node.child_count(), node.attribute_count(), 0, false, false};
  if (!open_.empty()) {
    Open& parent = open_.back();
    const bool attribute = parent.children_left == 0;
    --(attribute ? parent.attributes_left : parent.children_left);
    next.in_attributes = attribute || parent.in_attributes;
    next.in_metadata = attribute && open_.size() == 1 && node.key().str_value() == "__metadata__";
    if (!next.in_attributes) {
      name_.resize(parent.name_size);
      const bool only_component = open_.size() == 1 && nodes_[0].child_count() == 1 && IsMapping(node.kind());
      if (!only_component) {
        const std::string key = node.key().has_str_value() ? node.key().str_value() : KeyText(node.key());
        absl::StrAppend(&name_, name_.empty() ? "" : ".", key);
      }
    } else if (parent.in_metadata) {
      if (!node.key().has_str_value() || !node.value().has_str_value())
        return UnsupportedValue(walk_.path(), TypeOf(node), "metadata of a .safetensors file is texts only");
      names_.metadata.emplace_back(node.key().str_value(), node.value().str_value());
    }
  }
  next.name_size = name_.size();
  names_.has_metadata |= next.in_metadata;
  const bool mapping = IsMapping(node.kind());
  if (!next.in_attributes && !mapping) {
    if (open_.empty() || (node.kind() != v1::NODE_KIND_TENSOR && node.kind() != v1::NODE_KIND_PARAMETER))
      return UnsupportedValue(walk_.path(), TypeOf(node), kAdvice);
    if (!taken_.insert(name_).second)
      return UnsupportedValue(walk_.path(), absl::StrCat("a second tensor of the name ", name_), kAdvice);
    names_.tensors.push_back({name_, walk_.path(), node.tensor()});
  }
  if (node.child_count() + node.attribute_count() != 0) open_.push_back(next);
  while (!open_.empty() && open_.back().children_left + open_.back().attributes_left == 0) open_.pop_back();
  return absl::OkStatus();
}

absl::StatusOr<SafetensorsNames> Namer::Run() {
  for (const v1::StateNode& node : nodes_) CKPT_RETURN_IF_ERROR(Take(node));
  if (!walk_.Complete()) return UnsupportedValue("", "an incomplete tree", "give all nodes of the state");
  return std::move(names_);
}

}  // namespace

absl::StatusOr<SafetensorsNames> NameTensors(std::span<const v1::StateNode> nodes) { return Namer(nodes).Run(); }

}  // namespace ckpt::formats
