// Parses protobuf messages as the fuzz targets need it.
#pragma once

#include <google/protobuf/message_lite.h>
#include <google/protobuf/stubs/logging.h>

#include <string_view>

namespace ckpt::fuzz {

// Lets protobuf say nothing about malformed messages: that would be millions of lines.
inline void SilenceProtobuf() {
  [[maybe_unused]] static const auto silenced = google::protobuf::SetLogHandler(nullptr);
}

// False if the bytes are no such message.
inline bool ParseMessage(std::string_view bytes, google::protobuf::MessageLite& message) {
  SilenceProtobuf();
  return message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

}  // namespace ckpt::fuzz
