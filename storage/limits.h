// How much of everything the store takes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ckpt::storage {

// A tensor of fewer bytes lies in the manifest.
inline constexpr std::uint32_t kInlineLimit = 4096;

// What a chunk size may be.
inline constexpr std::uint32_t kMaxChunkSize = 1U << 20;

// Chunks of one tensor, so that its description fits into a message.
inline constexpr std::uint64_t kMaxChunksPerTensor = 65536;

// Bytes of a tensor's description: the same, of one that several trainers saved.
inline constexpr std::size_t kMaxTensorBytes = 7U << 19;

// Chunks of one state: what is kept of each in memory, some 250 bytes, until the commit.
inline constexpr std::uint64_t kMaxChunks = 16'000'000;

// Tensors, and nodes, of one state.
inline constexpr std::uint64_t kMaxTensors = 4'000'000;
inline constexpr std::uint64_t kMaxNodes = 16'000'000;

// Records that a state's manifest is cut into, so that its root, which lists them, fits into a record.
inline constexpr std::uint64_t kMaxManifestParts = 300'000;

// Digests in one Have; ranges in one Want.
inline constexpr std::uint64_t kMaxPerQuestion = 16384;

// Trainers that save one checkpoint together.
inline constexpr std::uint32_t kMaxWorldSize = 4096;

// Bytes of the description of a state that several trainers save, and of one's part of it: they are merged in memory.
inline constexpr std::uint64_t kMaxMergedBytes = 256U << 20;

// Haves of one stream: their answers wait in memory for a client that writes all and only then reads.
inline constexpr std::uint64_t kMaxHaves = 16384;

}  // namespace ckpt::storage
