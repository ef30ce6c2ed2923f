#include "client/restore.h"

#include <array>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/state_walk.h"
#include "base/status.h"
#include "base/utf8.h"

namespace ckpt::client {
namespace {

// Ranges in one Want: what the server takes.
constexpr int kMaxRanges = 16384;

class MemorySink final : public TensorSink {
 public:
  explicit MemorySink(std::span<void* const> buffers) : buffers_(buffers) {}
  absl::Status Write(std::uint64_t tensor, std::uint64_t offset_bytes, std::span<const std::byte> bytes) override {
    std::memcpy(static_cast<std::byte*>(buffers_[tensor]) + offset_bytes, bytes.data(), bytes.size());
    return absl::OkStatus();
  }

 private:
  const std::span<void* const> buffers_;
};

}  // namespace

RestoreJob::RestoreJob(std::shared_ptr<Connection> connection, RestoreOptions options)
    : connection_(std::move(connection)), options_(std::move(options)) {}

absl::StatusOr<std::unique_ptr<Restore>> RestoreJob::Open(std::shared_ptr<Connection> connection,
                                                          RestoreOptions options) {
  auto job = std::unique_ptr<RestoreJob>(new RestoreJob(std::move(connection), std::move(options)));
  const ConnectOptions& connect = job->connection_->options;
  Backoff backoff(connect.retry_for, Backoff::Clock::now());
  CKPT_RETURN_IF_ERROR(Retry(backoff, connect, [&] { return job->OpenFirst(); }));
  job->Remember();
  CKPT_RETURN_IF_ERROR(job->Select());
  return std::unique_ptr<Restore>(std::move(job));
}

absl::Status RestoreJob::OpenFirst() {
  v1::RestoreBegin begin;
  begin.set_domain(connection_->options.domain);
  begin.set_reference(options_.reference);
  begin.set_wait_for_want(true);
  ManifestReader reader;
  CKPT_ASSIGN_OR_RETURN(stream_, RestoreStream::Open(*connection_, std::move(begin), [&](v1::RestoreResponse message) {
                          return reader.Take(std::move(message));
                        }));
  manifest_ = std::move(reader.manifest());
  return absl::OkStatus();
}

// Opens the same version again, whatever the reference means by now.
absl::Status RestoreJob::Reopen() {
  const v1::Checkpoint& checkpoint = manifest_.checkpoint;
  v1::RestoreBegin begin;
  begin.set_domain(connection_->options.domain);
  begin.set_reference(absl::StrCat(checkpoint.run(), "@", checkpoint.epoch(), "#", checkpoint.version()));
  begin.set_wait_for_want(true);
  const auto check = [&](const v1::RestoreResponse& message) {
    if (!message.has_header() || message.header().checkpoint().manifest_digest() == checkpoint.manifest_digest())
      return absl::OkStatus();
    return MakeError(absl::StatusCode::kAborted, "SERVER_CHANGED",
                     "the server at this address has another checkpoint of this name than before the connection was "
                     "lost; restore again");
  };
  CKPT_ASSIGN_OR_RETURN(stream_, RestoreStream::Open(*connection_, std::move(begin), check));
  return absl::OkStatus();
}

absl::Status RestoreJob::Select() {
  if (!options_.components.empty() || !options_.include.empty()) {
    CKPT_ASSIGN_OR_RETURN(manifest_.nodes, SelectNodes(manifest_.nodes, options_.components, options_.include));
  }
  selected_.assign(manifest_.tensors.size(), false);
  for (const v1::StateNode& node : manifest_.nodes) {
    if (!HasTensor(node.kind())) continue;
    selected_[node.tensor()] = true;
    if (const v1::Tensor& tensor = manifest_.tensors[node.tensor()]; tensor.has_view_of())
      selected_[tensor.view_of()] = true;
  }
  for (std::size_t i = 0; i < selected_.size(); ++i)
    if (!selected_[i]) manifest_.tensors[i].clear_inline_data();
  return absl::OkStatus();
}

// A save of a state like this one will cite what did not change.
void RestoreJob::Remember() {
  const ChunkLayout& layout = *manifest_.layout;
  std::vector<std::pair<std::string, TensorChunks>> known;
  for (std::uint64_t tensor = 0; tensor < layout.tensor_count(); ++tensor) {
    TensorChunks chunks(layout.chunk_count(tensor));
    if (chunks.empty()) continue;
    for (std::uint64_t index = 0; index < chunks.size(); ++index)
      chunks[index] = {manifest_.fingerprint({tensor, index}), manifest_.digest({tensor, index})};
    known.emplace_back(manifest_.tensors[tensor].path(), std::move(chunks));
  }
  connection_->memory.Learn(std::move(known));
}

absl::Status RestoreJob::Read(TensorSink& sink) { return ReadTensors(selected_, sink); }

absl::Status RestoreJob::ReadInto(std::span<void* const> buffers) {
  const auto bad = [](std::string_view what) {
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_BUFFERS", what);
  };
  if (buffers.size() != manifest_.tensors.size())
    return bad(absl::StrCat(buffers.size(), " buffers for ", manifest_.tensors.size(), " tensors"));
  std::vector<bool> wanted(buffers.size());
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    if (buffers[i] == nullptr) continue;
    const v1::Tensor& tensor = manifest_.tensors[i];
    if (!selected_[i])
      return bad(absl::StrCat("tensor ", PrintableUtf8(tensor.path()), " has a buffer, but was not selected"));
    if (tensor.has_view_of())
      return bad(absl::StrCat("tensor ", PrintableUtf8(tensor.path()), " is a view of ",
                              PrintableUtf8(manifest_.tensors[tensor.view_of()].path()),
                              ": give a buffer for that one"));
    wanted[i] = true;
  }
  MemorySink sink(buffers);
  return ReadTensors(wanted, sink);
}

