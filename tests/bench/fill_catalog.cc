// Fills a new store as if so many chunks had been saved: `fill_catalog DIR CHUNKS RUNS CHECKPOINTS`. There are RUNS
// runs of one checkpoint each, "run-0" and so on, and one of CHECKPOINTS, "long"; each checkpoint has an equal share of
// the chunks. Chunk number i has the SHA-256 of i, as 8 bytes in little-endian order, for its digest.
//
// Everything goes through the storage library's own tables, and so has the rows that saves would have left; but packs
// are files with a hole where the payload would be, and nothing is synced before the end. So nothing of it can be
// restored.
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "base/random.h"
#include "base/status.h"
#include "storage/chunk_index.h"
#include "storage/pack_record.h"
#include "storage/pack_table.h"
#include "storage/session_table.h"
#include "storage/store.h"
#include "storage/version_table.h"

namespace ckpt::bench {
namespace {

using storage::KvEngine;
using storage::PackId;
using storage::RecordLocation;
using storage::RecordName;

constexpr std::uint32_t kChunkBytes = storage::kMaxChunkSize;
constexpr std::uint64_t kChunksOfPack = 255;  // as many as fit into 256 MiB

// An engine that syncs nothing.
class LazyEngine final : public KvEngine {
 public:
  explicit LazyEngine(KvEngine& engine) : engine_(engine) {}
  absl::Status Transact(Durability, const std::function<absl::Status(storage::Transaction&)>& body) override {
    return engine_.Transact(Durability::kLazy, body);
  }

 private:
  KvEngine& engine_;
};

Digest DigestOf(std::uint64_t number) {
  std::array<char, 8> bytes;
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(number >> 8 * i);
  return Sha256(std::string_view(bytes.data(), bytes.size()));
}

class Filler {
 public:
  Filler(storage::Store& store, std::filesystem::path packs)
      : packs_(std::move(packs)),
        engine_(store.engine()),
        pack_table_(engine_),
        chunks_(engine_),
        sessions_(engine_, Clock::System(), std::chrono::hours(1)),
        versions_(engine_, store.packs(), Clock::System()) {
    std::filesystem::create_directories(packs_);
  }

  // Commits a checkpoint of the next so many chunks.
  absl::Status AddCheckpoint(const std::string& run, std::int64_t epoch, std::uint64_t chunk_count) {
    v1::SessionRow wanted;
    wanted.set_domain("default");
    wanted.set_run(run);
    wanted.set_epoch(epoch);
    wanted.set_attempt_key(RandomBytes(16));
    wanted.set_world_size(1);
    wanted.set_primary_metric("val_acc");
    CKPT_ASSIGN_OR_RETURN(const storage::BegunSession begun, sessions_.Begin(wanted, 0));
    storage::Draft draft;
    draft.components = {"", "model", "optimizer"};
    for (std::uint64_t left = chunk_count; left != 0;) {
      const std::uint64_t count = std::min(left, kChunksOfPack);
      CKPT_RETURN_IF_ERROR(AddPack(begun.ref, count, draft));
      left -= count;
    }
    Describe(run, epoch, chunk_count, draft.checkpoint);
    CKPT_RETURN_IF_ERROR(versions_.Commit(begun.ref, draft).status());
    sessions_.End(begun.ref.id);
    return absl::OkStatus();
  }

  absl::Status Finish() { return versions_.WriteMarkers(); }

