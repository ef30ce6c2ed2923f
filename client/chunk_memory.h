// What a client knows of the chunks that the server has.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "base/digest.h"
#include "base/mutex.h"
#include "ckpt/v1/state.pb.h"

namespace ckpt::client {

// A chunk by its two sums: equal fingerprints mean that it did not change since it had this digest.
struct ChunkId {
  Fingerprint fingerprint;
  Digest digest;
};

// The chunks of one box, from its start.
using TensorChunks = std::vector<ChunkId>;

// What a box of a tensor is remembered by: the path alone if it is the whole tensor, or if there are no boxes.
std::string BoxKey(const v1::Tensor& tensor, int box);

// Per box of a tensor the chunks of its last save or restore. Only a hint: a chunk is cited after the server has said
// that it has it. Holds at most `limit_bytes`: when what it learns does not fit, boxes that are not part of it are
// forgotten, and then what is too much of it is left out. Thread-safe.
class ChunkMemory {
 public:
  static constexpr std::size_t kDefaultLimitBytes = std::size_t{64} << 20;  // about 1 TiB in large tensors

  explicit ChunkMemory(std::size_t limit_bytes = kDefaultLimitBytes) : limit_bytes_(limit_bytes) {}

  // The box's chunks; null if it is not known.
  [[nodiscard]] std::shared_ptr<const TensorChunks> Find(std::string_view key) const CKPT_EXCLUDES(mutex_);

  // Takes over a state's boxes by key, in place of what it knew of them.
  void Learn(std::vector<std::pair<std::string, TensorChunks>> boxes) CKPT_EXCLUDES(mutex_);

 private:
  struct Entry {
    std::shared_ptr<const TensorChunks> chunks;  // shared with the saves that are reading it
    std::uint64_t generation = 0;
  };
  static std::size_t Cost(std::size_t key_size, std::size_t chunks) {
    return key_size + chunks * sizeof(ChunkId) + 128;  // the map's slot and the two allocations
  }

  const std::size_t limit_bytes_;

  mutable Mutex mutex_;
  absl::flat_hash_map<std::string, Entry> boxes_ CKPT_GUARDED_BY(mutex_);
  std::size_t used_bytes_ CKPT_GUARDED_BY(mutex_) = 0;
  std::uint64_t generation_ CKPT_GUARDED_BY(mutex_) = 0;
};

}  // namespace ckpt::client
