#include "client/formats/pickle_state.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "base/data_type.h"
#include "base/state_walk.h"
#include "base/status.h"
#include "base/utf8.h"
#include "client/formats/file_error.h"
#include "client/formats/numpy_dtype.h"
#include "client/formats/tensor_role.h"
#include "client/storage_views.h"

namespace ckpt::formats {
namespace {

using Kind = PickleKind;

constexpr std::uint64_t kMaxNodesPerByte = 16;
constexpr std::uint64_t kMinNodeLimit = 1'000'000;
constexpr std::uint64_t kMaxNodeLimit = 10'000'000;
// The same for the bytes of texts and paths, which each node and tensor has for itself.
constexpr std::uint64_t kMaxTextPerByte = 16;
constexpr std::uint64_t kMinTextLimit = 64U << 20;
constexpr std::size_t kMaxDimensions = 64;  // of a tensor in a checkpoint
constexpr std::string_view kAdvice = "a state cannot hold this; take it out or turn it into plain values before saving";

// The value as a mapping's key or a plain leaf, if it can be that.
std::optional<v1::Scalar> ToScalar(const PickleGraph& graph, const PickleValue& value) {
  v1::Scalar scalar;
  switch (value.kind) {
    case Kind::kNone: scalar.set_none(true); break;
    case Kind::kBool: scalar.set_bool_value(value.bits != 0); break;
    case Kind::kInt: scalar.set_int_value(static_cast<std::int64_t>(value.bits)); break;
    case Kind::kBigInt: scalar.set_big_int(std::string(value.text)); break;
    case Kind::kFloat: scalar.set_float_bits(value.bits); break;
    case Kind::kComplex:
      scalar.mutable_complex_value()->set_real_bits(graph[value.items[0]].bits);
      scalar.mutable_complex_value()->set_imag_bits(graph[value.items[1]].bits);
      break;
    case Kind::kStr: scalar.set_str_value(std::string(value.text)); break;
    case Kind::kBytes: scalar.set_bytes_value(std::string(value.text)); break;
    default: return std::nullopt;
  }
  return scalar;
}

v1::NodeKind ToNodeKind(Kind kind) {
  switch (kind) {
    case Kind::kDict: return v1::NODE_KIND_DICT;
    case Kind::kOrderedDict: return v1::NODE_KIND_ORDERED_DICT;
    case Kind::kDefaultDict: return v1::NODE_KIND_DEFAULT_DICT;
    case Kind::kCounter: return v1::NODE_KIND_COUNTER;
    case Kind::kList: return v1::NODE_KIND_LIST;
    case Kind::kTuple: return v1::NODE_KIND_TUPLE;
    case Kind::kSet: return v1::NODE_KIND_SET;
    case Kind::kFrozenset: return v1::NODE_KIND_FROZENSET;
    case Kind::kByteArray: return v1::NODE_KIND_BYTEARRAY;
    case Kind::kSize: return v1::NODE_KIND_SIZE;
    case Kind::kDType: return v1::NODE_KIND_DTYPE;
    case Kind::kDevice: return v1::NODE_KIND_DEVICE;
    case Kind::kLayout: return v1::NODE_KIND_LAYOUT;
    case Kind::kMemoryFormat: return v1::NODE_KIND_MEMORY_FORMAT;
    case Kind::kNumpyDType: return v1::NODE_KIND_NUMPY_DTYPE;
    case Kind::kNumpyScalar: return v1::NODE_KIND_NUMPY_SCALAR;
    case Kind::kNumpyArray: return v1::NODE_KIND_NUMPY_ARRAY;
    case Kind::kTensor: return v1::NODE_KIND_TENSOR;
    case Kind::kParameter: return v1::NODE_KIND_PARAMETER;
    case Kind::kPath: return v1::NODE_KIND_PATH;
    case Kind::kTorchVersion: return v1::NODE_KIND_TORCH_VERSION;
    case Kind::kNamespace: return v1::NODE_KIND_NAMESPACE;
    default: return v1::NODE_KIND_SCALAR;
  }
}

// The parts of such a value were looked at when it was made, and are when it is laid out.
bool HasParts(Kind kind) {
  return kind == Kind::kTensor || kind == Kind::kParameter || kind == Kind::kStorage || kind == Kind::kNumpyScalar ||
         kind == Kind::kNumpyArray || kind == Kind::kComplex;
}

class Layout {
 public:
  Layout(const PickleGraph& graph, std::uint64_t pickle_size, const StorageLookup& lookup)
      : graph_(graph),
        lookup_(lookup),
        max_nodes_(pickle_size >= kMaxNodeLimit / kMaxNodesPerByte
                       ? kMaxNodeLimit
                       : std::max(kMinNodeLimit, pickle_size * kMaxNodesPerByte)),
        max_text_bytes_(std::max(kMinTextLimit, pickle_size * kMaxTextPerByte)),
        is_open_(graph.values.size()) {}

