#include "client/save_chunks.h"

#include <algorithm>
#include <array>
#include <iterator>

#include "base/parallel.h"

namespace ckpt::client {

SaveChunks::SaveChunks(const TensorSet& tensors, Limits limits, Release release)
    : tensors_(tensors), limits_(limits), release_(std::move(release)), layout_(limits.chunk_size) {
  std::vector<std::uint64_t> sizes;
  for (std::uint64_t i = 0; i < tensors.count(); ++i) {
    sizes.clear();
    if (tensors.whole_bytes(i) >= limits.inline_limit)
      for (const Bytes piece : tensors.pieces(i)) sizes.push_back(piece.size());
    layout_.Add(sizes);
  }
  chunks_.resize(layout_.chunk_count());
}

Bytes SaveChunks::bytes(std::uint64_t chunk) const {
  const ChunkLayout::Place place = layout_.At(chunk);
  const ChunkLayout::BoxPlace in_box = layout_.InBox(place);
  return tensors_.pieces(place.tensor)[in_box.box].subspan(in_box.range.offset_bytes, in_box.range.size_bytes);
}

std::string SaveChunks::MemoryKey(std::uint64_t tensor, std::uint64_t box) const {
  return BoxKey(tensors_.meta(tensor), static_cast<int>(box));
}

const Fingerprint& SaveChunks::fingerprint(std::uint64_t chunk) {
  Chunk& c = chunks_[chunk];
  if ((c.known & kFingerprint) == 0) {
    c.id.fingerprint = Xxh3(bytes(chunk));
    c.known |= kFingerprint;
  }
  return c.id.fingerprint;
}

void SaveChunks::SetDigest(std::uint64_t chunk, const Digest& digest) {
  chunks_[chunk].id.digest = digest;
  chunks_[chunk].known |= kDigest;
}

void SaveChunks::ComputeDigests(std::span<const std::uint64_t> chunks) {
  std::vector<std::uint64_t> wanted;
  std::copy_if(chunks.begin(), chunks.end(), std::back_inserter(wanted),
               [&](auto chunk) { return !has_digest(chunk); });
  const auto note = [&](std::uint64_t chunk, const Digest& digest) {
    SetDigest(chunk, digest);
    chunks_[chunk].known |= kHashed;
    fingerprint(chunk);  // while the bytes are in the cache: they will be remembered by it
  };
  ParallelFor((wanted.size() + 1) / 2, [&](std::size_t i) {
    const std::uint64_t a = wanted[2 * i];
    if (2 * i + 1 == wanted.size()) return note(a, Sha256(bytes(a)));
    const std::uint64_t b = wanted[2 * i + 1];
    const std::array pieces = {bytes(a), bytes(b)};
    const auto digests = Sha256Pair(std::span(pieces).first(1), std::span(pieces).last(1));
    note(a, digests[0]);
    note(b, digests[1]);
  });
}

std::uint64_t SaveChunks::BytesOf(std::uint8_t known) const {
  std::uint64_t total = 0;
  for (std::uint64_t chunk = 0; chunk < chunks_.size(); ++chunk)
    if ((chunks_[chunk].known & known) != 0) total += bytes(chunk).size();
  return total;
}

void SaveChunks::MarkSent(std::uint64_t chunk) {
  chunks_[chunk].known |= kSent;
  sent_bytes_ += bytes(chunk).size();
}

void SaveChunks::ReleaseChunks(std::uint64_t first, std::uint64_t end) const {
  if (!release_ || first == end) return;
  const Bytes head = bytes(first);
  const Bytes tail = bytes(end - 1);
  release_(head.data(), static_cast<std::size_t>(tail.data() + tail.size() - head.data()));
}

std::vector<std::pair<std::string, TensorChunks>> SaveChunks::Known() {
  std::vector<std::pair<std::string, TensorChunks>> out;
  for (std::uint64_t tensor = 0; tensor < layout_.tensor_count(); ++tensor) {
    for (std::uint64_t box = 0; box < layout_.box_count(tensor); ++box) {
      const std::uint64_t first = layout_.first(tensor, box);
      const std::uint64_t end = first + layout_.box_chunk_count(tensor, box);
      bool complete = true;
      for (std::uint64_t chunk = first; chunk < end && complete; ++chunk) complete = has_digest(chunk);
      if (!complete) continue;
      TensorChunks ids;
      ids.reserve(end - first);
      for (std::uint64_t chunk = first; chunk < end; ++chunk) {
        fingerprint(chunk);
        ids.push_back(chunks_[chunk].id);
      }
      out.emplace_back(MemoryKey(tensor, box), std::move(ids));
    }
  }
  return out;
}

}  // namespace ckpt::client
