// A message as gRPC gives it.
#pragma once

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/slice.h>

#include <string_view>
#include <vector>

#include "tests/fuzz/parse_message.h"
#include "tests/fuzz/wire_oracle.h"

namespace ckpt::fuzz {

// In slices of `size` bytes, or one if that is 0.
inline grpc::ByteBuffer ToByteBuffer(std::string_view message, std::size_t size) {
  SilenceProtobuf();  // whoever reads this may complain
  std::vector<grpc::Slice> slices;
  for (const Bytes piece : Cut(message, size)) slices.emplace_back(piece.data(), piece.size());
  return {slices.data(), slices.size()};
}

}  // namespace ckpt::fuzz
