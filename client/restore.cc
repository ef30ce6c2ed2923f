#include "client/restore.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "base/box.h"
#include "base/parallel.h"
#include "base/state_walk.h"
#include "base/status.h"
#include "base/utf8.h"

namespace ckpt::client {
namespace {

// Before all chunks are compared, one in so many is, and no fewer than so many. If none is right no other is looked at.
constexpr std::size_t kProbeStep = 16;
constexpr std::size_t kLeastProbes = 64;
// Chunks that are compared before the caller is asked whether to go on.
constexpr std::size_t kWindow = 256;
// Ranges in one Want: what the server takes.
constexpr int kMaxRanges = 16384;

// The pieces that hold a range of bytes which they begin before.
class Pieces {
 public:
  explicit Pieces(std::span<const Bytes> pieces) : pieces_(pieces) {}

  // Gives `take` the bytes [from, from + size), piece by piece. `from` never falls.
  absl::Status Give(std::uint64_t from, std::uint64_t size, std::int64_t to,
                    absl::FunctionRef<absl::Status(std::int64_t to, Bytes bytes)> take) {
    while (size != 0) {
      while (from - start_ >= pieces_.front().size()) {
        start_ += pieces_.front().size();
        pieces_ = pieces_.subspan(1);
      }
      const std::uint64_t offset = from - start_;
      const std::uint64_t count = std::min<std::uint64_t>(size, pieces_.front().size() - offset);
      CKPT_RETURN_IF_ERROR(take(to, pieces_.front().subspan(offset, count)));
      from += count;
      to += static_cast<std::int64_t>(count);
      size -= count;
    }
    return absl::OkStatus();
  }

