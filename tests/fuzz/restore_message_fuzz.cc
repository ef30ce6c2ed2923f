// What a client receives on a Restore stream: the parser that leaves payload where it is, against protobuf's.
// First byte: how the message is cut into slices.
#include <string>

#include "base/wire_reader.h"
#include "client/wire_message.h"
#include "tests/fuzz/byte_buffer.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/oracle.h"
#include "tests/fuzz/parse_message.h"

namespace {

using ckpt::fuzz::Require;
using ckpt::v1::RestoreResponse;

// True for messages that protobuf takes and the client need not, because no server sends them: groups, a chunk in
// parts, a chunk next to another message.
bool IsStrange(const std::string& message) {
  const auto fields = ckpt::fuzz::FieldsOf(message);
  if (fields == nullptr || ckpt::fuzz::HasGroup(*fields)) return true;
  int chunks = 0;
  bool other = false;
  for (int i = 0; i < fields->field_count(); ++i) {
    const google::protobuf::UnknownField& field = fields->field(i);
    other |= field.number() < RestoreResponse::kChunkFieldNumber;
    if (field.number() != RestoreResponse::kChunkFieldNumber ||
        field.type() != google::protobuf::UnknownField::TYPE_LENGTH_DELIMITED)
      continue;
    ++chunks;
    const auto inner = ckpt::fuzz::FieldsOf(field.length_delimited());
    if (inner != nullptr && ckpt::fuzz::HasGroup(*inner)) return true;
  }
  return chunks > 1 || (chunks == 1 && other);
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ckpt::fuzz::Input input(data, size);
  const std::size_t cut = input.Byte();
  const std::string message(input.Rest());
  auto parsed = ckpt::client::RestoreMessage::Parse(ckpt::fuzz::ToByteBuffer(message, cut));
  RestoreResponse wanted;
  const bool taken = ckpt::fuzz::ParseMessage(message, wanted);
  Require(taken || !parsed.ok(), "nothing is taken that is no RestoreResponse");
  if (!parsed.ok()) {
    Require(!taken || IsStrange(message), "what a server may send is taken");
    return 0;
  }
  const ckpt::client::ChunkPieces* chunk = parsed->chunk();
  Require((chunk != nullptr) == wanted.has_chunk(), "a chunk is a chunk");
  if (chunk == nullptr) {
    Require(parsed->message().SerializeAsString() == wanted.SerializeAsString(), "the same message");
    return 0;
  }
  Require(chunk->tensor == wanted.chunk().tensor() && chunk->index == wanted.chunk().index(), "the same place");
  Require(ckpt::Join(chunk->payload) == wanted.chunk().payload(), "the same payload");
  return 0;
}
