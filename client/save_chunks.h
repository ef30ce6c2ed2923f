// The chunks of a save and what is known of them, kept over its streams.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/digest.h"
#include "client/chunk_layout.h"
#include "client/chunk_memory.h"
#include "client/tensor_set.h"

namespace ckpt::client {

// Chunks go by ordinal (see ChunkLayout). Not thread-safe.
class SaveChunks {
 public:
  using Release = std::function<void(const void* data, std::size_t size)>;

  struct Limits {
    std::uint32_t chunk_size = 0;
    std::uint32_t inline_limit = 0;  // a tensor of fewer bytes has no chunks
  };

  // The set must outlive this. `release` may be empty.
  SaveChunks(const TensorSet& tensors, Limits limits, Release release);

  [[nodiscard]] const TensorSet& tensors() const { return tensors_; }
  [[nodiscard]] const ChunkLayout& layout() const { return layout_; }
  [[nodiscard]] const Limits& limits() const { return limits_; }

  [[nodiscard]] Bytes bytes(std::uint64_t chunk) const;

  // Computed when it is first asked for.
  const Fingerprint& fingerprint(std::uint64_t chunk);

  // The digest: once it was computed here, remembered from before, or told by the server.
  [[nodiscard]] bool has_digest(std::uint64_t chunk) const { return (chunks_[chunk].known & kDigest) != 0; }
  [[nodiscard]] const Digest& digest(std::uint64_t chunk) const { return chunks_[chunk].id.digest; }
  void SetDigest(std::uint64_t chunk, const Digest& digest);
  // Of those of the chunks that have none, on all cores.
  void ComputeDigests(std::span<const std::uint64_t> chunks);

  // Counts a chunk that goes over the wire.
  void MarkSent(std::uint64_t chunk);
  [[nodiscard]] bool sent(std::uint64_t chunk) const { return (chunks_[chunk].known & kSent) != 0; }
  [[nodiscard]] std::uint64_t sent_bytes() const { return sent_bytes_; }

  // Bytes of the chunks whose fingerprint, and whose digest, was computed here.
  [[nodiscard]] std::uint64_t fingerprinted_bytes() const { return BytesOf(kFingerprint); }
  [[nodiscard]] std::uint64_t hashed_bytes() const { return BytesOf(kHashed); }

  // What the tensor's box is remembered by: the tensor's path, if the box is the whole.
  [[nodiscard]] std::string MemoryKey(std::uint64_t tensor, std::uint64_t box) const;

  // Tells the owner of the memory that chunks [first, end), of one box, are not needed for now.
  void ReleaseChunks(std::uint64_t first, std::uint64_t end) const;

  // What is to be remembered: the boxes all of whose chunks' digests are known.
  [[nodiscard]] std::vector<std::pair<std::string, TensorChunks>> Known();

 private:
  static constexpr std::uint8_t kFingerprint = 1;
  static constexpr std::uint8_t kDigest = 2;
  static constexpr std::uint8_t kSent = 4;
  static constexpr std::uint8_t kHashed = 8;
  struct Chunk {
    ChunkId id;
    std::uint8_t known = 0;
  };

  [[nodiscard]] std::uint64_t BytesOf(std::uint8_t known) const;

  const TensorSet& tensors_;
  const Limits limits_;
  const Release release_;
  ChunkLayout layout_;
  std::vector<Chunk> chunks_;
  std::uint64_t sent_bytes_ = 0;
};

}  // namespace ckpt::client
