#include "client/formats/python_key.h"

#include <bit>
#include <cmath>
#include <cstdint>
#include <string>

namespace ckpt::formats {
namespace {

// Of a whole number beyond 64 bits: two's complement, little-endian, as short as possible.
std::string BigInt(double whole) {
  int exponent = 0;
  const auto mantissa = static_cast<std::int64_t>(std::ldexp(std::frexp(whole, &exponent), 53));
  exponent -= 53;
  std::string bytes(static_cast<std::size_t>(exponent / 8), '\0');
  const std::int64_t high = mantissa * (1 << exponent % 8);
  for (int i = 0; i < 8; ++i) bytes += static_cast<char>(high >> (8 * i) & 0xff);
  const char sign = whole < 0 ? '\xff' : '\0';
  while (bytes.back() == sign && ((bytes[bytes.size() - 2] ^ sign) & 0x80) == 0) bytes.pop_back();
  return bytes;
}

v1::Scalar RealKey(double value) {
  constexpr double kTwoTo63 = 9223372036854775808.0;
  v1::Scalar key;
  if (std::trunc(value) != value || std::isinf(value)) {
    key.set_float_bits(std::bit_cast<std::uint64_t>(value));
  } else if (value >= -kTwoTo63 && value < kTwoTo63) {
    key.set_int_value(static_cast<std::int64_t>(value));
  } else {
    key.set_big_int(BigInt(value));
  }
  return key;
}

}  // namespace

std::optional<v1::Scalar> PythonKey(const v1::Scalar& value) {
  switch (value.value_case()) {
    case v1::Scalar::kBoolValue: return RealKey(value.bool_value() ? 1 : 0);
    case v1::Scalar::kFloatBits: {
      const auto real = std::bit_cast<double>(value.float_bits());
      return std::isnan(real) ? std::nullopt : std::optional(RealKey(real));
    }
    case v1::Scalar::kComplexValue: {
      const auto real = std::bit_cast<double>(value.complex_value().real_bits());
      const auto imaginary = std::bit_cast<double>(value.complex_value().imag_bits());
      if (std::isnan(real) || std::isnan(imaginary)) return std::nullopt;
      if (imaginary == 0) return RealKey(real);
      v1::Scalar key;
      key.mutable_complex_value()->set_real_bits(std::bit_cast<std::uint64_t>(real + 0.0));  // -0.0 becomes 0.0
      key.mutable_complex_value()->set_imag_bits(value.complex_value().imag_bits());
      return key;
    }
    default: return value;
  }
}

}  // namespace ckpt::formats
