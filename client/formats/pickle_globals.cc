#include "client/formats/pickle_globals.h"

#include <algorithm>
#include <array>

#include "base/data_type.h"

namespace ckpt::formats {
namespace {

struct Known {
  std::string_view module;
  std::string_view name;
  PickleGlobal global;
};

constexpr std::array kKnown = std::to_array<Known>({
    {"collections", "OrderedDict", PickleGlobal::kOrderedDict},
    {"collections", "defaultdict", PickleGlobal::kDefaultDict},
    {"collections", "Counter", PickleGlobal::kCounter},
    {"builtins", "set", PickleGlobal::kSet},
    {"builtins", "frozenset", PickleGlobal::kFrozenset},
    {"builtins", "bytearray", PickleGlobal::kByteArray},
    {"builtins", "bytes", PickleGlobal::kBytes},
    {"builtins", "complex", PickleGlobal::kComplex},
    {"_codecs", "encode", PickleGlobal::kEncode},
    {"torch._utils", "_rebuild_tensor_v2", PickleGlobal::kRebuildTensorV2},
    {"torch._utils", "_rebuild_tensor_v3", PickleGlobal::kRebuildTensorV3},
    {"torch._utils", "_rebuild_parameter", PickleGlobal::kRebuildParameter},
    {"torch._utils", "_rebuild_parameter_with_state", PickleGlobal::kRebuildParameterWithState},
    {"torch._tensor", "_rebuild_from_type_v2", PickleGlobal::kRebuildFromType},
    {"torch", "Tensor", PickleGlobal::kTensorType},
    {"torch", "Size", PickleGlobal::kSize},
    {"torch", "device", PickleGlobal::kDevice},
    {"torch.serialization", "_get_layout", PickleGlobal::kGetLayout},
    {"numpy._core.multiarray", "_reconstruct", PickleGlobal::kNumpyReconstruct},
    {"numpy._core.numeric", "_frombuffer", PickleGlobal::kNumpyFromBuffer},
    {"numpy._core.multiarray", "scalar", PickleGlobal::kNumpyScalar},
    {"numpy", "ndarray", PickleGlobal::kNumpyArrayType},
    {"numpy", "dtype", PickleGlobal::kNumpyDType},
    {"torch.torch_version", "TorchVersion", PickleGlobal::kTorchVersion},
    {"argparse", "Namespace", PickleGlobal::kNamespace},
});

struct StorageType {
  std::string_view name;
  v1::DType dtype;
};

constexpr std::array kStorageTypes = std::to_array<StorageType>({
    {"DoubleStorage", v1::DTYPE_FLOAT64},
    {"FloatStorage", v1::DTYPE_FLOAT32},
    {"HalfStorage", v1::DTYPE_FLOAT16},
    {"BFloat16Storage", v1::DTYPE_BFLOAT16},
    {"LongStorage", v1::DTYPE_INT64},
    {"IntStorage", v1::DTYPE_INT32},
    {"ShortStorage", v1::DTYPE_INT16},
    {"CharStorage", v1::DTYPE_INT8},
    {"ByteStorage", v1::DTYPE_UINT8},
    {"BoolStorage", v1::DTYPE_BOOL},
    {"ComplexDoubleStorage", v1::DTYPE_COMPLEX128},
    {"ComplexFloatStorage", v1::DTYPE_COMPLEX64},
});

template <std::size_t N>
bool Contains(const std::array<std::string_view, N>& list, std::string_view name) {
  return std::find(list.begin(), list.end(), name) != list.end();
}

}  // namespace

std::string_view ModuleToday(std::string_view module) {
  if (module == "__builtin__" || module == "exceptions") return "builtins";
  if (module == "copy_reg") return "copyreg";
  if (module == "numpy.core.multiarray") return "numpy._core.multiarray";
  if (module == "numpy.core.numeric") return "numpy._core.numeric";
  if (module == "pathlib._local") return "pathlib";
  return module;
}

std::string_view BuiltinName(std::string_view name) {
  if (name == "long") return "int";
  if (name == "unicode" || name == "basestring") return "str";
  if (name == "xrange") return "range";
  if (name == "unichr") return "chr";
  return name;
}

bool IsFactory(std::string_view builtin_name) {
  static constexpr auto kFactories = std::to_array<std::string_view>(
      {"int", "float", "bool", "complex", "str", "bytes", "list", "tuple", "dict", "set", "frozenset"});
  return Contains(kFactories, builtin_name);
}

bool IsPathClass(std::string_view name) {
  static constexpr auto kClasses = std::to_array<std::string_view>(
      {"PosixPath", "WindowsPath", "Path", "PurePosixPath", "PureWindowsPath", "PurePath"});
  return Contains(kClasses, name);
}

bool IsLayout(std::string_view name) {
  static constexpr auto kLayouts = std::to_array<std::string_view>(
      {"strided", "sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc", "jagged", "_mkldnn"});
  return Contains(kLayouts, name);
}

bool IsMemoryFormat(std::string_view name) {
  static constexpr auto kFormats =
      std::to_array<std::string_view>({"contiguous_format", "preserve_format", "channels_last", "channels_last_3d"});
  return Contains(kFormats, name);
}

std::string_view StorageTypeName(v1::DType dtype) {
  for (const StorageType& type : kStorageTypes)
    if (type.dtype == dtype) return type.name;
  return {};
}

PickleGlobalFacts FindPickleGlobal(std::string_view module, std::string_view name) {
  const std::string_view today = ModuleToday(module);
  for (const Known& known : kKnown)
    if (known.module == today && known.name == name) return {known.global};
  if (today == "builtins" && IsFactory(BuiltinName(name))) return {PickleGlobal::kFactory};
  if (today == "pathlib" && IsPathClass(name)) return {PickleGlobal::kPath};
  if (today == "torch.storage" && name == "UntypedStorage") return {PickleGlobal::kStorageType};
  if (today != "torch") return {};
  if (const auto dtype = DTypeFromName(name)) return {PickleGlobal::kDType, *dtype};
  if (IsMemoryFormat(name)) return {PickleGlobal::kMemoryFormat};
  for (const StorageType& type : kStorageTypes)
    if (type.name == name) return {PickleGlobal::kStorageType, type.dtype};
  return {};
}

}  // namespace ckpt::formats
