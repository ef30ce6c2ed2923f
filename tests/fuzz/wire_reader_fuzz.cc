// base's reader of protobuf's wire format against protobuf's own: the same messages are taken, with the same fields.
// First byte: how the message is cut into pieces.
#include <string>
#include <vector>

#include "base/wire_reader.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/oracle.h"
#include "tests/fuzz/wire_oracle.h"

namespace {

using ckpt::WireField;
using ckpt::fuzz::Require;
using google::protobuf::UnknownField;

template <typename Number>
std::string LittleEndian(Number value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

bool Same(const WireField& a, const UnknownField& b) {
  if (a.number != static_cast<std::uint32_t>(b.number())) return false;
  switch (a.type) {
    case WireField::Type::kVarint: return b.type() == UnknownField::TYPE_VARINT && a.value == b.varint();
    case WireField::Type::kFixed64:
      return b.type() == UnknownField::TYPE_FIXED64 && ckpt::Join(a.bytes) == LittleEndian(b.fixed64());
    case WireField::Type::kFixed32:
      return b.type() == UnknownField::TYPE_FIXED32 && ckpt::Join(a.bytes) == LittleEndian(b.fixed32());
    case WireField::Type::kBytes:
      return b.type() == UnknownField::TYPE_LENGTH_DELIMITED && ckpt::Join(a.bytes) == b.length_delimited();
  }
  return false;
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ckpt::fuzz::Input input(data, size);
  const std::size_t cut = input.Byte();
  const std::string_view message = input.Rest();
  ckpt::WireReader reader(ckpt::fuzz::Cut(message, cut));
  std::vector<WireField> fields;
  while (auto field = reader.Next()) fields.push_back(*std::move(field));
  const auto wanted = ckpt::fuzz::FieldsOf(message);
  Require(reader.ok() == (wanted != nullptr && !ckpt::fuzz::HasGroup(*wanted)), "the same messages are taken");
  if (!reader.ok()) return 0;
  Require(fields.size() == static_cast<std::size_t>(wanted->field_count()), "as many fields");
  for (std::size_t i = 0; i < fields.size(); ++i)
    Require(Same(fields[i], wanted->field(static_cast<int>(i))), "the same fields");
  return 0;
}
