// What ckptd receives on a Save stream: the parser that leaves payload where it is, against protobuf's.
// First byte: how the message is cut into slices.
#include <string>

#include "base/wire_reader.h"
#include "server/chunk_message.h"
#include "tests/fuzz/byte_buffer.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/oracle.h"
#include "tests/fuzz/parse_message.h"

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using ckpt::fuzz::Require;
  ckpt::fuzz::Input input(data, size);
  const std::size_t cut = input.Byte();
  const std::string message(input.Rest());
  const auto parsed = ckpt::server::ParseSave(ckpt::fuzz::ToByteBuffer(message, cut));
  ckpt::v1::SaveRequest wanted;
  Require(parsed.ok() == ckpt::fuzz::ParseMessage(message, wanted), "the same messages are taken");
  if (!parsed.ok()) return 0;
  if (!parsed->chunk.has_value()) {
    Require(parsed->message.SerializeAsString() == wanted.SerializeAsString(), "the same message");
    return 0;
  }
  Require(wanted.has_chunk(), "a chunk is a chunk");
  Require(ckpt::Join(parsed->chunk->payload.pieces) == wanted.chunk().payload(), "the same payload");
  Require(parsed->chunk->fingerprint == wanted.chunk().fingerprint(), "the same fingerprint");
  return 0;
}