absl::Status RestoreJob::ReadTensors(const std::vector<bool>& wanted, TensorSink& sink) {
  const ChunkLayout& layout = *manifest_.layout;
  const ConnectOptions& connect = connection_->options;
  Reading reading{.sink = sink,
                  .missing = std::vector<bool>(layout.chunk_count()),
                  .sink_status = {},
                  .backoff = Backoff(connect.retry_for, Backoff::Clock::now())};
  for (std::uint64_t tensor = 0; tensor < wanted.size(); ++tensor) {
    if (!wanted[tensor] || manifest_.tensors[tensor].has_view_of()) continue;
    reading.total_bytes += manifest_.size_bytes[tensor];
    reading.missing_chunks += layout.chunk_count(tensor);
    for (std::uint64_t i = 0; i < layout.chunk_count(tensor); ++i) reading.missing[layout.first(tensor) + i] = true;
  }
  for (std::uint64_t tensor = 0; tensor < wanted.size(); ++tensor) {
    if (!wanted[tensor] || manifest_.tensors[tensor].inline_data().empty()) continue;
    const Bytes bytes = AsBytes(manifest_.tensors[tensor].inline_data());
    CKPT_RETURN_IF_ERROR(Give(tensor, 0, std::span(&bytes, 1), reading));
  }
  if (reading.missing_chunks == 0) return absl::OkStatus();
  const absl::Status status = Retry(reading.backoff, connect, [&] { return Fetch(reading); });
  if (!reading.sink_status.ok()) return reading.sink_status;
  return Annotate(status, absl::StrCat("restoring ", manifest_.Name()));
}

// What comes wrong is asked for again, and then checked by the server, which so learns of all the damage in its store.
absl::Status RestoreJob::Fetch(Reading& reading) {
  reading.check = false;
  const absl::Status status = FetchMissing(reading);
  if (!reading.wrong || !reading.sink_status.ok() || !(status.ok() || absl::IsDataLoss(status))) return status;
  reading.check = true;
  const absl::Status checked = FetchMissing(reading);
  return status.ok() ? checked : status;
}

