#include "client/formats/pickle_opcodes.h"

#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace ckpt::formats {
namespace {

void AppendNumber(std::string& out, std::uint64_t value, std::size_t width) {
  char bytes[8];
  std::memcpy(bytes, &value, sizeof bytes);
  out.append(bytes, width);
}

}  // namespace

void PickleOpcodes::Int(std::int64_t value) {
  const auto bits = static_cast<std::uint64_t>(value);
  if (value >= 0 && value <= 0xff) {
    Op('K');
    AppendNumber(pickle_, bits, 1);
  } else if (value >= 0 && value <= 0xffff) {
    Op('M');
    AppendNumber(pickle_, bits, 2);
  } else if (value >= std::numeric_limits<std::int32_t>::min() && value <= std::numeric_limits<std::int32_t>::max()) {
    Op('J');
    AppendNumber(pickle_, bits, 4);
  } else {
    char bytes[8];
    std::memcpy(bytes, &bits, sizeof bytes);
    std::size_t size = sizeof bytes;
    const char sign = value < 0 ? '\xff' : '\0';
    while (bytes[size - 1] == sign && (bytes[size - 2] & 0x80) == (sign & 0x80)) --size;
    Long({bytes, size});
  }
}

void PickleOpcodes::Long(std::string_view little_endian) {
  if (little_endian.size() <= 0xff) {
    Op('\x8a');
    AppendNumber(pickle_, little_endian.size(), 1);
  } else {
    Op('\x8b');
    AppendNumber(pickle_, little_endian.size(), 4);
  }
  pickle_ += little_endian;
}

void PickleOpcodes::Float(std::uint64_t bits) {
  Op('G');
  AppendNumber(pickle_, __builtin_bswap64(bits), 8);
}

void PickleOpcodes::Str(std::string_view utf8) {
  CKPT_CHECK(utf8.size() <= std::numeric_limits<std::uint32_t>::max());  // no message is that large
  Op('X');
  AppendNumber(pickle_, utf8.size(), 4);
  pickle_ += utf8;
}

void PickleOpcodes::Bytes(std::string_view bytes) {
  Global("_codecs", "encode");
  std::string text;
  text.reserve(bytes.size());
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80) {
      text += c;
    } else {
      text += static_cast<char>(0xc0 | byte >> 6);
      text += static_cast<char>(0x80 | (byte & 0x3f));
    }
  }
  Str(text);
  Str("latin1");
  Op('\x86');
  Op('R');
}

void PickleOpcodes::Global(std::string_view module, std::string_view name) {
  const std::string line = absl::StrCat(std::string(module), "\n", std::string(name), "\n");
  if (const auto it = globals_.find(line); it != globals_.end()) return Get(it->second);
  Op('c');
  pickle_ += line;
  globals_[line] = Put();
}

void PickleOpcodes::Scalar(const v1::Scalar& value) {
  switch (value.value_case()) {
    case v1::Scalar::kBoolValue: return Bool(value.bool_value());
    case v1::Scalar::kIntValue: return Int(value.int_value());
    case v1::Scalar::kBigInt: return Long(value.big_int());
    case v1::Scalar::kFloatBits: return Float(value.float_bits());
    case v1::Scalar::kComplexValue:
      Global("__builtin__", "complex");
      Float(value.complex_value().real_bits());
      Float(value.complex_value().imag_bits());
      Op('\x86');
      return Op('R');
    case v1::Scalar::kStrValue: return Str(value.str_value());
    case v1::Scalar::kBytesValue: return Bytes(value.bytes_value());
    default: return None();
  }
}

std::uint32_t PickleOpcodes::Put() {
  const std::uint32_t index = memo_size_++;
  Op(index <= 0xff ? 'q' : 'r');
  AppendNumber(pickle_, index, index <= 0xff ? 1 : 4);
  return index;
}

void PickleOpcodes::Get(std::uint32_t index) {
  Op(index <= 0xff ? 'h' : 'j');
  AppendNumber(pickle_, index, index <= 0xff ? 1 : 4);
}

}  // namespace ckpt::formats
