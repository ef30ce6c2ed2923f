// Reads one checkpoint: its manifest in parts, then the payload of what was selected.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "ckpt/v1/service.pb.h"
#include "ckpt/v1/storage.pb.h"
#include "storage/chunk_index.h"
#include "storage/store.h"

namespace ckpt::storage {

// A chunk to send.
struct ChunkToRead {
  std::uint64_t tensor = 0;
  std::uint64_t index = 0;  // in the tensor
  Digest digest;
  PackId pack;
  std::uint64_t offset = 0;         // of its record
  std::uint32_t stored_length = 0;  // of its payload
};

// Used by one thread. Memory: a part of the manifest, and some 80 bytes for each chunk that is asked for.
class RestoreReader {
 public:
  // `abandoned` is asked now and then: true ends it, as nobody waits for it any more. Errors: NotFound (run,
  // checkpoint, COMPONENT_NOT_FOUND), InvalidArgument (reference, glob), DataLoss, Internal (the stored bytes cannot be
  // got at, and may be well), Cancelled.
  static absl::StatusOr<std::unique_ptr<RestoreReader>> Open(
      Store& store, const v1::RestoreBegin& begin, const std::function<bool()>& abandoned = [] { return false; });

  [[nodiscard]] v1::RestoreHeader header() const;

  // The manifest's next part for the client: nodes first, then tensors; nullopt after the last.
  absl::StatusOr<std::optional<v1::RestoreResponse>> NextPart();

  // After the last part: looks up what was selected, in the order in which it is stored. Returns the payload's bytes.
  absl::StatusOr<std::uint64_t> PlanSelected();

  // The same for chunks that the client names. InvalidArgument BAD_WANT for one that there is not, or of a tensor that
  // is not selected.
  absl::StatusOr<std::uint64_t> PlanWant(const v1::Want& want);

  // The chunks of the last plan.
  [[nodiscard]] const std::vector<ChunkToRead>& plan() const { return plan_; }

  // Reads a chunk's record, header and payload, into a buffer of kRecordHeaderSize + stored_length bytes. DataLoss,
  // with run, epoch and tensor, when it is not the chunk's: saves do not rely on it from then on. Internal, with them
  // too, when it cannot be got at. The payload is compared with its fingerprint only if `check` says so.
  absl::Status Read(ChunkToRead chunk, std::span<std::byte> buffer, bool check) const;

 private:
  RestoreReader(Store& store, std::string domain, v1::Checkpoint checkpoint)
      : store_(store), domain_(std::move(domain)), checkpoint_(std::move(checkpoint)) {}

  absl::Status Select(const v1::RestoreBegin& begin, const std::function<bool()>& abandoned);
  absl::StatusOr<std::string> ReadRecordOfManifest(const Digest& digest) const;
  absl::StatusOr<v1::ManifestPart> ReadPart(const v1::ManifestPartRef& ref) const;
  void NotePart(const v1::ManifestPart& part);
  absl::Status ReadRecord(const ChunkToRead& chunk, std::span<std::byte> buffer, bool check) const;
  [[nodiscard]] std::optional<ChunkToRead> Moved(const ChunkToRead& chunk) const;
  absl::StatusOr<std::uint64_t> Locate();
  [[nodiscard]] std::string TensorPath(std::uint64_t tensor) const;
  [[nodiscard]] absl::Status Damaged(std::string_view what) const;
  [[nodiscard]] std::string Name() const;

  Store& store_;
  const std::string domain_;
  const v1::Checkpoint checkpoint_;
  v1::ManifestRoot root_;
  std::vector<int> order_;  // of the parts: nodes, then tensors
  std::size_t next_part_ = 0;
  std::vector<bool> selected_;              // by tensor
  std::vector<std::uint64_t> first_chunk_;  // by tensor, into digests_; one more at the end
  std::vector<Digest> digests_;
  std::vector<ChunkToRead> plan_;
};

}  // namespace ckpt::storage
