// Puts pickle opcodes and plain values into a text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/container/flat_hash_map.h"
#include "ckpt/v1/state.pb.h"

namespace ckpt::formats {

// Appends to a pickle of protocol 2. Not thread-safe.
class PickleOpcodes {
 public:
  void Op(char opcode) { pickle_ += opcode; }
  void None() { Op('N'); }
  void Bool(bool value) { Op(value ? '\x88' : '\x89'); }
  void Int(std::int64_t value);
  void Float(std::uint64_t bits);
  // At most 4 GiB. UTF-8, lone surrogates as three bytes.
  void Str(std::string_view utf8);
  // As protocol 2 does it: text with a character for each byte, encoded.
  void Bytes(std::string_view bytes);
  // `module` and `name` must be constants of the program or checked: a line break in one of them would be an opcode.
  void Global(std::string_view module, std::string_view name);
  void Scalar(const v1::Scalar& value);

  // Remembers the value on top of the stack; Get pushes it again.
  std::uint32_t Put();
  void Get(std::uint32_t index);

  std::string& pickle() { return pickle_; }

 private:
  void Long(std::string_view little_endian);

  std::string pickle_ = "\x80\x02";
  std::uint32_t memo_size_ = 0;
  absl::flat_hash_map<std::string, std::uint32_t> globals_;
};

}  // namespace ckpt::formats
