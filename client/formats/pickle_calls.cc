#include "client/formats/pickle_calls.h"

#include <algorithm>
#include <concepts>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/formats/numpy_dtype.h"
#include "client/formats/pickle_globals.h"

namespace ckpt::formats {
namespace {

using Kind = PickleKind;
using Global = PickleGlobal;

// Looks at a call's arguments. Refs are checked by the reader: each is a value of the graph.
class Call {
 public:
  Call(PickleGraph& graph, PickleRef callable, PickleRef arguments)
      : graph_(graph), callable_(graph[callable]), arguments_(graph[arguments].items) {
    Repeat(arguments_.size() * sizeof(PickleRef));
  }

  PickleValue Result();

 private:
  [[nodiscard]] std::size_t size() const { return arguments_.size(); }
  [[nodiscard]] const PickleValue& at(std::size_t i) const { return graph_[arguments_[i]]; }
  [[nodiscard]] bool Is(std::size_t i, Kind kind) const { return i < size() && at(i).kind == kind; }
  [[nodiscard]] bool IsGlobal(std::size_t i, Global global) const {
    return Is(i, Kind::kGlobal) && at(i).bits == static_cast<std::uint64_t>(global);
  }

  // These bytes are looked at or copied, maybe not for the first time.
  void Repeat(std::uint64_t bytes) { graph_.repeated_bytes += bytes; }

  // A value that a state cannot hold: `what`, which lives as long as the graph, or the callable's name.
  [[nodiscard]] PickleValue Refused(std::string_view what = {}) const {
    if (what.empty() && callable_.kind == Kind::kGlobal) what = callable_.text;
    if (what.empty()) what = callable_.kind == Kind::kRefused ? callable_.text : "an object";
    return {.kind = Kind::kRefused, .text = what};
  }
  template <std::same_as<std::string> T>
  PickleValue Refused(T&& what) const = delete;  // would not live so long

  [[nodiscard]] std::string_view MemberName() const;

  // The first argument's items, if it is a container of that kind, or none for a call without arguments.
  PickleValue Container(Kind made, Kind from);
  PickleValue DefaultDict();
  PickleValue BytesLike(Kind made);
  PickleValue Complex();
  PickleValue Encode();
  std::optional<std::string> Latin1(std::string_view utf8);
  PickleValue RebuildTensor(bool v3);
  PickleValue RebuildParameter(bool with_state);
  PickleValue RebuildFromType();
  PickleValue Device();
  PickleValue Layout();
  PickleValue Path();
  PickleValue NumpyDTypeOf();
  PickleValue NumpyScalarOf();
  PickleValue NumpyReconstruct();
  PickleValue NumpyFromBuffer();

