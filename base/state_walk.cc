#include "base/state_walk.h"

#include <bit>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status.h"
#include "base/utf8.h"

namespace ckpt {
namespace {

using v1::NodeKind;
using v1::Scalar;
using v1::StateNode;

bool IsContainer(NodeKind kind) {
  return IsMapping(kind) || kind == v1::NODE_KIND_LIST || kind == v1::NODE_KIND_TUPLE || kind == v1::NODE_KIND_SET ||
         kind == v1::NODE_KIND_FROZENSET || kind == v1::NODE_KIND_SIZE;
}

bool MayHaveAttributes(NodeKind kind) { return kind == v1::NODE_KIND_ORDERED_DICT || kind == v1::NODE_KIND_NAMESPACE; }

bool NeedsTypeName(NodeKind kind) {
  switch (kind) {
    case v1::NODE_KIND_DTYPE:
    case v1::NODE_KIND_DEVICE:
    case v1::NODE_KIND_LAYOUT:
    case v1::NODE_KIND_MEMORY_FORMAT:
    case v1::NODE_KIND_NUMPY_DTYPE:
    case v1::NODE_KIND_NUMPY_SCALAR:
    case v1::NODE_KIND_NUMPY_ARRAY:
    case v1::NODE_KIND_OPAQUE:
    case v1::NODE_KIND_PATH: return true;
    default: return false;
  }
}

// The value that a node of this kind must have; nothing for the kinds that have none.
std::optional<Scalar::ValueCase> ValueOf(NodeKind kind) {
  switch (kind) {
    case v1::NODE_KIND_BYTEARRAY:
    case v1::NODE_KIND_OPAQUE:
    case v1::NODE_KIND_NUMPY_SCALAR: return Scalar::kBytesValue;
    case v1::NODE_KIND_PATH:
    case v1::NODE_KIND_TORCH_VERSION: return Scalar::kStrValue;
    default: return std::nullopt;
  }
}

// False for a second way to write a value, by which a key could stand twice: a None that is not true, a big_int of 64
// bits or with bytes that only repeat the sign.
bool IsCanonical(const Scalar& scalar) {
  if (scalar.has_none()) return scalar.none();
  if (!scalar.has_big_int()) return true;
  const std::string& bytes = scalar.big_int();
  if (bytes.size() <= sizeof(std::uint64_t)) return false;
  const bool negative = (bytes[bytes.size() - 2] & 0x80) != 0;
  return bytes.back() != (negative ? '\xff' : '\0');
}

}  // namespace

bool IsMapping(NodeKind kind) {
  return kind == v1::NODE_KIND_DICT || kind == v1::NODE_KIND_ORDERED_DICT || kind == v1::NODE_KIND_DEFAULT_DICT ||
         kind == v1::NODE_KIND_COUNTER;
}

bool HasTensor(NodeKind kind) {
  return kind == v1::NODE_KIND_TENSOR || kind == v1::NODE_KIND_PARAMETER || kind == v1::NODE_KIND_NUMPY_ARRAY;
}

std::string KeyText(const Scalar& key) {
  switch (key.value_case()) {
    case Scalar::kNone: return "None";
    case Scalar::kBoolValue: return key.bool_value() ? "True" : "False";
    case Scalar::kIntValue: return absl::StrCat(key.int_value());
    case Scalar::kBigInt: return absl::StrCat("int:", ToHex(key.big_int()));
    case Scalar::kFloatBits: return absl::StrFormat("%.17g", std::bit_cast<double>(key.float_bits()));
    case Scalar::kComplexValue:
      return absl::StrFormat("(%.17g,%.17g)", std::bit_cast<double>(key.complex_value().real_bits()),
                             std::bit_cast<double>(key.complex_value().imag_bits()));
    case Scalar::kStrValue: return PrintableUtf8(key.str_value());
    case Scalar::kBytesValue: return absl::StrCat("bytes:", ToHex(key.bytes_value()));
    case Scalar::VALUE_NOT_SET: break;
  }
  return "?";
}

absl::Status StateWalk::Invalid(std::string_view what) const {
  return MakeError(
      absl::StatusCode::kInvalidArgument, "BAD_STATE",
      absl::StrCat("state node ", path_.empty() ? "<root>" : path_, ": ", absl::string_view(what.data(), what.size())));
}

// Finds out where the node stands and moves on in its container.
absl::Status StateWalk::Place(const StateNode& node) {
  if (open_.empty()) {
    if (started_) return Invalid("comes after the end of the tree");
    started_ = true;
    if (node.has_key()) return Invalid("the root has a key");
    return absl::OkStatus();
  }
  Open& parent = open_.back();
  path_.resize(parent.path_size);
  depth_ = open_.size();
  const bool attribute = parent.children_left == 0;
  const bool keyed = attribute || IsMapping(parent.kind);
  if (keyed != node.has_key()) return Invalid(keyed ? "a child has no key" : "a child of a sequence has a key");
  std::string text;
  if (keyed) {
    if (node.key().value_case() == Scalar::VALUE_NOT_SET) return Invalid("a child has an empty key");
    if (!IsCanonical(node.key())) return Invalid("a child's key is None or an integer in another form than its own");
    if (attribute && !node.key().has_str_value()) return Invalid("an attribute's name is no str");
    if (attribute && parent.index != 0) {  // the first attribute: names and keys do not clash
      parent.keys.clear();
      parent.index = 0;
    }
    text = absl::StrCat(attribute ? "@" : "", KeyText(node.key()));
  } else {
    text = absl::StrCat(parent.index);
  }
  if (!path_.empty()) path_ += '.';
  path_ += text;
  if (path_.size() > 4096) {
    path_.resize(64);
    return Invalid("… its path is longer than 4096 bytes");
  }
  if (keyed && !parent.keys.insert(Xxh3(node.key().SerializeAsString())).second) return Invalid("the key stands twice");
  if (depth_ == 1) {
    const bool is_component = keyed && !attribute && parent.children_left + parent.index <= kMaxComponents;
    component_ = is_component ? text : "";
    if (is_component) components_.push_back(text);
  }
  if (attribute) {
    --parent.attributes_left;
  } else {
    --parent.children_left;
    ++parent.index;
  }
  return absl::OkStatus();
}

absl::Status StateWalk::Next(const StateNode& node) {
  CKPT_RETURN_IF_ERROR(Place(node));
  const NodeKind kind = node.kind();
  if (!v1::NodeKind_IsValid(kind) || kind == v1::NODE_KIND_UNSPECIFIED)
    return Invalid(absl::StrCat("unknown kind ", static_cast<int>(kind)));
  if (node.child_count() != 0 && !IsContainer(kind)) return Invalid("a leaf has children");
  if (node.attribute_count() != 0 && !MayHaveAttributes(kind)) return Invalid("a node of this kind has attributes");
  if (kind == v1::NODE_KIND_SCALAR) {
    if (node.value().value_case() == Scalar::VALUE_NOT_SET) return Invalid("a scalar has no value");
  } else if (const auto value = ValueOf(kind); value.has_value()) {
    if (node.value().value_case() != *value) return Invalid("its value is not what its kind needs");
  } else if (node.has_value()) {
    return Invalid("a node of this kind has a value");
  }
  if (!IsCanonical(node.value())) return Invalid("its value is None or an integer in another form than its own");
  if (NeedsTypeName(kind) && node.type_name().empty()) return Invalid("has no type name");
  if (!open_.empty()) {
    const NodeKind parent = open_.back().kind;
    if ((parent == v1::NODE_KIND_SET || parent == v1::NODE_KIND_FROZENSET) && kind != v1::NODE_KIND_SCALAR)
      return Invalid("a member of a set is no scalar");
    if (parent == v1::NODE_KIND_SIZE && !node.value().has_int_value()) return Invalid("a torch.Size holds no integer");
  }
  if (node.child_count() != 0 || node.attribute_count() != 0) {  // their sum may be 0 too
    if (open_.size() >= kMaxStateDepth)
      return MakeError(absl::StatusCode::kInvalidArgument, "STATE_TOO_DEEP",
                       absl::StrCat("the state is nested more than ", kMaxStateDepth, " levels deep at ",
                                    path_.substr(0, 64), "…; flatten it"));
    open_.push_back({kind, node.child_count(), node.attribute_count(), 0, path_.size(), {}});
  } else {
    while (!open_.empty() && open_.back().children_left == 0 && open_.back().attributes_left == 0) open_.pop_back();
  }
  return absl::OkStatus();
}

}  // namespace ckpt
