#include "client/save_stream.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace ckpt::client {
namespace {

// Size at which a message of many small parts is sent.
constexpr std::size_t kMessageBytes = std::size_t{256} << 10;
// Digests in one Have: what the server takes.
constexpr std::size_t kMaxAsked = 16384;
constexpr std::size_t kMaxCited = 4096;

absl::Status Unexpected(std::string_view what) {
  return MakeError(absl::StatusCode::kInternal, "PROTOCOL",
                   absl::StrCat("the server did not keep to the protocol: ",
                                absl::string_view(what.data(), what.size()), "; is it a ckptd of this version?"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<SaveStream>> SaveStream::Open(Connection& connection, v1::SaveBegin begin) {
  auto stream = std::unique_ptr<SaveStream>(new SaveStream(connection));
  v1::SaveRequest request;
  *request.mutable_begin() = std::move(begin);
  CKPT_RETURN_IF_ERROR(stream->Write(EncodeMessage(request)));
  CKPT_RETURN_IF_ERROR(stream->ReadBegun());
  return stream;
}

absl::Status SaveStream::ReadBegun() {
  CKPT_RETURN_IF_ERROR(Await([&] { return has_begun_ && acked_left_ == 0; }));
  if (begun_.chunk_size() == 0 || begun_.inline_limit() == 0 || begun_.max_message_bytes() / 2 < kMessageBytes ||
      begun_.chunk_size() > begun_.max_message_bytes() || begun_.inline_limit() > begun_.max_message_bytes() / 2)
    return Unexpected("it began with impossible limits");
  return absl::OkStatus();
}

absl::Status SaveStream::Ended() {
  const absl::Status status = stream_.Finish();
  return status.ok() ? Unexpected("it ended the save without an answer") : status;
}

absl::Status SaveStream::Write(grpc::ByteBuffer message) {
  for (;;) {
    switch (stream_.Wait(true)) {
      case RawStream::Event::kMessage: CKPT_RETURN_IF_ERROR(TakeMessage()); break;
      case RawStream::Event::kRoom: stream_.Write(std::move(message)); return absl::OkStatus();
      case RawStream::Event::kEnded: return Ended();
    }
  }
}

absl::Status SaveStream::Await(const std::function<bool()>& condition) {
  while (!condition()) {
    if (stream_.Wait(false) == RawStream::Event::kEnded) return Ended();
    CKPT_RETURN_IF_ERROR(TakeMessage());
  }
  return absl::OkStatus();
}

absl::Status SaveStream::TakeMessage() {
  v1::SaveResponse response;
  CKPT_RETURN_IF_ERROR(DecodeMessage(stream_.Take(), response));
  if (has_begun_ == response.has_begun()) return Unexpected("begun is not its first message");
  switch (response.message_case()) {
    case v1::SaveResponse::kBegun:
      begun_ = std::move(*response.mutable_begun());
      has_begun_ = true;
      acked_left_ = begun_.acked_count();
      return absl::OkStatus();
    case v1::SaveResponse::kAcked: return TakeAcked(response.acked());
    case v1::SaveResponse::kAck: return TakeAck(response.ack());
    case v1::SaveResponse::kHave: answers_.push_back(std::move(*response.mutable_have()->mutable_missing())); break;
    case v1::SaveResponse::kCommitted:
      outcome_.emplace().checkpoint = std::move(*response.mutable_committed()->mutable_checkpoint());
      break;
    case v1::SaveResponse::kWaiting:
      outcome_.emplace().waiting.assign(response.waiting().ranks().begin(), response.waiting().ranks().end());
      if (outcome_->waiting.empty()) return Unexpected("it waits for nobody");
      break;
    case v1::SaveResponse::MESSAGE_NOT_SET: break;  // of a newer server
  }
  return absl::OkStatus();
}

absl::Status SaveStream::TakeAcked(const v1::AckedChunks& acked) {
  if (static_cast<std::uint64_t>(acked.chunks_size()) > acked_left_)
    return Unexpected("more acked chunks than announced");
  acked_left_ -= static_cast<std::uint64_t>(acked.chunks_size());
  for (const v1::AckedChunks::Chunk& chunk : acked.chunks()) {
    const auto digest = Digest::From(chunk.digest());
    const auto fingerprint = Fingerprint::From(chunk.fingerprint());
    if (!digest.has_value() || !fingerprint.has_value()) return Unexpected("an acked chunk without a digest");
    acked_[{chunk.tensor(), chunk.index()}] = {*fingerprint, *digest};  // what was sent again replaces
  }
  return absl::OkStatus();
}

absl::Status SaveStream::TakeAck(const v1::Ack& ack) {
  const std::uint64_t count = ack.digests().size() / Digest::kSize;
  if (chunks_ == nullptr || ack.digests().size() % Digest::kSize != 0 || count > next_chunk_ - next_acked_)
    return Unexpected("it acked what was not sent");
  const std::uint64_t first = next_acked_;
  for (std::uint64_t i = 0; i < count; ++i) {
    const Digest digest = Digest::At(ack.digests(), i);
    const std::uint64_t chunk = next_acked_++;
    if (chunks_->has_digest(chunk) && chunks_->digest(chunk) != digest)
      return Unexpected("it acked another chunk than the one that was sent");
    chunks_->SetDigest(chunk, digest);
  }
  if (ack.total() != next_acked_) return Unexpected("its count of acked chunks is off");
  for (std::uint64_t chunk = first; chunk < next_acked_;) {
    const ChunkLayout& layout = chunks_->layout();
    const ChunkLayout::Place place = layout.At(chunk);
    const std::uint64_t box = layout.InBox(place).box;
    const std::uint64_t end =
        std::min(next_acked_, layout.first(place.tensor, box) + layout.box_chunk_count(place.tensor, box));
    chunks_->ReleaseChunks(chunk, end);
    chunk = end;
  }
  observer_->acked(next_acked_);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<bool>> SaveStream::Ask(std::span<const Digest> digests) {
  std::vector<bool> has;
  has.reserve(digests.size());
  while (has.size() < digests.size()) {
    const auto asked = digests.subspan(has.size(), std::min(kMaxAsked, digests.size() - has.size()));
    v1::SaveRequest request;
    std::string& list = *request.mutable_have()->mutable_digests();
    list.reserve(asked.size() * Digest::kSize);
    for (const Digest& digest : asked) list.append(digest.view());
    CKPT_RETURN_IF_ERROR(Write(EncodeMessage(request)));
    CKPT_RETURN_IF_ERROR(Await([&] { return !answers_.empty(); }));
    const std::string missing = std::move(answers_.front());
    answers_.pop_front();
    if (missing.size() != (asked.size() + 7) / 8) return Unexpected("its answer to have is too short or too long");
    for (std::size_t i = 0; i < asked.size(); ++i)
      has.push_back((static_cast<unsigned char>(missing[i / 8]) >> (i % 8) & 1) == 0);
  }
  return has;
}

absl::StatusOr<SaveStream::Outcome> SaveStream::Send(SaveChunks& chunks, const std::vector<bool>& cite,
                                                     std::span<const v1::StateNode> nodes, const v1::SaveCommit& commit,
                                                     LentMemory& lent, const Observer& observer) {
  chunks_ = &chunks;
  observer_ = &observer;
  for (std::uint64_t tensor = 0; tensor < chunks.tensors().count(); ++tensor)
    CKPT_RETURN_IF_ERROR(SendTensor(tensor, cite, lent));
  CKPT_RETURN_IF_ERROR(FlushHeaders());
  CKPT_RETURN_IF_ERROR(SendNodes(nodes));
  CKPT_RETURN_IF_ERROR(observer.all_read());
  v1::SaveRequest request;
  *request.mutable_commit() = commit;
  CKPT_RETURN_IF_ERROR(Write(EncodeMessage(request)));
  stream_.HalfClose();
  CKPT_RETURN_IF_ERROR(Await([&] { return outcome_.has_value(); }));
  return *std::move(outcome_);
}

absl::Status SaveStream::SendTensor(std::uint64_t tensor, const std::vector<bool>& cite, LentMemory& lent) {
  const std::uint64_t end = next_chunk_ + chunks_->layout().chunk_count(tensor);
  v1::Tensor& header = *headers_.mutable_tensors()->add_tensors();
  header = chunks_->tensors().meta(tensor);
  if (next_chunk_ == end) {
    int box = 0;
    for (const Bytes bytes : chunks_->tensors().pieces(tensor)) {
      std::string& data =
          header.boxes().empty() ? *header.mutable_inline_data() : *header.mutable_boxes(box++)->mutable_inline_data();
      data.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      done_bytes_ += bytes.size();
    }
  }
  headers_bytes_ += header.ByteSizeLong() + 8;
  while (begun_.takes_cited_digests() && next_chunk_ < end && cite[next_chunk_] && headers_bytes_ < kMessageBytes) {
    headers_.mutable_tensors()->mutable_cited_digests()->append(chunks_->digest(next_chunk_).view());
    headers_bytes_ += Digest::kSize;
    done_bytes_ += chunks_->bytes(next_chunk_++).size();
  }
  if (next_chunk_ != end || headers_bytes_ >= kMessageBytes) CKPT_RETURN_IF_ERROR(FlushHeaders());
  while (next_chunk_ < end) {
    const std::uint64_t chunk = next_chunk_;
    const Bytes payload = chunks_->bytes(chunk);
    if (cite[chunk]) {
      std::string& list = *citations_.mutable_citations()->mutable_digests();
      list.append(chunks_->digest(chunk).view());
      ++next_chunk_;
      if (list.size() == kMaxCited * Digest::kSize) CKPT_RETURN_IF_ERROR(FlushCitations());
    } else {
      CKPT_RETURN_IF_ERROR(FlushCitations());
      const Fingerprint fingerprint = chunks_->fingerprint(chunk);  // while earlier messages are on their way
      // Counted before it is written: its ack may come while the next one waits for room.
      ++next_chunk_;
      CKPT_RETURN_IF_ERROR(Write(EncodeChunkUpload(fingerprint, lent.Lend(payload))));
      chunks_->MarkSent(chunk);
    }
    done_bytes_ += payload.size();
    observer_->sent(done_bytes_);
  }
  return FlushCitations();
}

absl::Status SaveStream::FlushHeaders() {
  if (headers_bytes_ == 0) return absl::OkStatus();
  CKPT_RETURN_IF_ERROR(Write(EncodeMessage(headers_)));
  headers_.Clear();
  headers_bytes_ = 0;
  observer_->sent(done_bytes_);
  return absl::OkStatus();
}

absl::Status SaveStream::FlushCitations() {
  if (!citations_.has_citations()) return absl::OkStatus();
  CKPT_RETURN_IF_ERROR(Write(EncodeMessage(citations_)));
  citations_.Clear();
  return absl::OkStatus();
}

absl::Status SaveStream::SendNodes(std::span<const v1::StateNode> nodes) {
  while (!nodes.empty()) {
    v1::SaveRequest request;
    v1::StatePart& part = *request.mutable_state();
    std::size_t size = 0;
    while (!nodes.empty()) {
      const std::size_t node_size = nodes.front().ByteSizeLong() + 8;
      if (size != 0 && size + node_size > kMessageBytes) break;
      size += node_size;
      *part.add_nodes() = nodes.front();
      nodes = nodes.subspan(1);
    }
    if (size > begun_.max_message_bytes())
      return MakeError(absl::StatusCode::kInvalidArgument, "TOO_LARGE",
                       absl::StrCat("a value in the state has ", size,
                                    " bytes, more than fit into a message; keep data of this size in a tensor"));
    CKPT_RETURN_IF_ERROR(Write(EncodeMessage(request)));
  }
  return absl::OkStatus();
}

}  // namespace ckpt::client
