#include "client/chunk_memory.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/box.h"
#include "base/data_type.h"

namespace ckpt::client {

std::string BoxKey(const v1::Tensor& tensor, int box) {
  if (tensor.boxes().empty()) return tensor.path();
  const v1::Box& part = tensor.boxes(box);
  if (const auto size = SizeBytes(tensor); size.ok() && BoxBytes(tensor, part) == *size) return tensor.path();
  return absl::StrCat(tensor.path(), "@", absl::StrJoin(part.offset(), ","), "+", absl::StrJoin(part.shape(), ","));
}

std::shared_ptr<const TensorChunks> ChunkMemory::Find(std::string_view key) const {
  const MutexLock lock(mutex_);
  const auto it = boxes_.find(absl::string_view(key.data(), key.size()));
  return it == boxes_.end() ? nullptr : it->second.chunks;
}

void ChunkMemory::Learn(std::vector<std::pair<std::string, TensorChunks>> boxes) {
  const MutexLock lock(mutex_);
  ++generation_;
  for (auto& [key, chunks] : boxes) {
    if (const auto it = boxes_.find(key); it != boxes_.end()) {
      used_bytes_ -= Cost(key.size(), it->second.chunks->size());
      boxes_.erase(it);
    }
    const std::size_t cost = Cost(key.size(), chunks.size());
    if (used_bytes_ + cost > limit_bytes_) {
      for (auto it = boxes_.begin(); it != boxes_.end();) {
        const auto entry = it++;
        if (entry->second.generation == generation_) continue;
        used_bytes_ -= Cost(entry->first.size(), entry->second.chunks->size());
        boxes_.erase(entry);
      }
    }
    if (used_bytes_ + cost > limit_bytes_) continue;
    used_bytes_ += cost;
    boxes_.emplace(std::move(key), Entry{std::make_shared<const TensorChunks>(std::move(chunks)), generation_});
  }
}

}  // namespace ckpt::client
