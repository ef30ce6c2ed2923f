#include "client/formats/pickle_value.h"

#include "absl/strings/str_cat.h"
#include "client/formats/pickle_globals.h"

namespace ckpt::formats {

std::string TypeName(const PickleValue& value) {
  using Kind = PickleKind;
  switch (value.kind) {
    case Kind::kNone: return "builtins.NoneType";
    case Kind::kBool: return "builtins.bool";
    case Kind::kInt:
    case Kind::kBigInt: return "builtins.int";
    case Kind::kFloat: return "builtins.float";
    case Kind::kComplex: return "builtins.complex";
    case Kind::kStr: return "builtins.str";
    case Kind::kBytes: return "builtins.bytes";
    case Kind::kDict: return "builtins.dict";
    case Kind::kOrderedDict: return "collections.OrderedDict";
    case Kind::kDefaultDict: return "collections.defaultdict";
    case Kind::kCounter: return "collections.Counter";
    case Kind::kList: return "builtins.list";
    case Kind::kTuple: return "builtins.tuple";
    case Kind::kSet: return "builtins.set";
    case Kind::kFrozenset: return "builtins.frozenset";
    case Kind::kByteArray: return "builtins.bytearray";
    case Kind::kSize: return "torch.Size";
    case Kind::kDType: return "torch.dtype";
    case Kind::kDevice: return "torch.device";
    case Kind::kLayout: return "torch.layout";
    case Kind::kMemoryFormat: return "torch.memory_format";
    case Kind::kNumpyDType: return "numpy.dtype";
    case Kind::kNumpyScalar: return "numpy.generic";
    case Kind::kNumpyArray: return "numpy.ndarray";
    case Kind::kTensor: return "torch.Tensor";
    case Kind::kParameter: return "torch.nn.parameter.Parameter";
    case Kind::kPath: return absl::StrCat("pathlib.", std::string(value.type_name));
    case Kind::kTorchVersion: return "torch.torch_version.TorchVersion";
    case Kind::kNamespace: return "argparse.Namespace";
    case Kind::kStorage:
      if (value.dtype == v1::DTYPE_UNSPECIFIED) return "torch.storage.UntypedStorage";
      return absl::StrCat("torch.", std::string(StorageTypeName(value.dtype)));
    case Kind::kGlobal:
    case Kind::kRefused: break;
  }
  return std::string(value.text);
}

}  // namespace ckpt::formats
