// Restore over as many streams as it takes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ckpt/client.h"
#include "client/connection.h"
#include "client/manifest.h"
#include "client/restore_stream.h"
#include "client/retry.h"
#include "client/tensor_region.h"

namespace ckpt::client {

// The server is asked for the whole description, and the selection is made here: a tensor that stands in the tree under
// two names belongs to both, and the server knows only the first. Payload is asked for chunk by chunk, so that after a
// cut connection only what is missing comes again.
class RestoreJob final : public Restore {
 public:
  // The connection is shared with the client, which may be destroyed first.
  static absl::StatusOr<std::unique_ptr<Restore>> Open(std::shared_ptr<Connection> connection, RestoreOptions options);

  [[nodiscard]] const v1::Checkpoint& checkpoint() const override { return manifest_.checkpoint; }
  [[nodiscard]] const std::vector<v1::StateNode>& nodes() const override { return manifest_.nodes; }
  [[nodiscard]] const std::vector<v1::Tensor>& tensors() const override { return manifest_.tensors; }
  [[nodiscard]] bool selected(std::uint64_t tensor) const override { return selected_[tensor]; }
  absl::Status Read(TensorSink& sink) override;
  absl::Status ReadInto(std::span<void* const> buffers) override;
  absl::Status ReadSlices(std::span<const Slice> slices) override;
  void Pause() override { stream_.reset(); }
  [[nodiscard]] std::uint64_t fetched_bytes() const override { return fetched_bytes_; }

 private:
  RestoreJob(std::shared_ptr<Connection> connection, RestoreOptions options);

  // Where bytes of a tensor go: to memory, the region's first element at `data`, or to a sink.
  struct Destination {
    std::uint64_t tensor = 0;
    TensorRegion region;
    std::byte* data = nullptr;
    TensorSink* sink = nullptr;

    [[nodiscard]] absl::Status Take(std::int64_t to, Bytes bytes) const;
  };
  using Destinations = std::span<const Destination>;

  // The state of one Read.
  struct Reading {
    std::vector<Destination> destinations;  // by rising tensor
    std::vector<bool> missing;              // by ordinal
    std::uint64_t missing_chunks = 0;
    std::uint64_t next_wanted = 0;  // the first ordinal that this stream was not asked for
    bool wrong = false;             // some of what is missing came, with other bytes
    bool check = false;             // the server is to compare what it sends
    std::uint64_t done_bytes = 0;
    std::uint64_t total_bytes = 0;
    absl::Status sink_status;
    Backoff backoff;
  };

  absl::Status OpenFirst();
  absl::Status Reopen();
  absl::Status Select();
  void Remember();
  absl::StatusOr<Destination> DestinationOf(const Slice& slice) const;
  absl::Status ReadTo(std::vector<Destination> destinations);
  void AddMissing(std::uint64_t tensor, Destinations destinations, Reading& reading) const;
  // Takes what is right where it is out of what is missing.
  absl::Status DropHeld(Reading& reading) const;
  [[nodiscard]] absl::StatusOr<std::vector<char>> Compare(std::span<const std::uint64_t> chunks, const Reading& reading,
                                                          bool until_some) const;
  static bool Overlap(Destinations destinations);
  [[nodiscard]] bool IsHeld(std::uint64_t ordinal, const Reading& reading) const;
  static Destinations DestinationsOf(std::uint64_t tensor, const Reading& reading);
  absl::Status Fetch(Reading& reading);
  absl::Status FetchMissing(Reading& reading);
  absl::Status FetchOverStream(Reading& reading);
  v1::Want NextWant(Reading& reading) const;
  absl::Status TakeChunk(const ChunkPieces& chunk, Reading& reading);
  absl::Status Give(std::uint64_t tensor, const v1::Box& box, ByteRange range, std::span<const Bytes> pieces,
                    Reading& reading);

  const std::shared_ptr<Connection> connection_;  // shared: see Open
  const RestoreOptions options_;
  Manifest manifest_;
  std::vector<bool> selected_;
  std::uint64_t fetched_bytes_ = 0;
  std::unique_ptr<RestoreStream> stream_;  // open, and nothing more is to come of it
};

}  // namespace ckpt::client