  PickleGraph& graph_;
  const PickleValue& callable_;
  const std::vector<PickleRef>& arguments_;
};

// The bytes of latin-1 text, of which only characters to U+00FF are; how protocol 2 writes bytes.
std::optional<std::string> Latin1Bytes(std::string_view utf8) {
  std::string bytes;
  bytes.reserve(utf8.size());
  for (std::size_t i = 0; i < utf8.size(); ++i) {
    const auto lead = static_cast<unsigned char>(utf8[i]);
    if (lead < 0x80) {
      bytes += utf8[i];
      continue;
    }
    if ((lead != 0xc2 && lead != 0xc3) || i + 1 == utf8.size()) return std::nullopt;
    const auto next = static_cast<unsigned char>(utf8[++i]);
    if ((next & 0xc0) != 0x80) return std::nullopt;
    bytes += static_cast<char>((lead & 3) << 6 | (next & 0x3f));
  }
  return bytes;
}

std::optional<std::string> Call::Latin1(std::string_view utf8) {
  Repeat(utf8.size());  // bytes or not
  return Latin1Bytes(utf8);
}

PickleValue Call::Container(Kind made, Kind from) {
  if (size() == 0) return {.kind = made};
  if (size() != 1 || !Is(0, from)) return Refused();
  Repeat(at(0).items.size() * sizeof(PickleRef));
  return {.kind = made, .items = at(0).items};
}

PickleValue Call::DefaultDict() {
  if (size() == 0) return {.kind = Kind::kDefaultDict};
  if (size() != 1) return Refused();
  if (at(0).kind == Kind::kNone) return {.kind = Kind::kDefaultDict};
  if (!Is(0, Kind::kGlobal)) return Refused();
  constexpr std::string_view kBuiltins = "builtins.";
  const std::string_view factory = at(0).text;
  if (!factory.starts_with(kBuiltins) || !IsFactory(factory.substr(kBuiltins.size())))
    return Refused(graph_.Keep(absl::StrCat("collections.defaultdict(", std::string(factory), ")")));
  return {.kind = Kind::kDefaultDict, .text = factory.substr(kBuiltins.size())};
}

// bytes() and bytearray(), with bytes or, as old Pythons wrote them, with latin-1 text and "latin-1".
PickleValue Call::BytesLike(Kind made) {
  if (size() == 0) return {.kind = made};
  if (size() == 1 && Is(0, Kind::kBytes)) return {.kind = made, .text = at(0).text};
  if (size() == 2 && Is(0, Kind::kStr) && Is(1, Kind::kStr) && at(1).text == "latin-1")
    if (auto bytes = Latin1(at(0).text)) return {.kind = made, .text = graph_.Keep(*std::move(bytes))};
  return Refused();
}

PickleValue Call::Complex() {
  if (size() != 2 || !Is(0, Kind::kFloat) || !Is(1, Kind::kFloat)) return Refused();
  return {.kind = Kind::kComplex, .items = arguments_};
}

PickleValue Call::Encode() {
  if (size() == 2 && Is(0, Kind::kStr) && Is(1, Kind::kStr) && at(1).text == "latin1")
    if (auto bytes = Latin1(at(0).text)) return {.kind = Kind::kBytes, .text = graph_.Keep(*std::move(bytes))};
  return Refused();
}

// (storage, storage_offset, size, stride, requires_grad, backward_hooks[, dtype][, metadata])
PickleValue Call::RebuildTensor(bool v3) {
  const std::size_t plain = v3 ? 7 : 6;
  if (size() != plain && size() != plain + 1) return Refused();
  if (Is(0, Kind::kRefused)) return Refused(at(0).text);
  if (!Is(0, Kind::kStorage) || !Is(1, Kind::kInt) || !(Is(2, Kind::kTuple) || Is(2, Kind::kSize)) ||
      !Is(3, Kind::kTuple) || !Is(4, Kind::kBool))
    return Refused();
  if (!Is(5, Kind::kNone) && !(Is(5, Kind::kOrderedDict) && at(5).items.empty()))
    return Refused("torch.Tensor with backward hooks");
  if (size() > plain && !Is(plain, Kind::kNone)) {
    if (!Is(plain, Kind::kDict)) return Refused();
    const std::vector<PickleRef>& metadata = at(plain).items;
    Repeat(metadata.size() * sizeof(PickleRef));
    for (std::size_t i = 0; i + 1 < metadata.size(); i += 2)
      if (graph_[metadata[i + 1]].kind != Kind::kBool || graph_[metadata[i + 1]].bits != 0)
        return Refused("torch.Tensor with a conj or neg bit (resolve_conj() and resolve_neg() clear it)");
  }
  v1::DType dtype = at(0).dtype;
  if (v3) {
    if (!Is(6, Kind::kDType)) return Refused();
    dtype = at(6).dtype;
  }
  if (dtype == v1::DTYPE_UNSPECIFIED) return Refused();
  return {.kind = Kind::kTensor,
          .flag = at(4).bits != 0,
          .dtype = dtype,
          .bits = at(1).bits,
          .items = {arguments_[0], arguments_[2], arguments_[3]}};
}

// (data, requires_grad, backward_hooks[, state])
PickleValue Call::RebuildParameter(bool with_state) {
  if (Is(0, Kind::kRefused)) return Refused(at(0).text);
  if (size() != (with_state ? 4U : 3U) || !Is(0, Kind::kTensor) || !Is(1, Kind::kBool)) return Refused();
  if (!Is(2, Kind::kNone) && !(Is(2, Kind::kOrderedDict) && at(2).items.empty()))
    return Refused("torch.nn.parameter.Parameter with backward hooks");
  if (with_state && !(Is(3, Kind::kDict) && at(3).items.empty()))
    return Refused("torch.nn.parameter.Parameter with attributes of its own");
  return {.kind = Kind::kParameter, .flag = at(1).bits != 0, .items = {arguments_[0]}};
}

// (function, type, arguments, state): how tensors with attributes, and subclasses, are written.
PickleValue Call::RebuildFromType() {
  if (size() != 4 || !Is(1, Kind::kGlobal)) return Refused();
  if (!IsGlobal(1, Global::kTensorType)) return Refused(at(1).text);
  const bool no_state = Is(3, Kind::kNone) || (Is(3, Kind::kDict) && at(3).items.empty());
  if (!no_state) return Refused("torch.Tensor with attributes of its own");
  const bool v3 = IsGlobal(0, Global::kRebuildTensorV3);
  if ((!v3 && !IsGlobal(0, Global::kRebuildTensorV2)) || !Is(2, Kind::kTuple)) return Refused();
  return CallResult(graph_, arguments_[0], arguments_[2]);  // one level: the function is none that calls on
}

PickleValue Call::Device() {
  if (size() == 1 && Is(0, Kind::kStr)) return {.kind = Kind::kDevice, .text = at(0).text};
  if (size() != 2 || !Is(0, Kind::kStr) || !Is(1, Kind::kInt)) return Refused();
  return {.kind = Kind::kDevice,
          .text = graph_.Keep(absl::StrCat(std::string(at(0).text), ":", static_cast<std::int64_t>(at(1).bits)))};
}

PickleValue Call::Layout() {
  constexpr std::string_view kPrefix = "torch.";
  if (size() != 1 || !Is(0, Kind::kStr) || !at(0).text.starts_with(kPrefix)) return Refused();
  const std::string_view name = at(0).text.substr(kPrefix.size());
  if (!IsLayout(name)) return Refused("torch.layout of an unknown name");
  return {.kind = Kind::kLayout, .text = name};
}

// The path's parts, as str() joins them.
PickleValue Call::Path() {
  constexpr std::size_t kMaxPathBytes = std::size_t{64} << 10;  // far beyond any system's
  const char separator = callable_.type_name.find("Windows") == std::string_view::npos ? '/' : '\\';
  std::string path;
  for (std::size_t i = 0; i < size(); ++i) {
    if (!Is(i, Kind::kStr)) return Refused();
    if (path.size() + at(i).text.size() > kMaxPathBytes) return Refused();
    if (!path.empty() && path.back() != separator) path += separator;
    path += at(i).text;
  }
  if (path.empty()) path += '.';
  return {.kind = Kind::kPath, .text = graph_.Keep(std::move(path)), .type_name = callable_.type_name};
}

// ("f4", False, True), completed by BUILD.
PickleValue Call::NumpyDTypeOf() {
  if (size() != 3 || !Is(0, Kind::kStr)) return Refused();
  Repeat(at(0).text.size());
  const std::optional<NumpyDType> dtype = ParseNumpyDType(at(0).text);
  if (!dtype.has_value()) return Refused(graph_.Keep(absl::StrCat("numpy.dtype(", std::string(at(0).text), ")")));
  return {.kind = Kind::kNumpyDType, .bits = dtype->ItemSize(), .text = graph_.Keep(dtype->ToString())};
}

PickleValue Call::NumpyScalarOf() {
  if (Is(0, Kind::kRefused)) return Refused(graph_.Keep(absl::StrCat("numpy scalar of ", std::string(at(0).text))));
  if (size() != 2 || !Is(0, Kind::kNumpyDType) || !Is(1, Kind::kBytes) || at(1).text.size() != at(0).bits)
    return Refused();
  return {.kind = Kind::kNumpyScalar, .text = at(1).text, .items = {arguments_[0]}};
}

// (numpy.ndarray, (0,), b"b"), filled by BUILD.
PickleValue Call::NumpyReconstruct() {
  if (size() != 3 || !Is(0, Kind::kGlobal)) return Refused();
  if (!IsGlobal(0, Global::kNumpyArrayType)) return Refused(at(0).text);
  return {.kind = Kind::kNumpyArray};
}

// An array's items are complete when its bytes are what its shape says; StateLayout checks that.
PickleValue Call::NumpyFromBuffer() {
  if (Is(1, Kind::kRefused)) return Refused(graph_.Keep(absl::StrCat("numpy.ndarray of ", std::string(at(1).text))));
  const bool bytes = Is(0, Kind::kBytes) || Is(0, Kind::kByteArray);
  if (size() != 4 || !bytes || !Is(1, Kind::kNumpyDType) || !Is(2, Kind::kTuple) || !Is(3, Kind::kStr) ||
      (at(3).text != "C" && at(3).text != "F"))
    return Refused();
  return {.kind = Kind::kNumpyArray,
          .flag = at(3).text == "F",
          .text = at(0).text,
          .items = {arguments_[1], arguments_[2]}};
}

// "module.Color.RED" of getattr(module.Color, "RED"), as some Pythons write an enum's member; else "".
std::string_view Call::MemberName() const {
  if (callable_.text != "builtins.getattr" || size() != 2 || !Is(0, Kind::kGlobal) || !Is(1, Kind::kStr)) return {};
  return graph_.Keep(absl::StrCat(std::string(at(0).text), ".", std::string(at(1).text)));
}

PickleValue Call::Result() {
  if (callable_.kind != Kind::kGlobal) return Refused();
  switch (static_cast<Global>(callable_.bits)) {
    case Global::kOrderedDict: return size() == 0 ? PickleValue{.kind = Kind::kOrderedDict} : Refused();
    case Global::kDefaultDict: return DefaultDict();
    case Global::kCounter: return Container(Kind::kCounter, Kind::kDict);
    case Global::kSet: return Container(Kind::kSet, Kind::kList);
    case Global::kFrozenset: return Container(Kind::kFrozenset, Kind::kList);
    case Global::kSize: return Container(Kind::kSize, Kind::kTuple);
    case Global::kByteArray: return BytesLike(Kind::kByteArray);
    case Global::kBytes: return BytesLike(Kind::kBytes);
    case Global::kComplex: return Complex();
    case Global::kEncode: return Encode();
    case Global::kRebuildTensorV2: return RebuildTensor(false);
    case Global::kRebuildTensorV3: return RebuildTensor(true);
    case Global::kRebuildParameter: return RebuildParameter(false);
    case Global::kRebuildParameterWithState: return RebuildParameter(true);
    case Global::kRebuildFromType: return RebuildFromType();
    case Global::kDevice: return Device();
    case Global::kGetLayout: return Layout();
    case Global::kPath: return Path();
    case Global::kNumpyDType: return NumpyDTypeOf();
    case Global::kNumpyScalar: return NumpyScalarOf();
    case Global::kNumpyReconstruct: return NumpyReconstruct();
    case Global::kNumpyFromBuffer: return NumpyFromBuffer();
    case Global::kTorchVersion:
      if (size() != 1 || !Is(0, Kind::kStr)) return Refused();
      return {.kind = Kind::kTorchVersion, .text = at(0).text};
    case Global::kNamespace: return size() == 0 ? PickleValue{.kind = Kind::kNamespace} : Refused();
    default: return Refused(MemberName());
  }
}

// `what` lives as long as the graph.
void Refuse(PickleGraph& graph, PickleRef object, std::string_view what) {
  graph.values[object] = {.kind = Kind::kRefused, .text = what};
}

// The state of a numpy.dtype: (version, byte order, subarray, names, fields, item size, alignment, flags[, metadata]).
bool CompleteNumpyDType(PickleGraph& graph, PickleRef object, const std::vector<PickleRef>& state) {
  if (state.size() != 8 && state.size() != 9) return false;
  const PickleValue& order = graph[state[1]];
  if (order.kind != Kind::kStr || order.text.size() != 1) return false;
  for (std::size_t i = 2; i < 5; ++i)
    if (graph[state[i]].kind != Kind::kNone) return false;
  std::optional<NumpyDType> dtype = ParseNumpyDType(graph[object].text);
  if (!dtype.has_value()) return false;
  if (dtype->order != '|') {
    if (order.text != "<" && order.text != ">" && order.text != "=") return false;
    dtype->order = order.text == ">" ? '>' : '<';
  }
  if (state.size() == 9 && graph[state[8]].kind != Kind::kNone) {  // (None, (unit, count, 1, 1)) of a time
    const PickleValue& metadata = graph[state[8]];
    if (metadata.kind != Kind::kTuple || metadata.items.size() != 2) return false;
    const PickleValue& unit = graph[metadata.items[1]];
    if (unit.kind != Kind::kTuple || unit.items.size() != 4) return false;
    const PickleValue& name = graph[unit.items[0]];
    const PickleValue& count = graph[unit.items[1]];
    if (name.kind != Kind::kBytes || count.kind != Kind::kInt) return false;
    if (name.text != "generic") {
      if (!IsTimeUnit(name.text) || count.bits == 0 || count.bits > 0x7fffffff) return false;
      dtype->unit = std::string(name.text);
      dtype->unit_count = count.bits;
    }
  }
  graph.values[object].text = graph.Keep(dtype->ToString());
  return true;
}

// Makes the array little-endian, as numpy does when it reads one in this way.
void TurnAround(PickleGraph& graph, PickleValue& array) {
  std::optional<NumpyDType> dtype = ParseNumpyDType(graph[array.items[0]].text);
  if (!dtype.has_value() || dtype->order != '>' || dtype->ItemSize() == 0) return;
  const std::uint64_t size = dtype->NumberSize();
  std::string bytes(array.text);
  for (auto at = bytes.begin(); static_cast<std::uint64_t>(bytes.end() - at) >= size;) {
    const auto next = at + static_cast<std::ptrdiff_t>(size);
    std::reverse(at, next);
    at = next;
  }
  array.text = graph.Keep(std::move(bytes));
  dtype->order = '<';
  array.items[0] = static_cast<PickleRef>(graph.values.size());
  graph.repeated_bytes += sizeof(PickleValue);
  graph.values.push_back({.kind = Kind::kNumpyDType, .bits = dtype->ItemSize(), .text = graph.Keep(dtype->ToString())});
}

// The state of an array: (version, shape, dtype, is Fortran, bytes).
bool FillNumpyArray(PickleGraph& graph, PickleRef object, const std::vector<PickleRef>& state) {
  if (state.size() != 5 || graph[state[1]].kind != Kind::kTuple || graph[state[2]].kind != Kind::kNumpyDType ||
      graph[state[3]].kind != Kind::kBool || graph[state[4]].kind != Kind::kBytes)
    return false;
  PickleValue& array = graph.values[object];
  array.items = {state[2], state[1]};
  array.flag = graph[state[3]].bits != 0;
  array.text = graph[state[4]].text;
  TurnAround(graph, array);
  return true;
}

}  // namespace

PickleValue CallResult(PickleGraph& graph, PickleRef callable, PickleRef arguments) {
  return Call(graph, callable, arguments).Result();
}

void SetObjectState(PickleGraph& graph, PickleRef object, PickleRef state) {
  const Kind kind = graph[object].kind;
  const std::vector<PickleRef> items =
      graph[state].kind == Kind::kTuple ? graph[state].items : std::vector<PickleRef>{};
  graph.repeated_bytes += items.size() * sizeof(PickleRef);
  switch (kind) {
    case Kind::kRefused:
    case Kind::kGlobal: return;
    case Kind::kOrderedDict:
    case Kind::kNamespace:
      if (graph[state].kind != Kind::kDict)
        return Refuse(graph, object, graph.Keep(TypeName(graph[object]) + " with an unknown kind of state"));
      graph.values[object].attributes = state;
      return;
    case Kind::kNumpyDType:
      if (CompleteNumpyDType(graph, object, items)) return;
      return Refuse(graph, object, "numpy.dtype with fields or metadata");
    case Kind::kNumpyArray:
      if (FillNumpyArray(graph, object, items)) return;
      if (items.size() == 5 && graph[items[2]].kind == Kind::kRefused)
        return Refuse(graph, object, graph.Keep(absl::StrCat("numpy.ndarray of ", std::string(graph[items[2]].text))));
      return Refuse(graph, object, "numpy.ndarray of an unknown kind");
    default:
      return Refuse(graph, object,
                    graph.Keep(TypeName(graph[object]) + " with attributes that its type does not have"));
  }
}

// ("storage", storage type, key, location, elements)
PickleValue PersistentObject(PickleGraph& graph, PickleRef id) {
  const PickleValue unknown{.kind = Kind::kRefused, .text = "a persistent object that is no storage"};
  const std::vector<PickleRef>& items = graph[id].items;
  if (graph[id].kind != Kind::kTuple || items.size() != 5) return unknown;
  const PickleValue& type = graph[items[1]];
  const PickleValue& key = graph[items[2]];
  const PickleValue& location = graph[items[3]];
  const PickleValue& elements = graph[items[4]];
  if (graph[items[0]].kind != Kind::kStr || graph[items[0]].text != "storage" || type.kind != Kind::kGlobal ||
      key.kind != Kind::kStr || location.kind != Kind::kStr || elements.kind != Kind::kInt)
    return unknown;
  if (static_cast<Global>(type.bits) != Global::kStorageType)
    return {.kind = Kind::kRefused, .text = graph.Keep(absl::StrCat("torch.Tensor of ", std::string(type.text)))};
  return {.kind = Kind::kStorage, .dtype = type.dtype, .bits = elements.bits, .text = key.text, .items = {items[3]}};
}

}  // namespace ckpt::formats
