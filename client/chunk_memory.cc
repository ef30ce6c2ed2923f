#include "client/chunk_memory.h"

namespace ckpt::client {

std::shared_ptr<const TensorChunks> ChunkMemory::Find(std::string_view path) const {
  const MutexLock lock(mutex_);
  const auto it = tensors_.find(absl::string_view(path.data(), path.size()));
  return it == tensors_.end() ? nullptr : it->second.chunks;
}

void ChunkMemory::Learn(std::vector<std::pair<std::string, TensorChunks>> tensors) {
  const MutexLock lock(mutex_);
  ++generation_;
  for (auto& [path, chunks] : tensors) {
    if (const auto it = tensors_.find(path); it != tensors_.end()) {
      used_bytes_ -= Cost(path.size(), it->second.chunks->size());
      tensors_.erase(it);
    }
    const std::size_t cost = Cost(path.size(), chunks.size());
    if (used_bytes_ + cost > limit_bytes_) {
      for (auto it = tensors_.begin(); it != tensors_.end();) {
        const auto entry = it++;
        if (entry->second.generation == generation_) continue;
        used_bytes_ -= Cost(entry->first.size(), entry->second.chunks->size());
        tensors_.erase(entry);
      }
    }
    if (used_bytes_ + cost > limit_bytes_) continue;
    used_bytes_ += cost;
    tensors_.emplace(std::move(path), Entry{std::make_shared<const TensorChunks>(std::move(chunks)), generation_});
  }
}

}  // namespace ckpt::client