  absl::StatusOr<State> Run();

 private:
  // What a tensor is, if it stands right in this container, or below it.
  enum class Part { kOther, kModule, kOptimizer };

  struct Open {
    PickleRef ref;
    std::size_t next;  // of its items, then of its attributes'
    Part part;
    std::string path;
  };

  absl::Status Enter(PickleRef ref, std::optional<v1::Scalar> key, Part part);
  absl::Status Step();
  [[nodiscard]] std::string Place() const;
  [[nodiscard]] std::string WhyNot(PickleRef ref) const;
  [[nodiscard]] const PickleValue* RefusedPart(const PickleValue& value) const;
  absl::Status CountText(std::uint64_t bytes);
  [[nodiscard]] const std::vector<PickleRef>* Attributes(const PickleValue& value) const;
  [[nodiscard]] Part PartOf(const PickleValue& value, Part above) const;
  absl::Status SetLeaf(const PickleValue& value, v1::StateNode& node);
  absl::Status SetTensor(PickleRef ref, Part part, v1::StateNode& node);
  absl::Status SetArray(PickleRef ref, v1::StateNode& node);
  absl::StatusOr<std::uint64_t> AddTensor(const PickleValue& value, bool requires_grad, v1::Role role);
  absl::StatusOr<std::size_t> StorageOf(const PickleValue& storage);
  absl::Status SetShape(const PickleValue& size, v1::Tensor& meta) const;
  absl::Status SetStrides(const PickleValue& stride, v1::Tensor& meta) const;

