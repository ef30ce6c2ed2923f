#include "client/restore_stream.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace ckpt::client {
namespace {

constexpr std::string_view kUnasked = "the server sent payload that nobody had asked for";

absl::Status Unexpected(std::string_view what) { return MakeError(absl::StatusCode::kInternal, "PROTOCOL", what); }

}  // namespace

absl::StatusOr<std::unique_ptr<RestoreStream>> RestoreStream::Open(
    Connection& connection, v1::RestoreBegin begin, const std::function<absl::Status(v1::RestoreResponse)>& take) {
  auto stream = std::unique_ptr<RestoreStream>(new RestoreStream(connection));
  v1::RestoreRequest request;
  *request.mutable_begin() = std::move(begin);
  stream->stream_.Write(EncodeMessage(request));
  for (bool complete = false; !complete;) {
    if (stream->stream_.Wait(false) == RawStream::Event::kEnded) {
      CKPT_RETURN_IF_ERROR(stream->stream_.Finish());
      return Unexpected("the server ended the restore before its description was complete");
    }
    CKPT_ASSIGN_OR_RETURN(RestoreMessage message, RestoreMessage::Parse(stream->stream_.Take()));
    if (message.chunk() != nullptr) return Unexpected(kUnasked);
    complete = message.message().has_start();
    CKPT_RETURN_IF_ERROR(take(std::move(message.message())));
  }
  return stream;
}

absl::Status RestoreStream::Fetch(const std::function<v1::Want()>& next_want,
                                  const std::function<absl::Status(const ChunkPieces&)>& take) {
  std::uint64_t coming = 0;  // chunks
  for (bool more = true; more || coming != 0;) {
    switch (stream_.Wait(more)) {
      case RawStream::Event::kRoom: {
        v1::RestoreRequest request;
        *request.mutable_want() = next_want();
        more = request.want().ranges_size() != 0;
        if (!more) break;
        for (const v1::Want::Range& range : request.want().ranges()) coming += range.chunk_count();
        stream_.Write(EncodeMessage(request));
        break;
      }
      case RawStream::Event::kMessage: {
        CKPT_ASSIGN_OR_RETURN(const RestoreMessage message, RestoreMessage::Parse(stream_.Take()));
        if (message.chunk() == nullptr) break;
        if (coming == 0) return Unexpected(kUnasked);
        CKPT_RETURN_IF_ERROR(take(*message.chunk()));
        --coming;
        break;
      }
      case RawStream::Event::kEnded:
        CKPT_RETURN_IF_ERROR(stream_.Finish());
        return Unexpected(absl::StrCat("the server ended the restore ", coming, " chunks too early"));
    }
  }
  return absl::OkStatus();
}

}  // namespace ckpt::client
