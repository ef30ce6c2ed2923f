#include "client/citation_plan.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "absl/functional/function_ref.h"
#include "base/parallel.h"
#include "base/status.h"

namespace ckpt::client {
namespace {

// Of chunks that nothing is known of, one in so many is asked for first...
constexpr std::size_t kProbeEvery = 16;
// ...but not more than so many.
constexpr std::size_t kMaxProbes = 8;
// Bytes that are read before their memory is released.
constexpr std::uint64_t kWindowBytes = 64U << 20;

// Zeros, and other elements repeated, are stored by everybody: that the server has them tells nothing.
bool IsFill(Bytes bytes) {
  constexpr std::size_t kPeriod = 16;  // that of every element type
  return bytes.size() <= kPeriod || std::memcmp(bytes.data(), bytes.data() + kPeriod, bytes.size() - kPeriod) == 0;
}

class Planner {
 public:
  Planner(SaveChunks& chunks, const ChunkMemory& memory, const AckedChunks& acked, const AskServer& ask,
          Interrupts& interrupts)
      : chunks_(chunks),
        memory_(memory),
        acked_(acked),
        ask_(ask),
        interrupts_(interrupts),
        cite_(chunks.layout().chunk_count()) {}

  absl::StatusOr<std::vector<bool>> Plan(bool probe) {
    CKPT_RETURN_IF_ERROR(ComputeFingerprints());
    ForEachBox([this](std::uint64_t tensor, std::uint64_t box) { Compare(tensor, box); });
    CKPT_RETURN_IF_ERROR(Ask(candidates_).status());
    if (probe) CKPT_RETURN_IF_ERROR(Probe());
    return std::move(cite_);
  }

 private:
  void ForEachBox(absl::FunctionRef<void(std::uint64_t tensor, std::uint64_t box)> take) const {
    const ChunkLayout& layout = chunks_.layout();
    for (std::uint64_t tensor = 0; tensor < layout.tensor_count(); ++tensor)
      for (std::uint64_t box = 0; box < layout.box_count(tensor); ++box) take(tensor, box);
  }

  using Chunks = std::span<const std::uint64_t>;

  // Those that Compare will ask for, on all cores.
  absl::Status ComputeFingerprints() {
    std::vector<std::uint64_t> chunks;
    const ChunkLayout& layout = chunks_.layout();
    ForEachBox([&](std::uint64_t tensor, std::uint64_t box) {
      if (acked_.empty() && memory_.Find(chunks_.MemoryKey(tensor, box)) == nullptr) return;
      const std::uint64_t first = layout.first(tensor, box);
      for (std::uint64_t i = 0; i < layout.box_chunk_count(tensor, box); ++i) chunks.push_back(first + i);
    });
    return Read(chunks, [this](Chunks window) {
      ParallelFor(window.size(), [&](std::size_t i) { chunks_.fingerprint(window[i]); });
    });
  }

  // Calls body with the chunks, so many at a time that what it reads may be in memory together.
  absl::Status Read(Chunks chunks, absl::FunctionRef<void(Chunks)> body) {
    while (!chunks.empty()) {
      std::size_t count = 0;
      for (std::uint64_t bytes = 0; count < chunks.size() && bytes < kWindowBytes; ++count)
        bytes += chunks_.bytes(chunks[count]).size();
      body(chunks.first(count));
      for (const std::uint64_t chunk : chunks.first(count)) chunks_.ReleaseChunks(chunk, chunk + 1);
      chunks = chunks.subspan(count);
      CKPT_RETURN_IF_ERROR(interrupts_.Check());
    }
    return absl::OkStatus();
  }

  // Sorts a box's chunks into those that may be cited, are to be asked about, are unknown, or changed.
  void Compare(std::uint64_t tensor, std::uint64_t box) {
    const ChunkLayout& layout = chunks_.layout();
    const std::uint64_t first = layout.first(tensor, box);
    const std::uint64_t end = first + layout.box_chunk_count(tensor, box);
    const auto remembered = memory_.Find(chunks_.MemoryKey(tensor, box));
    for (std::uint64_t chunk = first; chunk < end; ++chunk) {
      const std::uint64_t index = chunk - first;
      const auto acked = acked_.find({tensor, chunk - layout.first(tensor)});
      if (acked != acked_.end() && acked->second.fingerprint == chunks_.fingerprint(chunk)) {
        chunks_.SetDigest(chunk, acked->second.digest);
        cite_[chunk] = true;
      } else if (chunks_.has_digest(chunk)) {
        candidates_.push_back(chunk);
      } else if (remembered == nullptr) {
        unknown_.push_back(chunk);
      } else if (index < remembered->size() && (*remembered)[index].fingerprint == chunks_.fingerprint(chunk)) {
        chunks_.SetDigest(chunk, (*remembered)[index].digest);
        candidates_.push_back(chunk);
      }
    }
  }

  // Asks about chunks whose digests are known and notes which may be cited. Returns how many.
  absl::StatusOr<std::size_t> Ask(Chunks asked) {
    if (asked.empty()) return 0;
    std::vector<Digest> digests;
    digests.reserve(asked.size());
    for (const std::uint64_t chunk : asked) digests.push_back(chunks_.digest(chunk));
    CKPT_ASSIGN_OR_RETURN(const std::vector<bool> has, ask_(digests));
    for (std::size_t i = 0; i < asked.size(); ++i)
      if (has[i]) cite_[asked[i]] = true;
    return static_cast<std::size_t>(std::count(has.begin(), has.end(), true));
  }

  absl::Status Probe() {
    std::vector<std::uint64_t> probes;
    const std::size_t wanted = std::clamp<std::size_t>(unknown_.size() / kProbeEvery, 1, kMaxProbes);
    const std::size_t step = std::max<std::size_t>(1, unknown_.size() / wanted);
    for (std::size_t i = step / 2; i < unknown_.size() && probes.size() < wanted; i += step) {
      if (IsFill(chunks_.bytes(unknown_[i]))) continue;
      probes.push_back(unknown_[i]);
    }
    chunks_.ComputeDigests(probes);
    CKPT_ASSIGN_OR_RETURN(const std::size_t found, Ask(probes));
    if (found == 0) return absl::OkStatus();
    CKPT_RETURN_IF_ERROR(Read(unknown_, [this](Chunks window) { chunks_.ComputeDigests(window); }));
    return Ask(unknown_).status();
  }

  SaveChunks& chunks_;
  const ChunkMemory& memory_;
  const AckedChunks& acked_;
  const AskServer& ask_;
  Interrupts& interrupts_;
  std::vector<bool> cite_;
  std::vector<std::uint64_t> candidates_;
  std::vector<std::uint64_t> unknown_;
};

}  // namespace

absl::StatusOr<std::vector<bool>> PlanCitations(SaveChunks& chunks, const ChunkMemory& memory, const AckedChunks& acked,
                                                bool probe, const AskServer& ask, Interrupts& interrupts) {
  return Planner(chunks, memory, acked, ask, interrupts).Plan(probe);
}

}  // namespace ckpt::client