 private:
  std::span<const Bytes> pieces_;
  std::uint64_t start_ = 0;  // of the first of them
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
    for (int i = 0; i < manifest_.tensors[tensor].boxes_size(); ++i) {
      const v1::Box& box = manifest_.tensors[tensor].boxes(i);
      TensorChunks chunks(layout.box_chunk_count(tensor, static_cast<std::uint64_t>(i)));
      for (std::size_t index = 0; index < chunks.size(); ++index)
        chunks[index] = {Fingerprint::At(box.fingerprints(), index), Digest::At(box.digests(), index)};
      known.emplace_back(BoxKey(manifest_.tensors[tensor], i), std::move(chunks));
    }
  }
  connection_->memory.Learn(std::move(known));
}

absl::Status RestoreJob::Read(TensorSink& sink) {
  std::vector<Destination> destinations;
  for (std::uint64_t tensor = 0; tensor < selected_.size(); ++tensor) {
    if (!selected_[tensor] || manifest_.tensors[tensor].has_view_of()) continue;
    destinations.push_back({.tensor = tensor, .region = TensorRegion::Whole(manifest_.tensors[tensor]), .sink = &sink});
  }
  return ReadTo(std::move(destinations));
}

absl::Status RestoreJob::ReadInto(std::span<void* const> buffers) {
  const auto bad = [](std::string_view what) {
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_BUFFERS", what);
  };
  if (buffers.size() != manifest_.tensors.size())
    return bad(absl::StrCat(buffers.size(), " buffers for ", manifest_.tensors.size(), " tensors"));
  std::vector<Destination> destinations;
  for (std::size_t i = 0; i < buffers.size(); ++i) {
    if (buffers[i] == nullptr) continue;
    const v1::Tensor& tensor = manifest_.tensors[i];
    if (!selected_[i])
      return bad(absl::StrCat("tensor ", PrintableUtf8(tensor.path()), " has a buffer, but was not selected"));
    if (tensor.has_view_of())
      return bad(absl::StrCat("tensor ", PrintableUtf8(tensor.path()), " is a view of ",
                              PrintableUtf8(manifest_.tensors[tensor.view_of()].path()),
                              ": give a buffer for that one"));
    destinations.push_back(
        {.tensor = i, .region = TensorRegion::Whole(tensor), .data = static_cast<std::byte*>(buffers[i])});
  }
  return ReadTo(std::move(destinations));
}

absl::StatusOr<RestoreJob::Destination> RestoreJob::DestinationOf(const Slice& slice) const {
  const auto bad = [](std::string_view what) {
    return MakeError(absl::StatusCode::kInvalidArgument, "BAD_SLICE", what);
  };
  if (slice.tensor >= manifest_.tensors.size()) return bad(absl::StrCat("there is no tensor ", slice.tensor));
  const v1::Tensor& tensor = manifest_.tensors[slice.tensor];
  const std::string path = PrintableUtf8(tensor.path());
  if (!selected_[slice.tensor]) return bad(absl::StrCat("a slice of tensor ", path, ", which was not selected"));
  if (tensor.has_view_of()) return bad(absl::StrCat("a slice of tensor ", path, ", which is a view"));
  const auto dims = static_cast<std::size_t>(tensor.shape_size());
  if (slice.offset.size() != dims || slice.shape.size() != dims || slice.strides_bytes.size() != dims)
    return bad(absl::StrCat("a slice of tensor ", path, " has not as many dimensions"));
  bool empty = false;
  for (std::size_t d = 0; d < dims; ++d) {
    const std::uint64_t extent = tensor.shape(static_cast<int>(d));
    if (slice.offset[d] > extent || slice.shape[d] > extent - slice.offset[d])
      return bad(absl::StrCat("a slice of tensor ", path, " reaches beyond it"));
    empty |= slice.shape[d] == 0;
  }
  if (!empty && slice.data == nullptr) return bad(absl::StrCat("a slice of tensor ", path, " goes nowhere"));
  return Destination{.tensor = slice.tensor,
                     .region = TensorRegion::Of(tensor, {slice.offset, slice.shape, slice.strides_bytes}),
                     .data = static_cast<std::byte*>(slice.data)};
}

absl::Status RestoreJob::ReadSlices(std::span<const Slice> slices) {
  std::vector<Destination> destinations;
  for (const Slice& slice : slices) {
    CKPT_ASSIGN_OR_RETURN(Destination destination, DestinationOf(slice));
    destinations.push_back(std::move(destination));
  }
  std::stable_sort(destinations.begin(), destinations.end(),
                   [](const Destination& a, const Destination& b) { return a.tensor < b.tensor; });
  return ReadTo(std::move(destinations));
}

// Notes the chunks that the destinations, all of this tensor, need.
void RestoreJob::AddMissing(std::uint64_t tensor, Destinations destinations, Reading& reading) const {
  const ChunkLayout& layout = *manifest_.layout;
  for (std::uint64_t index = 0; index < layout.chunk_count(tensor); ++index) {
    const ChunkLayout::BoxPlace in_box = layout.InBox({tensor, index});
    const v1::Box& box = manifest_.tensors[tensor].boxes(static_cast<int>(in_box.box));
    const bool needed = std::any_of(destinations.begin(), destinations.end(), [&](const Destination& destination) {
      return destination.region.Meets(box, in_box.range);
    });
    if (!needed) continue;
    reading.missing[layout.first(tensor) + index] = true;
    ++reading.missing_chunks;
    reading.total_bytes += in_box.range.size_bytes;
  }
}

RestoreJob::Destinations RestoreJob::DestinationsOf(std::uint64_t tensor, const Reading& reading) {
  const auto begin = std::lower_bound(reading.destinations.begin(), reading.destinations.end(), tensor,
                                      [](const Destination& d, std::uint64_t number) { return d.tensor < number; });
  const auto end =
      std::find_if(begin, reading.destinations.end(), [&](const Destination& d) { return d.tensor != tensor; });
  return {begin, end};
}

// True unless each destination surely has memory of its own.
bool RestoreJob::Overlap(Destinations destinations) {
  std::vector<std::pair<std::uintptr_t, std::uintptr_t>> spans;
  for (const Destination& destination : destinations) {
    const auto [first, end] = destination.region.Span();
    const auto data = reinterpret_cast<std::uintptr_t>(destination.data);
    if (first != end)
      spans.emplace_back(data + static_cast<std::uintptr_t>(first), data + static_cast<std::uintptr_t>(end));
  }
  std::sort(spans.begin(), spans.end());
  for (std::size_t i = 1; i < spans.size(); ++i)
    if (spans[i].first < spans[i - 1].second) return true;
  return false;
}

// The bytes that are there now are the chunk's.
bool RestoreJob::IsHeld(std::uint64_t ordinal, const Reading& reading) const {
  const ChunkLayout::Place place = manifest_.layout->At(ordinal);
  const ChunkLayout::BoxPlace in_box = manifest_.layout->InBox(place);
  const v1::Box& box = manifest_.tensors[place.tensor].boxes(static_cast<int>(in_box.box));
  for (const Destination& destination : DestinationsOf(place.tensor, reading)) {
    std::vector<Bytes> pieces;
    std::uint64_t next = in_box.range.offset_bytes;
    const absl::Status status = destination.region.ForEachRun(box, in_box.range, [&](const TensorRegion::Run& run) {
      if (run.from != next) return absl::CancelledError();  // some of the chunk is not there
      next += run.size;
      pieces.emplace_back(destination.data + run.to, run.size);
      return absl::OkStatus();
    });
    if (status.ok() && pieces.empty()) continue;  // goes elsewhere
    if (!status.ok() || next != in_box.range.offset_bytes + in_box.range.size_bytes ||
        Xxh3(pieces) != manifest_.fingerprint(place))
      return false;
  }
  return true;
}

// Which of the chunks are held, by their place among them; no more is known after the first ones that are, if
// `until_some`.
absl::StatusOr<std::vector<char>> RestoreJob::Compare(std::span<const std::uint64_t> chunks, const Reading& reading,
                                                      bool until_some) const {
  Interrupts interrupts(connection_->options.interrupted);
  std::vector<char> held(chunks.size());
  for (std::size_t begin = 0; begin < chunks.size(); begin += kWindow) {
    const std::size_t count = std::min(kWindow, chunks.size() - begin);
    ParallelFor(count, [&](std::size_t i) { held[begin + i] = IsHeld(chunks[begin + i], reading) ? 1 : 0; });
    CKPT_RETURN_IF_ERROR(interrupts.Check());
    if (until_some && std::find(held.begin(), held.end(), 1) != held.end()) break;
  }
  return held;
}

absl::Status RestoreJob::DropHeld(Reading& reading) const {
  if (Overlap(reading.destinations)) return absl::OkStatus();  // one's bytes would be written over another's
  std::vector<std::uint64_t> chunks;
  for (std::uint64_t ordinal = 0; ordinal < reading.missing.size(); ++ordinal)
    if (reading.missing[ordinal]) chunks.push_back(ordinal);
  // Of many chunks a few tell whether it is worth a look at all.
  if (const std::size_t step = std::min(chunks.size() / kLeastProbes, kProbeStep); step > 1) {
    std::vector<std::uint64_t> probes;
    for (std::size_t i = step / 2; i < chunks.size(); i += step) probes.push_back(chunks[i]);
    CKPT_ASSIGN_OR_RETURN(const std::vector<char> some, Compare(probes, reading, /*until_some=*/true));
    if (std::find(some.begin(), some.end(), 1) == some.end()) return absl::OkStatus();
  }
  CKPT_ASSIGN_OR_RETURN(const std::vector<char> held, Compare(chunks, reading, /*until_some=*/false));
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    if (held[i] == 0) continue;
    reading.missing[chunks[i]] = false;
    --reading.missing_chunks;
    reading.done_bytes += manifest_.layout->InBox(manifest_.layout->At(chunks[i])).range.size_bytes;
  }
  if (options_.progress) options_.progress(reading.done_bytes, reading.total_bytes);
  return absl::OkStatus();
}

