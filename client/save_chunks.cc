#include "client/save_chunks.h"

namespace ckpt::client {

SaveChunks::SaveChunks(const TensorSet& tensors, Limits limits, Release release)
    : tensors_(tensors), limits_(limits), release_(std::move(release)), layout_(limits.chunk_size) {
  for (std::uint64_t i = 0; i < tensors.count(); ++i) {
    const std::uint64_t size = tensors.bytes(i).size();
    layout_.Add(size < limits.inline_limit ? 0 : size);
  }
  chunks_.resize(layout_.chunk_count());
}

Bytes SaveChunks::bytes(std::uint64_t chunk) const {
  const ChunkLayout::Place place = layout_.At(chunk);
  const ByteRange range = layout_.Range(place);
  return tensors_.bytes(place.tensor).subspan(range.offset_bytes, range.size_bytes);
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

const Digest& SaveChunks::ComputeDigest(std::uint64_t chunk) {
  if (!has_digest(chunk)) {
    SetDigest(chunk, Sha256(bytes(chunk)));
    fingerprint(chunk);  // while the bytes are in the cache: they will be remembered by it
  }
  return digest(chunk);
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
    const std::uint64_t first = layout_.first(tensor);
    const std::uint64_t end = first + layout_.chunk_count(tensor);
    bool complete = first != end;
    for (std::uint64_t chunk = first; chunk < end && complete; ++chunk) complete = has_digest(chunk);
    if (!complete) continue;
    TensorChunks ids;
    ids.reserve(end - first);
    for (std::uint64_t chunk = first; chunk < end; ++chunk) {
      fingerprint(chunk);
      ids.push_back(chunks_[chunk].id);
    }
    out.emplace_back(tensors_.meta(tensor).path(), std::move(ids));
  }
  return out;
}

}  // namespace ckpt::client
