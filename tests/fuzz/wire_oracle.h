// protobuf's own view of a message's wire format, to hold the hand-written readers against.
#pragma once

#include <google/protobuf/empty.pb.h>
#include <google/protobuf/unknown_field_set.h>

#include <memory>
#include <string_view>
#include <vector>

#include "base/digest.h"
#include "tests/fuzz/parse_message.h"

namespace ckpt::fuzz {

// The fields as protobuf sees them when it knows none of their numbers; null for what is no message.
inline std::unique_ptr<google::protobuf::UnknownFieldSet> FieldsOf(std::string_view message) {
  google::protobuf::Empty all_unknown;
  if (!ParseMessage(message, all_unknown)) return nullptr;
  auto fields = std::make_unique<google::protobuf::UnknownFieldSet>();
  fields->Swap(all_unknown.GetReflection()->MutableUnknownFields(&all_unknown));
  return fields;
}

// Groups are of proto2; the hand-written readers refuse them.
inline bool HasGroup(const google::protobuf::UnknownFieldSet& fields) {
  for (int i = 0; i < fields.field_count(); ++i)
    if (fields.field(i).type() == google::protobuf::UnknownField::TYPE_GROUP) return true;
  return false;
}

// Cuts the message as gRPC may: into pieces of `size` bytes, or one if that is 0.
inline std::vector<Bytes> Cut(std::string_view message, std::size_t size) {
  std::vector<Bytes> pieces;
  if (size == 0) size = message.size();
  for (std::size_t at = 0; at < message.size(); at += size) pieces.push_back(AsBytes(message.substr(at, size)));
  return pieces;
}

}  // namespace ckpt::fuzz