absl::Status RestoreJob::FetchMissing(Reading& reading) {
  if (stream_ == nullptr) CKPT_RETURN_IF_ERROR(Reopen());
  const auto stream = std::move(stream_);
  reading.next_wanted = 0;
  reading.wrong = false;
  const absl::Status status = stream->Fetch([&] { return NextWant(reading); },
                                            [&](const ChunkPieces& chunk) { return TakeChunk(chunk, reading); });
  // The sink's own errors are final, whatever their code.
  if (!reading.sink_status.ok()) return absl::OkStatus();
  CKPT_RETURN_IF_ERROR(status);
  if (reading.missing_chunks != 0 && !reading.wrong)
    return MakeError(absl::StatusCode::kInternal, "PROTOCOL",
                     absl::StrCat("the server ended the restore ", reading.missing_chunks, " chunks too early"));
  return absl::OkStatus();
}

// The next ranges of chunks that are still missing.
v1::Want RestoreJob::NextWant(Reading& reading) const {
  const ChunkLayout& layout = *manifest_.layout;
  v1::Want want;
  want.set_check(reading.check);
  std::uint64_t& next = reading.next_wanted;
  while (want.ranges_size() < kMaxRanges) {
    while (next < reading.missing.size() && !reading.missing[next]) ++next;
    if (next == reading.missing.size()) break;
    const ChunkLayout::Place place = layout.At(next);
    const std::uint64_t end = layout.first(place.tensor) + layout.chunk_count(place.tensor);
    v1::Want::Range& range = *want.add_ranges();
    range.set_tensor(place.tensor);
    range.set_first_chunk(place.index);
    const std::uint64_t first = next;
    while (next < end && reading.missing[next]) ++next;
    range.set_chunk_count(next - first);
  }
  return want;
}

absl::Status RestoreJob::TakeChunk(const ChunkPieces& chunk, Reading& reading) {
  const ChunkLayout& layout = *manifest_.layout;
  if (chunk.tensor >= layout.tensor_count() || chunk.index >= layout.chunk_count(chunk.tensor) ||
      !reading.missing[layout.first(chunk.tensor) + chunk.index])
    return MakeError(absl::StatusCode::kInternal, "PROTOCOL",
                     absl::StrCat("the server sent chunk ", chunk.index, " of tensor number ", chunk.tensor,
                                  ", which it was not asked for or had sent before"));
  const ChunkLayout::Place place{chunk.tensor, chunk.index};
  const ByteRange range = layout.Range(place);
  std::uint64_t size = 0;
  for (const Bytes piece : chunk.payload) size += piece.size();
  if (size != range.size_bytes || Xxh3(chunk.payload) != manifest_.fingerprint(place)) {
    reading.wrong = true;
    if (!reading.check) return absl::OkStatus();
    return MakeError(
        absl::StatusCode::kDataLoss, "WRONG_FINGERPRINT",
        absl::StrCat("tensor ", PrintableUtf8(manifest_.tensors[place.tensor].path()), " chunk ", place.index,
                     ": the bytes that came are not those that were saved, though the server found them "
                     "right: they change on the way; test the memory of both machines"));
  }
  CKPT_RETURN_IF_ERROR(Give(place.tensor, range.offset_bytes, chunk.payload, reading));
  reading.missing[layout.first(place.tensor) + place.index] = false;
  --reading.missing_chunks;
  reading.backoff.Progress(Backoff::Clock::now());
  return absl::OkStatus();
}

absl::Status RestoreJob::Give(std::uint64_t tensor, std::uint64_t offset_bytes, std::span<const Bytes> pieces,
                              Reading& reading) {
  for (const Bytes piece : pieces) {
    reading.sink_status = reading.sink.Write(tensor, offset_bytes, piece);
    CKPT_RETURN_IF_ERROR(reading.sink_status);
    offset_bytes += piece.size();
    reading.done_bytes += piece.size();
  }
  if (options_.progress) options_.progress(reading.done_bytes, reading.total_bytes);
  return absl::OkStatus();
}

}  // namespace ckpt::client
