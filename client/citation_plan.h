// Decides which chunks of a save need not be sent.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "base/digest.h"
#include "client/chunk_memory.h"
#include "client/interrupts.h"
#include "client/save_chunks.h"

namespace ckpt::client {

// What an earlier stream of the same session got acked, by tensor and index.
using AckedChunks = absl::flat_hash_map<std::pair<std::uint64_t, std::uint64_t>, ChunkId>;

// Asks the server for chunks; answers for each whether it has it and it may be cited in this stream.
using AskServer = std::function<absl::StatusOr<std::vector<bool>>(std::span<const Digest> digests)>;

// By ordinal, whether the chunk may be cited. Chunks that were acked at their place with the fingerprint that they have
// now may; of the others the server is asked about those whose digest is known: from the memory, where the fingerprint
// is still the same, or from earlier streams. Of tensors that the memory does not know, `probe` hashes a few chunks,
// and all if the server has one of the few: a new process that trains a model which others have stored. Errors: those
// of `ask`, and the interrupt's.
absl::StatusOr<std::vector<bool>> PlanCitations(SaveChunks& chunks, const ChunkMemory& memory, const AckedChunks& acked,
                                                bool probe, const AskServer& ask, Interrupts& interrupts);

}  // namespace ckpt::client
