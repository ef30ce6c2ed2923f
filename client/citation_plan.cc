#include "client/citation_plan.h"

#include <algorithm>
#include <cstring>
#include <memory>

#include "base/status.h"

namespace ckpt::client {
namespace {

constexpr std::size_t kProbes = 8;
// How many chunks are read before their memory is released.
constexpr std::uint64_t kReleaseEvery = 16;

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
    for (std::uint64_t tensor = 0; tensor < chunks_.layout().tensor_count(); ++tensor)
      CKPT_RETURN_IF_ERROR(Compare(tensor));
    CKPT_RETURN_IF_ERROR(Ask(candidates_).status());
    if (probe) CKPT_RETURN_IF_ERROR(Probe());
    return std::move(cite_);
  }

 private:
  absl::Status Compare(std::uint64_t tensor) {
    for (std::uint64_t box = 0; box < chunks_.layout().box_count(tensor); ++box)
      CKPT_RETURN_IF_ERROR(CompareBox(tensor, box));
    return absl::OkStatus();
  }

  // Sorts a box's chunks into those that may be cited, are to be asked about, are unknown, or changed.
  absl::Status CompareBox(std::uint64_t tensor, std::uint64_t box) {
    const std::uint64_t first = chunks_.layout().first(tensor, box);
    const std::uint64_t end = first + chunks_.layout().box_chunk_count(tensor, box);
    const auto remembered = memory_.Find(chunks_.MemoryKey(tensor, box));
    if (remembered == nullptr && acked_.empty()) {
      for (std::uint64_t chunk = first; chunk < end; ++chunk)
        (chunks_.has_digest(chunk) ? candidates_ : unknown_).push_back(chunk);
      return absl::OkStatus();
    }
    std::uint64_t unreleased = first;
    for (std::uint64_t chunk = first; chunk < end; ++chunk) {
      const std::uint64_t index = chunk - first;
      if (const auto acked = acked_.find({tensor, chunk - chunks_.layout().first(tensor)});
          acked != acked_.end() && acked->second.fingerprint == chunks_.fingerprint(chunk)) {
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
      if (chunk + 1 == end || chunk + 1 - unreleased == kReleaseEvery) {
        chunks_.ReleaseChunks(unreleased, chunk + 1);
        unreleased = chunk + 1;
        CKPT_RETURN_IF_ERROR(interrupts_.Check());
      }
    }
    return absl::OkStatus();
  }

  // Asks about chunks whose digests are known and notes which may be cited. Returns how many.
  absl::StatusOr<std::size_t> Ask(std::span<const std::uint64_t> asked) {
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
    const std::size_t step = std::max<std::size_t>(1, unknown_.size() / kProbes);
    for (std::size_t i = step / 2; i < unknown_.size() && probes.size() < kProbes; i += step) {
      if (IsFill(chunks_.bytes(unknown_[i]))) continue;
      chunks_.ComputeDigest(unknown_[i]);
      probes.push_back(unknown_[i]);
    }
    CKPT_ASSIGN_OR_RETURN(const std::size_t found, Ask(probes));
    if (found == 0) return absl::OkStatus();
    for (const std::uint64_t chunk : unknown_) {
      chunks_.ComputeDigest(chunk);
      chunks_.ReleaseChunks(chunk, chunk + 1);
      CKPT_RETURN_IF_ERROR(interrupts_.Check());
    }
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