 private:
  absl::Status AddPack(const storage::SessionRef& session, std::uint64_t count, storage::Draft& draft) {
    const PackId pack = *PackId::From(RandomBytes(PackId::kSize));
    CKPT_RETURN_IF_ERROR(pack_table_.Announce(pack, session.domain));
    storage::WrittenBatch written{.pack = pack, .locations = {}, .end = storage::kPackHeaderSize};
    storage::IndexBatch batch;
    batch.session = session;
    for (std::uint64_t i = 0; i < count; ++i) {
      const RecordName name{false, DigestOf(next_chunk_++)};
      const RecordLocation location{pack, written.end, static_cast<std::uint32_t>(i), kChunkBytes};
      batch.entries.push_back({name, location, kChunkBytes, Fingerprint::At(name.digest.view(), 0)});
      draft.used.push_back({name, i % 3 == 0 ? 1U : 2U});  // a model, and two moments for each of its bytes
      written.end += storage::kRecordHeaderSize + kChunkBytes;
    }
    batch.written = &written;
    batch.number = next_batch_++;
    storage::StreamPins pins;
    batch.pins = &pins;
    draft.fact = {pack, written.end, static_cast<std::uint32_t>(count), 0};
    MakeFile(pack, session.domain, written.end);
    CKPT_ASSIGN_OR_RETURN(const storage::IndexResult indexed, chunks_.Index(batch));
    CKPT_CHECK(indexed.gone.empty());
    return pack_table_.Sealed(pack);
  }

  void MakeFile(const PackId& pack, const std::string& domain, std::uint64_t size) const {
    std::array<std::byte, storage::kPackHeaderSize> header;
    storage::EncodePackHeader(pack.view(), domain, header);
    const int fd = open((packs_ / (pack.ToHex() + ".pack")).c_str(), O_WRONLY | O_CREAT | O_EXCL, 0644);
    CKPT_CHECK(fd >= 0 && write(fd, header.data(), header.size()) == static_cast<ssize_t>(header.size()));
    CKPT_CHECK(ftruncate(fd, static_cast<off_t>(size)) == 0);
    close(fd);
  }

  static void Describe(const std::string& run, std::int64_t epoch, std::uint64_t chunk_count, v1::Checkpoint& out) {
    out.set_run(run);
    out.set_epoch(epoch);
    out.set_step(epoch * 1000);
    for (const char* const name : {"train_loss", "val_acc", "val_loss"}) {
      v1::Metric& metric = *out.add_metrics();
      metric.set_name(name);
      metric.set_value(1.0 / static_cast<double>(epoch + 1));
    }
    v1::Label& label = *out.add_labels();
    label.set_key("git");
    label.set_value("1f3c2a9d0b7e");
    out.set_logical_bytes(chunk_count * kChunkBytes);
    out.set_new_bytes(chunk_count * kChunkBytes);
    out.set_manifest_digest(RandomBytes(Digest::kSize));
    *out.add_components() = "model";
    *out.add_components() = "optimizer";
    out.set_tensor_count(chunk_count);
    out.set_world_size(1);
  }

  const std::filesystem::path packs_;
  LazyEngine engine_;
  storage::PackTable pack_table_;
  storage::ChunkIndex chunks_;
  storage::SessionTable sessions_;
  storage::VersionTable versions_;
  std::uint64_t next_chunk_ = 0;
  std::uint64_t next_batch_ = 0;
};

struct Counts {
  std::uint64_t chunks = 0;
  std::uint64_t runs = 0;
  std::uint64_t checkpoints = 0;  // of the long run
};

absl::Status Fill(const std::filesystem::path& dir, const Counts& counts) {
  CKPT_ASSIGN_OR_RETURN(const auto store, storage::Store::Open({.dir = dir}));
  CKPT_RETURN_IF_ERROR(store->OpenDomain("default").status());
  Filler filler(*store, dir / "packs" / "default");
  const std::uint64_t total = counts.runs + counts.checkpoints;
  std::uint64_t done = 0;
  for (std::uint64_t i = 0; i < total; ++i) {
    const std::uint64_t end = counts.chunks * (i + 1) / total;
    const bool alone = i < counts.runs;
    const std::string run = alone ? "run-" + std::to_string(i) : "long";
    const std::int64_t epoch = alone ? 1 : static_cast<std::int64_t>(i - counts.runs);
    CKPT_RETURN_IF_ERROR(filler.AddCheckpoint(run, epoch, end - done));
    done = end;
  }
  return filler.Finish();
}

}  // namespace
}  // namespace ckpt::bench

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: fill_catalog DIR CHUNKS RUNS CHECKPOINTS\n");
    return 2;
  }
  CKPT_CHECK_OK(ckpt::bench::Fill(argv[1], {std::stoul(argv[2]), std::stoul(argv[3]), std::stoul(argv[4])}));
  return 0;
}
