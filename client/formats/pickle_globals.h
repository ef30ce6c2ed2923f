// The names that a pickle may refer to. A name that is not here is never an error by itself: what is made of it is a
// value that a state cannot hold, and is refused where it stands in the state.
#pragma once

#include <cstdint>
#include <string_view>

#include "ckpt/v1/state.pb.h"

namespace ckpt::formats {

enum class PickleGlobal : std::uint8_t {
  kUnknown,
  kOrderedDict,
  kDefaultDict,
  kCounter,
  kSet,
  kFrozenset,
  kByteArray,
  kBytes,
  kComplex,
  kEncode,
  kFactory,  // of a defaultdict: int, list, …
  kRebuildTensorV2,
  kRebuildTensorV3,
  kRebuildParameter,
  kRebuildParameterWithState,
  kRebuildFromType,
  kTensorType,
  kSize,
  kDevice,
  kDType,
  kMemoryFormat,
  kGetLayout,
  kStorageType,
  kNumpyReconstruct,
  kNumpyFromBuffer,
  kNumpyArrayType,
  kNumpyDType,
  kNumpyScalar,
  kPath,
  kTorchVersion,
  kNamespace,
};

struct PickleGlobalFacts {
  PickleGlobal global = PickleGlobal::kUnknown;
  v1::DType dtype = v1::DTYPE_UNSPECIFIED;  // a kDType, or of a kStorageType's elements (unspecified: bytes)
};

// `module` and `name` as the pickle has them; names of Python 2 and of older libraries are known as well.
PickleGlobalFacts FindPickleGlobal(std::string_view module, std::string_view name);

// "FloatStorage" for float32; "" for a type that torch has no typed storage of.
std::string_view StorageTypeName(v1::DType dtype);

// The module's name in Python 3 and in today's libraries: "builtins" for __builtin__.
std::string_view ModuleToday(std::string_view module);

// The name in Python 3 of one of builtins: "int" for __builtin__.long.
std::string_view BuiltinName(std::string_view name);

// True for the classes that a defaultdict's factory may be.
bool IsFactory(std::string_view builtin_name);

// True for the classes of pathlib.
bool IsPathClass(std::string_view name);

// True for torch's layouts: "strided".
bool IsLayout(std::string_view name);

// True for torch's memory formats: "channels_last".
bool IsMemoryFormat(std::string_view name);

}  // namespace ckpt::formats
