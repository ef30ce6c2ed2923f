#include "server/save_handler.h"

#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "server/chunk_message.h"
#include "storage/save_stream.h"

namespace ckpt::server {
namespace {

using storage::SaveStream;

// gRPC's own default: clients need no setting to send and receive such messages.
constexpr std::uint32_t kMaxMessageBytes = 4U << 20;
// How long the client may pause before what it has sent goes to disk, and how often it is looked at while it does.
constexpr std::chrono::milliseconds kPause{5};
// Who says nothing at first holds no place.
constexpr std::chrono::minutes kFirstMessage{1};
constexpr std::chrono::seconds kHalfClose{5};
constexpr std::chrono::seconds kStillHere{5};

absl::Status Gone() {
  return MakeError(absl::StatusCode::kCancelled, "STREAM_ENDED",
                   "the stream ended before commit; resume it by beginning again with the same attempt key");
}

void SendBegun(SaveStream& save, RawStream& stream) {
  v1::SaveResponse response;
  *response.mutable_begun() = save.begun();
  response.mutable_begun()->set_max_message_bytes(kMaxMessageBytes);
  stream.Post(Serialize(response));
  for (const v1::ProgressRow& row : save.TakeAcked()) {
    if (row.chunks().empty()) continue;
    v1::SaveResponse page;
    for (const v1::ProgressRow::Chunk& acked : row.chunks()) {
      v1::AckedChunks::Chunk& chunk = *page.mutable_acked()->add_chunks();
      chunk.set_tensor(acked.tensor());
      chunk.set_index(acked.index());
      chunk.set_digest(acked.digest());
      chunk.set_fingerprint(acked.fingerprint());
    }
    stream.Post(Serialize(page));
  }
}

// Tells a client that waits for its commit, now and then, that the server is at work.
SaveStream::OnWork StillHere(RawStream& stream) {
  return [&stream, told = std::chrono::steady_clock::now()]() mutable {
    if (std::chrono::steady_clock::now() - told < kStillHere) return;
    stream.Post(Serialize(v1::SaveResponse()));
    told = std::chrono::steady_clock::now();
  };
}

absl::Status Commit(SaveStream& save, RawStream& stream, v1::SaveCommit commit) {
  CKPT_ASSIGN_OR_RETURN(v1::GetSaveResponse outcome, save.Commit(std::move(commit)));
  v1::SaveResponse response;
  if (outcome.has_waiting()) {
    *response.mutable_waiting() = std::move(*outcome.mutable_waiting());
  } else {
    *response.mutable_committed() = std::move(*outcome.mutable_committed());
  }
  stream.Post(Serialize(response));
  grpc::ByteBuffer extra;
  if (stream.Read(extra, kHalfClose) == RawStream::Event::kMessage)
    return MakeError(absl::StatusCode::kFailedPrecondition, "OUT_OF_ORDER",
                     "a message came after commit; what came before it is saved");
  return absl::OkStatus();
}

absl::Status Handle(SaveStream& save, RawStream& stream, v1::SaveRequest& request) {
  switch (request.message_case()) {
    case v1::SaveRequest::kHave: {
      v1::SaveResponse response;
      CKPT_ASSIGN_OR_RETURN(*response.mutable_have()->mutable_missing(), save.Have(request.have().digests()));
      stream.Post(Serialize(response));
      return absl::OkStatus();
    }
    case v1::SaveRequest::kTensors: return save.AddTensors(std::move(*request.mutable_tensors()));
    case v1::SaveRequest::kChunk:
      return save.AddChunk(storage::Payload::Of(std::move(*request.mutable_chunk()->mutable_payload())),
                           request.chunk().fingerprint());
    case v1::SaveRequest::kCitations: return save.Cite(request.citations().digests());
    case v1::SaveRequest::kState: return save.AddState(request.state());
    default:
      return MakeError(absl::StatusCode::kFailedPrecondition, "OUT_OF_ORDER",
                       "a save takes begin once, first, and then have, tensors, chunk, citations, state, commit");
  }
}

absl::Status ServeMessages(SaveStream& save, RawStream& stream) {
  while (true) {
    grpc::ByteBuffer buffer;
    // Who waits for acks, and sends nothing meanwhile, is told at once that a batch failed.
    CKPT_ASSIGN_OR_RETURN(const bool settled, save.Settled());
    RawStream::Event event = RawStream::Event::kEnd;
    if (settled) {
      CKPT_ASSIGN_OR_RETURN(const bool more, stream.Next(buffer));
      if (more) event = RawStream::Event::kMessage;
    } else {
      event = stream.Read(buffer, kPause);
    }
    switch (event) {
      case RawStream::Event::kTimeout: CKPT_RETURN_IF_ERROR(save.Flush(false)); continue;
      case RawStream::Event::kEnd:
        // For whoever resumes.
        CKPT_RETURN_IF_ERROR(save.Flush(true));
        CKPT_RETURN_IF_ERROR(save.Settle());
        return Gone();
      case RawStream::Event::kMessage: break;
    }
    CKPT_ASSIGN_OR_RETURN(ReceivedSave received, ParseSave(buffer));
    buffer.Clear();
    if (received.chunk.has_value()) {
      CKPT_RETURN_IF_ERROR(save.AddChunk(std::move(received.chunk->payload), received.chunk->fingerprint));
    } else if (received.message.has_commit()) {
      return Commit(save, stream, std::move(*received.message.mutable_commit()));
    } else {
      CKPT_RETURN_IF_ERROR(Handle(save, stream, received.message));
    }
  }
}

}  // namespace

absl::Status ServeSave(storage::Store& store, RawStream& stream) {
  grpc::ByteBuffer buffer;
  CKPT_ASSIGN_OR_RETURN(const bool begun, stream.Next(buffer, kFirstMessage));
  if (!begun) return Gone();
  CKPT_ASSIGN_OR_RETURN(ReceivedSave first, ParseSave(buffer));
  if (!first.message.has_begin())
    return MakeError(absl::StatusCode::kFailedPrecondition, "OUT_OF_ORDER", "a save starts with begin");
  CKPT_ASSIGN_OR_RETURN(
      const std::unique_ptr<SaveStream> save,
      SaveStream::Begin(
          store, std::move(*first.message.mutable_begin()),
          [&](std::string digests, std::uint64_t total) { stream.Ack(std::move(digests), total); }, StillHere(stream)));
  SendBegun(*save, stream);
  return ServeMessages(*save, stream);
}

}  // namespace ckpt::server
