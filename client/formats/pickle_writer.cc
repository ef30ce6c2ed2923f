#include "client/formats/pickle_writer.h"

#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/data_type.h"
#include "base/digest.h"
#include "base/state_walk.h"
#include "base/status.h"
#include "base/utf8.h"
#include "client/formats/file_error.h"
#include "client/formats/numpy_dtype.h"
#include "client/formats/pickle_globals.h"
#include "client/formats/pickle_opcodes.h"
#include "client/formats/python_key.h"
#include "client/tensor_strides.h"

namespace ckpt::formats {
namespace {

// How many items Python adds to a container at once: it bounds the reader's stack.
constexpr std::uint64_t kBatchSize = 1000;

constexpr int kMaxDeviceIndex = 127;

class Writer {
 public:
  explicit Writer(const PickleSource& source) : source_(source) {}

  absl::StatusOr<std::string> Run(std::span<const v1::StateNode> nodes);

 private:
  struct Open {
    const v1::StateNode* node;
    std::uint64_t children_left;
    std::uint64_t attributes_left;
    std::uint64_t batch = 0;                     // items since the last mark
    absl::flat_hash_set<Fingerprint> keys = {};  // of a mapping: those that are numbers; of a set: its members
  };

  absl::Status CheckKey(const v1::StateNode& node);
  void BeforeItem(const v1::StateNode& node);
  void AfterItem();
  absl::Status Enter(const v1::StateNode& node);
  void OpenContainer(const v1::StateNode& node);
  void CloseChildren(const v1::StateNode& node, std::uint64_t batch);
  void OpenAttributes(const v1::StateNode& node);
  absl::Status Leaf(const v1::StateNode& node);
  void ByteArray(std::string_view bytes);
  absl::Status Device(const v1::StateNode& node);
  absl::Status NumpyDTypeValue(std::string_view text);
  absl::Status TensorObject(const v1::StateNode& node);
  absl::Status Tensor(std::uint64_t number, bool requires_grad);
  absl::Status Array(const v1::StateNode& node);
  void Storage(std::uint64_t number);
  void EmptyOrderedDict();
  absl::Status Unsupported(std::string_view type) const {
    return UnsupportedValue(walk_.path(), type, "a .pth file cannot hold it");
  }

