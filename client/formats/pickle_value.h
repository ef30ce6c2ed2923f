// What a pickle describes, as a graph of plain values: nothing of it has been run.
#pragma once

#include <cstdint>
#include <deque>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "ckpt/v1/state.pb.h"

namespace ckpt::formats {

enum class PickleKind : std::uint8_t {
  kNone,
  kBool,          // bits
  kInt,           // bits: two's complement
  kBigInt,        // text: two's complement, little-endian
  kFloat,         // bits
  kComplex,       // items: real and imaginary part
  kStr,           // text: UTF-8, lone surrogates as three bytes
  kBytes,         // text
  kDict,          // items: key, value, key, value, …
  kOrderedDict,   // as kDict; attributes
  kDefaultDict,   // as kDict; text: the factory
  kCounter,       // as kDict
  kList,          // items
  kTuple,         // items
  kSet,           // items
  kFrozenset,     // items
  kByteArray,     // text
  kSize,          // items
  kDType,         // text: its name; dtype
  kDevice,        // text
  kLayout,        // text
  kMemoryFormat,  // text
  kNumpyDType,    // text: dtype.str; bits: bytes of an element
  kNumpyScalar,   // items: dtype; text: its bytes
  kNumpyArray,    // items: dtype, shape; text: its bytes; flag: Fortran order
  kTensor,        // items: storage, size, stride; bits: storage offset in elements; flag: requires_grad; dtype
  kParameter,     // items: tensor; flag: requires_grad
  kPath,          // text; type_name: the class
  kTorchVersion,  // text
  kNamespace,     // attributes
  kStorage,       // items: location; text: key; bits: elements; dtype (unspecified: bytes)
  kGlobal,  // text: "module.name", as Python 3 has it; type_name: the name; bits: its PickleGlobal; dtype: of a storage
            // type
  kRefused  // text: what a state cannot hold, begun with its type
};

// True for what may be a mapping's key or a set's member.
inline bool IsScalar(PickleKind kind) { return kind <= PickleKind::kBytes; }

// True when its items are keys and values by turns.
inline bool IsMapping(PickleKind kind) {
  return kind == PickleKind::kDict || kind == PickleKind::kOrderedDict || kind == PickleKind::kDefaultDict ||
         kind == PickleKind::kCounter;
}

using PickleRef = std::uint32_t;
inline constexpr PickleRef kNoRef = std::numeric_limits<PickleRef>::max();

struct PickleValue {
  PickleKind kind;
  bool flag = false;
  v1::DType dtype = v1::DTYPE_UNSPECIFIED;
  PickleRef attributes = kNoRef;  // a kDict
  std::uint64_t bits = 0;
  std::string_view text = {};  // in the pickle or the graph's pool
  std::string_view type_name = {};
  std::vector<PickleRef> items = {};
};

// The Python type, "builtins.dict", as refusals name it: of a kGlobal and a kRefused its text.
std::string TypeName(const PickleValue& value);

// Values refer to one another by number; the graph may have cycles.
struct PickleGraph {
  std::deque<PickleValue> values;  // grows without moving
  PickleRef root = kNoRef;
  std::deque<std::string> pool;

  [[nodiscard]] const PickleValue& operator[](PickleRef ref) const { return values[ref]; }

  // Bytes of the pickle that were looked at or copied again, because it refers to them more than once.
  std::uint64_t repeated_bytes = 0;

  // Keeps the text as long as the graph.
  std::string_view Keep(std::string text) {
    repeated_bytes += text.size();
    return pool.emplace_back(std::move(text));
  }
};

}  // namespace ckpt::formats