  const PickleGraph& graph_;
  const StorageLookup& lookup_;
  const std::uint64_t max_nodes_;
  const std::uint64_t max_text_bytes_;
  std::uint64_t text_bytes_ = 0;
  std::vector<bool> is_open_;
  std::vector<Open> open_;
  StateWalk walk_;
  State state_;
  client::StorageViews views_;
  absl::flat_hash_map<PickleRef, std::uint64_t> tensors_;
  absl::flat_hash_map<std::string_view, std::size_t> storages_;
};

// Where the last node is, as errors name it. A top-level key may be empty.
std::string Layout::Place() const {
  if (!walk_.path().empty()) return walk_.path();
  return walk_.depth() == 0 ? "the whole state" : "''";
}

// The value itself, or what it is made of, if that is refused; else null. BUILD may have made it so after the value was
// made of it: a tensor's storage then is none any more.
const PickleValue* Layout::RefusedPart(const PickleValue& value) const {
  if (value.kind == Kind::kRefused) return &value;
  if (!HasParts(value.kind)) return nullptr;
  std::vector<const PickleValue*> parts = {&value};
  while (!parts.empty()) {
    const PickleValue& part = *parts.back();
    parts.pop_back();
    if (part.kind == Kind::kRefused) return &part;
    if (!HasParts(part.kind)) continue;
    for (const PickleRef ref : part.items) parts.push_back(&graph_[ref]);
  }
  return nullptr;
}

// Why a state cannot hold the value where it is next, begun with its type; "" if it can.
std::string Layout::WhyNot(PickleRef ref) const {
  const PickleValue& value = graph_[ref];
  if (const PickleValue* part = RefusedPart(value)) return TypeName(*part);
  if (value.kind == Kind::kGlobal || value.kind == Kind::kStorage) return TypeName(value);
  if (is_open_[ref]) return absl::StrCat(TypeName(value), ", a container that contains itself");
  if (open_.empty() || IsScalar(value.kind)) return {};
  const PickleValue& parent = graph_[open_.back().ref];
  const bool in_set = parent.kind == Kind::kSet || parent.kind == Kind::kFrozenset;
  return in_set ? absl::StrCat(TypeName(value), " in a ", TypeName(parent)) : "";
}

// Called before the text is copied.
absl::Status Layout::CountText(std::uint64_t bytes) {
  text_bytes_ += bytes;
  if (text_bytes_ <= max_text_bytes_) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument, "TOO_MANY_NODES",
                   absl::StrCat("the pickle's references multiply to more than ", max_text_bytes_, " bytes of text"));
}

const std::vector<PickleRef>* Layout::Attributes(const PickleValue& value) const {
  return value.attributes == kNoRef ? nullptr : &graph_[value.attributes].items;
}

Layout::Part Layout::PartOf(const PickleValue& value, Part above) const {
  if (above == Part::kOptimizer || !IsMapping(value.kind)) return above;
  bool state = false;
  bool groups = false;
  for (std::size_t i = 0; i < value.items.size(); i += 2) {
    const PickleValue& key = graph_[value.items[i]];
    if (key.kind != Kind::kStr) continue;
    state |= key.text == "state";
    groups |= key.text == "param_groups";
  }
  if (state && groups) return Part::kOptimizer;
  if (const auto* attributes = Attributes(value))
    for (std::size_t i = 0; i < attributes->size(); i += 2)
      if (const PickleValue& key = graph_[(*attributes)[i]]; key.kind == Kind::kStr && key.text == "_metadata")
        return Part::kModule;
  return above;
}

absl::Status Layout::Enter(PickleRef ref, std::optional<v1::Scalar> key, Part part) {
  const PickleValue& value = graph_[ref];
  v1::StateNode node;
  if (key.has_value()) *node.mutable_key() = *std::move(key);
  if (state_.nodes.size() >= max_nodes_)
    return MakeError(absl::StatusCode::kInvalidArgument, "TOO_MANY_NODES",
                     absl::StrCat("the pickle's references multiply to more than ", max_nodes_, " values"));
  if (const std::string refused = WhyNot(ref); !refused.empty()) {  // a stand-in, to learn the path
    node.set_kind(v1::NODE_KIND_SCALAR);
    node.mutable_value()->set_none(true);
    CKPT_RETURN_IF_ERROR(walk_.Next(node));
    return UnsupportedValue(Place(), refused, kAdvice);
  }
  CKPT_RETURN_IF_ERROR(CountText(value.text.size()));
  node.set_kind(ToNodeKind(value.kind));
  const bool mapping = IsMapping(value.kind);
  const auto* attributes = Attributes(value);
  switch (value.kind) {
    case Kind::kDict:
    case Kind::kOrderedDict:
    case Kind::kDefaultDict:
    case Kind::kCounter:
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kSet:
    case Kind::kFrozenset:
    case Kind::kSize:
    case Kind::kNamespace:
      node.set_child_count(mapping ? value.items.size() / 2 : value.items.size());
      if (attributes != nullptr) node.set_attribute_count(attributes->size() / 2);
      node.set_type_name(std::string(value.text));  // a defaultdict's factory
      break;
    default: CKPT_RETURN_IF_ERROR(SetLeaf(value, node));
  }
  CKPT_RETURN_IF_ERROR(walk_.Next(node));
  if (const std::size_t size = node.ByteSizeLong(); size > kMaxNodeBytes)
    return MakeError(absl::StatusCode::kInvalidArgument, "TOO_LARGE",
                     absl::StrCat(Place(), ": ", TypeName(value), " of ", size, " bytes, more than the ", kMaxNodeBytes,
                                  " that a value may have; keep data of this size in a tensor"));
  if (value.kind == Kind::kTensor || value.kind == Kind::kParameter) CKPT_RETURN_IF_ERROR(SetTensor(ref, part, node));
  if (value.kind == Kind::kNumpyArray) CKPT_RETURN_IF_ERROR(SetArray(ref, node));
  if (node.child_count() + node.attribute_count() != 0) {
    open_.push_back({ref, 0, PartOf(value, part), Place()});
    is_open_[ref] = true;
  }
  state_.nodes.push_back(std::move(node));
  return absl::OkStatus();
}

// What a leaf of this kind has besides a tensor.
absl::Status Layout::SetLeaf(const PickleValue& value, v1::StateNode& node) {
  switch (value.kind) {
    case Kind::kDType:
    case Kind::kDevice:
    case Kind::kLayout:
    case Kind::kMemoryFormat:
    case Kind::kNumpyDType: node.set_type_name(PrintableUtf8(value.text)); break;
    case Kind::kNumpyScalar:
      node.set_type_name(std::string(graph_[value.items[0]].text));
      node.mutable_value()->set_bytes_value(std::string(value.text));
      break;
    case Kind::kByteArray: node.mutable_value()->set_bytes_value(std::string(value.text)); break;
    case Kind::kPath:
      node.set_type_name(std::string(value.type_name));
      node.mutable_value()->set_str_value(std::string(value.text));
      break;
    case Kind::kTorchVersion: node.mutable_value()->set_str_value(std::string(value.text)); break;
    case Kind::kNumpyArray:
      if (!value.items.empty()) node.set_type_name(std::string(graph_[value.items[0]].text));
      break;
    case Kind::kTensor:
    case Kind::kParameter: break;
    default:
      if (auto scalar = ToScalar(graph_, value)) *node.mutable_value() = *std::move(scalar);
  }
  return absl::OkStatus();
}

absl::Status Layout::SetShape(const PickleValue& size, v1::Tensor& meta) const {
  if (size.items.size() > kMaxDimensions)
    return UnsupportedValue(Place(), absl::StrCat("a tensor of more than ", kMaxDimensions, " dimensions"), kAdvice);
  for (const PickleRef ref : size.items) {
    const PickleValue& extent = graph_[ref];
    if (extent.kind != Kind::kInt || static_cast<std::int64_t>(extent.bits) < 0)
      return UnsupportedValue(Place(), "a shape that is none", "the file is malformed");
    meta.add_shape(extent.bits);
  }
  return absl::OkStatus();
}

// Leaves the strides out where they are row-major, exactly as torch makes them.
absl::Status Layout::SetStrides(const PickleValue& stride, v1::Tensor& meta) const {
  if (stride.items.size() != static_cast<std::size_t>(meta.shape_size()))
    return UnsupportedValue(Place(), "a tensor whose strides do not fit its shape", "the file is malformed");
  std::uint64_t expected = 1;
  bool row_major = true;
  for (std::size_t i = stride.items.size(); i-- > 0;) {
    const PickleValue& step = graph_[stride.items[i]];
    if (step.kind != Kind::kInt || static_cast<std::int64_t>(step.bits) < 0)
      return UnsupportedValue(Place(), "a tensor with impossible strides", "the file is malformed");
    row_major = row_major && step.bits == expected;
    expected *= std::max<std::uint64_t>(meta.shape(static_cast<int>(i)), 1);  // wraps only where SizeBytes refuses
  }
  if (row_major) return absl::OkStatus();
  for (const PickleRef ref : stride.items) meta.add_strides(static_cast<std::int64_t>(graph_[ref].bits));
  return absl::OkStatus();
}

absl::StatusOr<std::size_t> Layout::StorageOf(const PickleValue& storage) {
  const auto it = storages_.find(storage.text);
  if (it != storages_.end()) return it->second;
  const auto bytes = lookup_(storage.text);
  if (!bytes.has_value())
    return DamagedFile(
        absl::StrCat(Place(), ": its storage ", PrintableUtf8(storage.text.substr(0, 100)), " is not in the file"));
  const std::uint64_t element = storage.dtype == v1::DTYPE_UNSPECIFIED ? 1 : ElementSize(storage.dtype);
  std::uint64_t size = 0;
  if (__builtin_mul_overflow(storage.bits, element, &size) || size != bytes->size())
    return DamagedFile(
        absl::StrCat(Place(), ": its storage has ", bytes->size(), " bytes instead of ", storage.bits, " elements"));
  return storages_[storage.text] = views_.AddStorage(*bytes);
}

absl::StatusOr<std::uint64_t> Layout::AddTensor(const PickleValue& value, bool requires_grad, v1::Role role) {
  const PickleValue& storage = graph_[value.items[0]];
  CKPT_RETURN_IF_ERROR(CountText(walk_.path().size()));
  v1::Tensor meta;
  meta.set_path(walk_.path());
  meta.set_component(walk_.component());
  meta.set_dtype(value.dtype);
  meta.set_requires_grad(requires_grad);
  meta.set_role(role);
  const std::string_view location = graph_[storage.items[0]].text;
  if (location.size() > 64 || !IsPrintableUtf8(location))
    return UnsupportedValue(Place(), "a tensor on an impossible device", "the file is malformed");
  if (location != "cpu") meta.set_device(std::string(location));
  CKPT_RETURN_IF_ERROR(SetShape(graph_[value.items[1]], meta));
  CKPT_RETURN_IF_ERROR(SetStrides(graph_[value.items[2]], meta));
  CKPT_ASSIGN_OR_RETURN(const std::size_t number, StorageOf(storage));
  std::uint64_t offset = 0;
  if (__builtin_mul_overflow(value.bits, std::uint64_t{ElementSize(value.dtype)}, &offset))
    return UnsupportedValue(Place(), "a tensor that reaches beyond its storage", "the file is malformed");
  return views_.AddView(std::move(meta), number, offset);
}

absl::Status Layout::SetTensor(PickleRef ref, Part part, v1::StateNode& node) {
  const auto it = tensors_.find(ref);
  if (it != tensors_.end()) {
    node.set_tensor(it->second);
    return absl::OkStatus();
  }
  const PickleValue& value = graph_[ref];
  const bool parameter = value.kind == Kind::kParameter;
  const PickleValue& tensor = parameter ? graph_[value.items[0]] : value;
  v1::Role role = v1::ROLE_OTHER;
  if (part == Part::kOptimizer) {
    role = v1::ROLE_OPTIMIZER;
  } else if (parameter || value.flag) {
    role = v1::ROLE_PARAMETER;
  } else if (part == Part::kModule) {
    role = RoleInModule(walk_.path());
  }
  CKPT_ASSIGN_OR_RETURN(const std::uint64_t number, AddTensor(tensor, value.flag, role));
  tensors_[ref] = number;
  node.set_tensor(number);
  return absl::OkStatus();
}

// An array whose elements no tensor type has becomes bytes, with one dimension more: an element's bytes.
absl::Status Layout::SetArray(PickleRef ref, v1::StateNode& node) {
  const PickleValue& value = graph_[ref];
  if (value.items.empty()) return UnsupportedValue(Place(), "numpy.ndarray without a state", "the file is malformed");
  if (const auto it = tensors_.find(ref); it != tensors_.end()) {
    node.set_tensor(it->second);
    return absl::OkStatus();
  }
  CKPT_RETURN_IF_ERROR(CountText(walk_.path().size()));
  const auto dtype = ParseNumpyDType(graph_[value.items[0]].text);
  Tensor tensor;
  tensor.meta.set_path(walk_.path());
  tensor.meta.set_component(walk_.component());
  tensor.meta.set_role(v1::ROLE_OTHER);
  CKPT_RETURN_IF_ERROR(SetShape(graph_[value.items[1]], tensor.meta));
  const int dims = tensor.meta.shape_size();
  const auto same = dtype.has_value() ? dtype->ToTensor() : std::nullopt;
  tensor.meta.set_dtype(same.value_or(v1::DTYPE_UINT8));
  const std::uint64_t item_size = same.has_value() ? 1 : graph_[value.items[0]].bits;
  if (!same.has_value()) tensor.meta.add_shape(item_size);
  CKPT_ASSIGN_OR_RETURN(const std::uint64_t size, SizeBytes(tensor.meta));
  if (size != value.text.size())
    return UnsupportedValue(Place(), "numpy.ndarray whose bytes do not fit its shape", "the file is malformed");
  if (value.flag && dims > 1) {  // Fortran order: the first dimension is the fastest
    std::uint64_t step = item_size;
    for (int d = 0; d < dims; ++d) {
      tensor.meta.add_strides(static_cast<std::int64_t>(step));
      step *= tensor.meta.shape(d);
    }
    if (!same.has_value()) tensor.meta.add_strides(1);
    if (IsRowMajor(tensor.meta)) tensor.meta.clear_strides();  // so is an array of one row, or without elements
  }
  tensor.data = size == 0 ? nullptr : value.text.data();
  node.set_tensor(tensors_[ref] = views_.AddTensor(std::move(tensor)));
  return absl::OkStatus();
}

// Takes the next child or attribute of the innermost open container.
absl::Status Layout::Step() {
  Open& open = open_.back();
  const PickleValue& value = graph_[open.ref];
  const auto* attributes = Attributes(value);
  const std::size_t items = value.items.size();
  if (open.next == items + (attributes == nullptr ? 0 : attributes->size())) {
    is_open_[open.ref] = false;
    open_.pop_back();
    return absl::OkStatus();
  }
  const Part part = open.part;
  if (open.next < items && !IsMapping(value.kind)) return Enter(value.items[open.next++], std::nullopt, part);
  const PickleRef* pair = open.next < items ? &value.items[open.next] : &(*attributes)[open.next - items];
  open.next += 2;
  CKPT_RETURN_IF_ERROR(CountText(graph_[pair[0]].text.size()));
  std::optional<v1::Scalar> key = ToScalar(graph_, graph_[pair[0]]);
  if (!key.has_value())
    return UnsupportedValue(open.path, absl::StrCat(TypeName(value), " with a key of type ", TypeName(graph_[pair[0]])),
                            kAdvice);
  return Enter(pair[1], std::move(key), part);
}

absl::StatusOr<State> Layout::Run() {
  CKPT_RETURN_IF_ERROR(Enter(graph_.root, std::nullopt, Part::kOther));
  while (!open_.empty()) CKPT_RETURN_IF_ERROR(Step());
  std::move(views_).MoveInto(state_);
  return std::move(state_);
}

}  // namespace

absl::StatusOr<State> LayOutState(const PickleGraph& graph, std::uint64_t pickle_size, const StorageLookup& lookup) {
  return Layout(graph, pickle_size, lookup).Run();
}

}  // namespace ckpt::formats