absl::Status RestoreJob::Destination::Take(std::int64_t to, Bytes bytes) const {
  if (sink != nullptr) return sink->Write(tensor, static_cast<std::uint64_t>(to), bytes);
  std::memcpy(data + to, bytes.data(), bytes.size());
  return absl::OkStatus();
}

absl::Status RestoreJob::ReadTo(std::vector<Destination> destinations) {
  const ChunkLayout& layout = *manifest_.layout;
  const ConnectOptions& connect = connection_->options;
  Reading reading{.destinations = std::move(destinations),
                  .missing = std::vector<bool>(layout.chunk_count()),
                  .sink_status = {},
                  .backoff = Backoff(connect.retry_for, Backoff::Clock::now())};
  std::vector<std::uint64_t> small;
  for (auto begin = reading.destinations.begin(); begin != reading.destinations.end();) {
    const std::uint64_t tensor = begin->tensor;
    const auto end = std::find_if(begin, reading.destinations.end(),
                                  [&](const Destination& destination) { return destination.tensor != tensor; });
    AddMissing(tensor, {begin, end}, reading);
    if (const std::size_t size = manifest_.tensors[tensor].inline_data().size(); size != 0) {
      small.push_back(tensor);
      reading.total_bytes += size;
    }
    begin = end;
  }
  for (const std::uint64_t tensor : small) {
    const Bytes bytes = AsBytes(manifest_.tensors[tensor].inline_data());
    CKPT_RETURN_IF_ERROR(
        Give(tensor, WholeBox(manifest_.tensors[tensor]), {0, bytes.size()}, std::span(&bytes, 1), reading));
  }
  const bool to_memory = !reading.destinations.empty() && reading.destinations.front().sink == nullptr;
  if (options_.compare && to_memory) CKPT_RETURN_IF_ERROR(DropHeld(reading));
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

// A stream that is open may have ended since it was used: then another is opened, which is no second try.
absl::Status RestoreJob::FetchMissing(Reading& reading) {
  if (stream_ != nullptr) {
    const std::uint64_t before = fetched_bytes_;
    const absl::Status status = FetchOverStream(reading);
    if (!absl::IsUnavailable(status) || ReasonOf(status) == "SERVER_SILENT" || fetched_bytes_ != before) return status;
  }
  CKPT_RETURN_IF_ERROR(Reopen());
  return FetchOverStream(reading);
}

absl::Status RestoreJob::FetchOverStream(Reading& reading) {
  auto stream = std::move(stream_);
  reading.next_wanted = 0;
  reading.wrong = false;
  const absl::Status status = stream->Fetch([&] { return NextWant(reading); },
                                            [&](const ChunkPieces& chunk) { return TakeChunk(chunk, reading); });
  if (status.ok()) stream_ = std::move(stream);
  // The sink's own errors are final, whatever their code.
  return reading.sink_status.ok() ? status : absl::OkStatus();
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
  const bool exists = chunk.tensor < layout.tensor_count() && chunk.index < layout.chunk_count(chunk.tensor);
  const std::uint64_t ordinal = exists ? layout.first(chunk.tensor) + chunk.index : 0;
  if (!exists || ordinal >= reading.next_wanted || !reading.missing[ordinal])
    return MakeError(absl::StatusCode::kInternal, "PROTOCOL",
                     absl::StrCat("the server sent chunk ", chunk.index, " of tensor number ", chunk.tensor,
                                  ", which it was not asked for or had sent before"));
  const ChunkLayout::Place place{chunk.tensor, chunk.index};
  const ChunkLayout::BoxPlace in_box = layout.InBox(place);
  std::uint64_t size = 0;
  for (const Bytes piece : chunk.payload) size += piece.size();
  if (size != in_box.range.size_bytes || Xxh3(chunk.payload) != manifest_.fingerprint(place)) {
    reading.wrong = true;
    if (!reading.check) return absl::OkStatus();
    return MakeError(
        absl::StatusCode::kDataLoss, "WRONG_FINGERPRINT",
        absl::StrCat("tensor ", PrintableUtf8(manifest_.tensors[place.tensor].path()), " chunk ", place.index,
                     ": the bytes that came are not those that were saved, though the server found them "
                     "right: they change on the way; test the memory of both machines"));
  }
  fetched_bytes_ += size;
  const v1::Box& box = manifest_.tensors[place.tensor].boxes(static_cast<int>(in_box.box));
  CKPT_RETURN_IF_ERROR(Give(place.tensor, box, in_box.range, chunk.payload, reading));
  reading.missing[ordinal] = false;
  --reading.missing_chunks;
  reading.backoff.Progress(Backoff::Clock::now());
  return absl::OkStatus();
}

absl::Status RestoreJob::Give(std::uint64_t tensor, const v1::Box& box, ByteRange range, std::span<const Bytes> pieces,
                              Reading& reading) {
  for (const Destination& destination : DestinationsOf(tensor, reading)) {
    Pieces left(pieces);
    reading.sink_status = destination.region.ForEachRun(box, range, [&](const TensorRegion::Run& run) {
      return left.Give(run.from - range.offset_bytes, run.size, run.to,
                       [&](std::int64_t to, Bytes bytes) { return destination.Take(to, bytes); });
    });
    CKPT_RETURN_IF_ERROR(reading.sink_status);
  }
  reading.done_bytes += range.size_bytes;
  if (options_.progress) options_.progress(reading.done_bytes, reading.total_bytes);
  return absl::OkStatus();
}

}  // namespace ckpt::client