  const PickleSource& source_;
  PickleOpcodes out_;
  StateWalk walk_;
  std::vector<Open> open_;
  struct Written {
    v1::NodeKind kind;
    std::uint32_t memo;
  };
  absl::flat_hash_map<std::uint64_t, Written> objects_;  // by tensor number
};

bool IsSet(v1::NodeKind kind) { return kind == v1::NODE_KIND_SET || kind == v1::NODE_KIND_FROZENSET; }

// True for UTF-8, with lone surrogates as three bytes each: what Python reads a str from.
bool IsPythonText(std::string_view text) {
  const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U; };
  std::size_t begin = 0;  // of what is still to be checked
  for (std::size_t at = text.find('\xed'); at != text.npos; at = text.find('\xed', at + 1)) {
    if (byte(at + 1) < 0xa0 || byte(at + 1) > 0xbf || (byte(at + 2) & 0xc0) != 0x80) continue;
    if (!IsUtf8(text.substr(begin, at - begin))) return false;
    begin = at + 3;
  }
  return IsUtf8(text.substr(begin));
}

// True for the element types of tensors that may require gradients.
bool IsDifferentiable(v1::DType dtype) {
  const std::string_view name = DTypeName(dtype);
  return name.starts_with("float") || name.starts_with("bfloat") || name.starts_with("complex");
}

// Tuples and sizes are made from what is on the stack, so they have no batches.
bool IsTuple(v1::NodeKind kind) { return kind == v1::NODE_KIND_TUPLE || kind == v1::NODE_KIND_SIZE; }

void Writer::EmptyOrderedDict() {
  out_.Global("collections", "OrderedDict");
  out_.Op(')');
  out_.Op('R');
}

void Writer::OpenContainer(const v1::StateNode& node) {
  switch (node.kind()) {
    case v1::NODE_KIND_DICT: out_.Op('}'); break;
    case v1::NODE_KIND_ORDERED_DICT: EmptyOrderedDict(); break;
    case v1::NODE_KIND_DEFAULT_DICT:
      out_.Global("collections", "defaultdict");
      if (node.type_name().empty()) {
        out_.Op(')');
      } else {
        out_.Global("__builtin__", node.type_name() == "int"   ? "long"
                                   : node.type_name() == "str" ? "unicode"
                                                               : node.type_name());
        out_.Op('\x85');
      }
      out_.Op('R');
      break;
    case v1::NODE_KIND_COUNTER:
      out_.Global("collections", "Counter");
      out_.Op('}');
      break;
    case v1::NODE_KIND_SET:
    case v1::NODE_KIND_FROZENSET:
      out_.Global("__builtin__", node.kind() == v1::NODE_KIND_SET ? "set" : "frozenset");
      out_.Op(']');
      break;
    case v1::NODE_KIND_LIST: out_.Op(']'); break;
    case v1::NODE_KIND_SIZE: out_.Global("torch", "Size"); break;
    case v1::NODE_KIND_NAMESPACE:
      out_.Global("argparse", "Namespace");
      out_.Op(')');
      out_.Op('\x81');
      break;
    default: break;
  }
  if (IsTuple(node.kind())) out_.Op('(');
}

void Writer::CloseChildren(const v1::StateNode& node, std::uint64_t batch) {
  if (IsTuple(node.kind())) {
    out_.Op('t');
  } else if (batch != 0) {
    out_.Op(IsMapping(node.kind()) ? 'u' : 'e');
  }
  switch (node.kind()) {
    case v1::NODE_KIND_COUNTER:
    case v1::NODE_KIND_SET:
    case v1::NODE_KIND_FROZENSET:
    case v1::NODE_KIND_SIZE:
      out_.Op('\x85');
      out_.Op('R');
      break;
    default: break;
  }
}

void Writer::OpenAttributes(const v1::StateNode& node) {
  if (node.attribute_count() != 0) out_.Op('}');
}

// A dict or set that Python makes has one of two equal keys only. StateWalk sees those that are the same to the bit.
absl::Status Writer::CheckKey(const v1::StateNode& node) {
  Open& open = open_.back();
  const bool in_set = IsSet(open.node->kind());
  if (!in_set && (!IsMapping(open.node->kind()) || open.children_left == 0)) return absl::OkStatus();
  const v1::Scalar& key = in_set ? node.value() : node.key();
  if (!in_set && key.has_str_value()) return absl::OkStatus();
  const std::optional<v1::Scalar> same = PythonKey(key);
  if (!same.has_value() || open.keys.insert(Xxh3(same->SerializeAsString())).second) return absl::OkStatus();
  return Unsupported("a key that Python takes for another one, as it does 1, 1.0 and True");
}

// What comes before a container's child or attribute: the mark of a batch, and the key.
void Writer::BeforeItem(const v1::StateNode& node) {
  Open& open = open_.back();
  if (open.batch == 0 && (open.children_left == 0 || !IsTuple(open.node->kind()))) out_.Op('(');
  ++open.batch;
  if (node.has_key()) out_.Scalar(node.key());
}

// Ends batches, and all containers that are complete.
void Writer::AfterItem() {
  while (!open_.empty()) {
    Open& open = open_.back();
    if (open.children_left != 0) {
      --open.children_left;
      if (open.children_left != 0) {
        if (open.batch < kBatchSize || IsTuple(open.node->kind())) return;
        out_.Op(IsMapping(open.node->kind()) ? 'u' : 'e');
        open.batch = 0;
        return;
      }
      CloseChildren(*open.node, open.batch);
      open.batch = 0;
      OpenAttributes(*open.node);
    } else {
      --open.attributes_left;
    }
    if (open.attributes_left != 0) {
      if (open.batch < kBatchSize) return;
      out_.Op('u');
      open.batch = 0;
      return;
    }
    if (open.node->attribute_count() != 0) {
      if (open.batch != 0) out_.Op('u');
      out_.Op('b');
    }
    open_.pop_back();
  }
}

absl::Status Writer::Enter(const v1::StateNode& node) {
  CKPT_RETURN_IF_ERROR(walk_.Next(node));
  if (!IsPythonText(node.key().str_value()) || !IsPythonText(node.value().str_value()))
    return Unsupported("a str that is no UTF-8");
  if (!open_.empty()) {
    CKPT_RETURN_IF_ERROR(CheckKey(node));
    BeforeItem(node);
  }
  switch (node.kind()) {
    case v1::NODE_KIND_DEFAULT_DICT:
      if (!node.type_name().empty() && !IsFactory(node.type_name()))
        return Unsupported(absl::StrCat("a defaultdict of ", node.type_name()));
      break;
    case v1::NODE_KIND_DICT:
    case v1::NODE_KIND_ORDERED_DICT:
    case v1::NODE_KIND_COUNTER:
    case v1::NODE_KIND_LIST:
    case v1::NODE_KIND_TUPLE:
    case v1::NODE_KIND_SET:
    case v1::NODE_KIND_FROZENSET:
    case v1::NODE_KIND_SIZE:
    case v1::NODE_KIND_NAMESPACE: break;
    default:
      CKPT_RETURN_IF_ERROR(Leaf(node));
      AfterItem();
      return absl::OkStatus();
  }
  OpenContainer(node);
  if (node.child_count() != 0) {
    open_.push_back({&node, node.child_count(), node.attribute_count()});
    return absl::OkStatus();
  }
  CloseChildren(node, 0);
  if (node.attribute_count() != 0) {
    OpenAttributes(node);
    open_.push_back({&node, 0, node.attribute_count()});
    return absl::OkStatus();
  }
  AfterItem();
  return absl::OkStatus();
}

absl::Status Writer::Leaf(const v1::StateNode& node) {
  switch (node.kind()) {
    case v1::NODE_KIND_SCALAR: out_.Scalar(node.value()); return absl::OkStatus();
    case v1::NODE_KIND_BYTEARRAY: ByteArray(node.value().bytes_value()); return absl::OkStatus();
    case v1::NODE_KIND_DTYPE:
      if (!DTypeFromName(node.type_name()).has_value()) return Unsupported("an unknown torch.dtype");
      out_.Global("torch", node.type_name());
      return absl::OkStatus();
    case v1::NODE_KIND_MEMORY_FORMAT:
      if (!IsMemoryFormat(node.type_name())) return Unsupported("an unknown torch.memory_format");
      out_.Global("torch", node.type_name());
      return absl::OkStatus();
    case v1::NODE_KIND_LAYOUT:
      if (!IsLayout(node.type_name())) return Unsupported("an unknown torch.layout");
      out_.Global("torch.serialization", "_get_layout");
      out_.Str(absl::StrCat("torch.", node.type_name()));
      break;
    case v1::NODE_KIND_PATH:
      if (!IsPathClass(node.type_name())) return Unsupported("an unknown class of pathlib");
      out_.Global("pathlib", node.type_name());
      out_.Str(node.value().str_value());
      break;
    case v1::NODE_KIND_TORCH_VERSION:
      out_.Global("torch.torch_version", "TorchVersion");
      out_.Str(node.value().str_value());
      out_.Op('\x85');
      out_.Op('\x81');
      return absl::OkStatus();
    case v1::NODE_KIND_NUMPY_SCALAR:
      if (const auto dtype = ParseNumpyDType(node.type_name());
          dtype.has_value() && dtype->ItemSize() != node.value().bytes_value().size())
        return Unsupported("a numpy scalar whose bytes do not fit its type");
      out_.Global("numpy._core.multiarray", "scalar");
      CKPT_RETURN_IF_ERROR(NumpyDTypeValue(node.type_name()));
      out_.Bytes(node.value().bytes_value());
      out_.Op('\x86');
      out_.Op('R');
      return absl::OkStatus();
    case v1::NODE_KIND_DEVICE: return Device(node);
    case v1::NODE_KIND_NUMPY_DTYPE: return NumpyDTypeValue(node.type_name());
    case v1::NODE_KIND_NUMPY_ARRAY:
    case v1::NODE_KIND_TENSOR:
    case v1::NODE_KIND_PARAMETER: return TensorObject(node);
    case v1::NODE_KIND_OPAQUE:
      return Unsupported(absl::StrCat("a ", node.type_name(), " that was saved as a pickle of its own"));
    default: return Unsupported(absl::StrCat("a value of kind ", static_cast<int>(node.kind())));
  }
  out_.Op('\x85');
  out_.Op('R');
  return absl::OkStatus();
}

void Writer::ByteArray(std::string_view bytes) {
  out_.Global("__builtin__", "bytearray");
  out_.Bytes(bytes);
  out_.Op('\x85');
  out_.Op('R');
}

absl::Status Writer::Device(const v1::StateNode& node) {
  const std::string_view text = node.type_name();
  const std::size_t colon = text.find(':');
  out_.Global("torch", "device");
  out_.Str(text.substr(0, colon));
  int index = 0;
  if (colon == text.npos) {
    out_.Op('\x85');
  } else {
    const std::string_view number = text.substr(colon + 1);
    if (!absl::SimpleAtoi(absl::string_view(number.data(), number.size()), &index) || absl::StrCat(index) != number ||
        index < 0 || index > kMaxDeviceIndex)
      return Unsupported("an impossible torch.device");
    out_.Int(index);
    out_.Op('\x86');
  }
  out_.Op('R');
  return absl::OkStatus();
}

absl::Status Writer::NumpyDTypeValue(std::string_view text) {
  const std::optional<NumpyDType> dtype = ParseNumpyDType(text);
  if (!dtype.has_value()) return Unsupported("an unknown numpy.dtype");
  const bool time = dtype->kind == 'm' || dtype->kind == 'M';
  out_.Global("numpy", "dtype");
  out_.Str(absl::StrCat(std::string(1, dtype->kind), dtype->count));
  out_.Bool(false);
  out_.Bool(true);
  out_.Op('\x87');
  out_.Op('R');
  out_.Op('(');
  out_.Int(time ? 4 : 3);
  out_.Str(std::string(1, dtype->order));
  for (int i = 0; i < 3; ++i) out_.None();
  const bool text_like = dtype->kind == 'U' || dtype->kind == 'S' || dtype->kind == 'V';
  out_.Int(text_like ? static_cast<std::int64_t>(dtype->ItemSize()) : -1);
  out_.Int(text_like ? (dtype->kind == 'U' ? 4 : 1) : -1);
  out_.Int(dtype->kind == 'U' ? 8 : 0);
  if (time) {
    out_.None();
    out_.Op('(');
    out_.Bytes(dtype->unit.empty() ? "generic" : dtype->unit);
    out_.Int(static_cast<std::int64_t>(dtype->unit_count));
    out_.Int(1);
    out_.Int(1);
    out_.Op('t');
    out_.Op('\x86');
  }
  out_.Op('t');
  out_.Op('b');
  return absl::OkStatus();
}

// A tensor that stands in the tree twice is one object.
absl::Status Writer::TensorObject(const v1::StateNode& node) {
  const std::uint64_t number = node.tensor();
  if (const auto it = objects_.find(number); it != objects_.end()) {
    if (it->second.kind != node.kind()) return Unsupported("a tensor that is of two types");
    out_.Get(it->second.memo);
    return absl::OkStatus();
  }
  const v1::Tensor& tensor = source_.tensors[number];
  if (tensor.requires_grad() && !IsDifferentiable(tensor.dtype()) && node.kind() != v1::NODE_KIND_NUMPY_ARRAY)
    return Unsupported(
        absl::StrCat("a tensor of torch.", std::string(DTypeName(tensor.dtype())), " that requires grad"));
  if (node.kind() == v1::NODE_KIND_NUMPY_ARRAY) {
    CKPT_RETURN_IF_ERROR(Array(node));
  } else if (node.kind() == v1::NODE_KIND_PARAMETER) {
    out_.Global("torch._utils", "_rebuild_parameter");
    CKPT_RETURN_IF_ERROR(Tensor(number, false));
    out_.Bool(tensor.requires_grad());
    EmptyOrderedDict();
    out_.Op('\x87');
    out_.Op('R');
  } else {
    CKPT_RETURN_IF_ERROR(Tensor(number, tensor.requires_grad()));
  }
  objects_[number] = {node.kind(), out_.Put()};
  return absl::OkStatus();
}

void Writer::Storage(std::uint64_t number) {
  const PickledStorage& storage = source_.storages[number];
  const std::string_view type = StorageTypeName(storage.dtype);
  const v1::Tensor& tensor = source_.tensors[number];
  out_.Op('(');
  out_.Str("storage");
  type.empty() ? out_.Global("torch.storage", "UntypedStorage") : out_.Global("torch", type);
  out_.Str(absl::StrCat(storage.key));
  out_.Str(tensor.device().empty() ? "cpu" : tensor.device());
  out_.Int(static_cast<std::int64_t>(storage.size_bytes / (type.empty() ? 1 : ElementSize(storage.dtype))));
  out_.Op('t');
  out_.Op('Q');
}

absl::Status Writer::Tensor(std::uint64_t number, bool requires_grad) {
  const v1::Tensor& tensor = source_.tensors[number];
  const bool typed = !StorageTypeName(source_.storages[number].dtype).empty();
  const std::uint64_t element = ElementSize(tensor.dtype());
  if (tensor.view_offset_bytes() % element != 0) return Unsupported("a view between two elements");
  out_.Global("torch._utils", typed ? "_rebuild_tensor_v2" : "_rebuild_tensor_v3");
  out_.Op('(');
  Storage(number);
  out_.Int(static_cast<std::int64_t>(tensor.view_offset_bytes() / element));
  out_.Op('(');
  for (const std::uint64_t extent : tensor.shape()) out_.Int(static_cast<std::int64_t>(extent));
  out_.Op('t');
  out_.Op('(');
  for (const std::int64_t step : client::StridesOf(tensor)) out_.Int(step);
  out_.Op('t');
  out_.Bool(requires_grad);
  EmptyOrderedDict();
  if (!typed) out_.Global("torch", DTypeName(tensor.dtype()));
  out_.Op('t');
  out_.Op('R');
  return absl::OkStatus();
}

// Undoes what reading does: an array of a type that no tensor has is bytes with one dimension more.
absl::Status Writer::Array(const v1::StateNode& node) {
  const v1::Tensor& tensor = source_.tensors[node.tensor()];
  const std::optional<NumpyDType> dtype = ParseNumpyDType(node.type_name());
  if (!dtype.has_value()) return Unsupported("an unknown numpy.dtype");

  const auto same = dtype->ToTensor();
  const bool as_bytes = !same.has_value();
  const int dims = tensor.shape_size() - (as_bytes ? 1 : 0);
  if (tensor.dtype() != same.value_or(v1::DTYPE_UINT8) || dims < 0 ||
      (as_bytes && tensor.shape(dims) != dtype->ItemSize()))
    return Unsupported("a numpy.ndarray whose tensor does not fit it");
  bool fortran = false;
  if (!IsRowMajor(tensor)) {
    const auto order = DenseOrder(tensor);
    for (int d = 0; order.has_value() && d < dims; ++d)
      fortran = (*order)[static_cast<std::size_t>(d)] == dims - 1 - d && (d == 0 || fortran);
    if (!fortran) return Unsupported("a numpy.ndarray that is neither in C nor in Fortran order");
  }
  const std::string& bytes = source_.array_bytes[node.tensor()];
  const auto shape = [&] {
    out_.Op('(');
    for (int d = 0; d < dims; ++d) out_.Int(static_cast<std::int64_t>(tensor.shape(d)));
    out_.Op('t');
  };
  if (dtype->order == '>' && dtype->ItemSize() != 0) {  // _reconstruct would make it little-endian
    out_.Global("numpy._core.numeric", "_frombuffer");
    out_.Op('(');
    ByteArray(bytes);
    CKPT_RETURN_IF_ERROR(NumpyDTypeValue(node.type_name()));
    shape();
    out_.Str(fortran ? "F" : "C");
    out_.Op('t');
    out_.Op('R');
    return absl::OkStatus();
  }
  out_.Global("numpy._core.multiarray", "_reconstruct");
  out_.Global("numpy", "ndarray");
  out_.Int(0);
  out_.Op('\x85');
  out_.Bytes("b");
  out_.Op('\x87');
  out_.Op('R');
  out_.Op('(');
  out_.Int(1);
  shape();
  CKPT_RETURN_IF_ERROR(NumpyDTypeValue(node.type_name()));
  out_.Bool(fortran);
  out_.Bytes(bytes);
  out_.Op('t');
  out_.Op('b');
  return absl::OkStatus();
}

absl::StatusOr<std::string> Writer::Run(std::span<const v1::StateNode> nodes) {
  for (const v1::StateNode& node : nodes) CKPT_RETURN_IF_ERROR(Enter(node));
  if (!walk_.Complete()) return UnsupportedValue("", "an incomplete tree", "give all nodes of the state");
  out_.Op('.');
  return std::move(out_.pickle());
}

}  // namespace

absl::StatusOr<std::string> WritePickle(std::span<const v1::StateNode> nodes, const PickleSource& source) {
  return Writer(source).Run(nodes);
}

}  // namespace ckpt::formats
