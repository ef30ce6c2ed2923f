#include "storage/pack_store_contract_fixture.h"

#include <span>

#include "base/status.h"
#include "storage/file_pack_store.h"

namespace ckpt::storage {

absl::Status RecordingRegistry::Announce(const PackId& pack, std::string_view domain) {
  if (on_announce) CKPT_RETURN_IF_ERROR(on_announce(pack, domain));
  const MutexLock lock(mutex_);
  EXPECT_TRUE(announced_.emplace(pack, domain).second) << "announced twice";
  return absl::OkStatus();
}

absl::Status RecordingRegistry::Sealed(const PackId& pack) {
  const MutexLock lock(mutex_);
  EXPECT_TRUE(announced_.contains(pack)) << "sealed, but never announced";
  EXPECT_EQ(++sealed_[pack], 1) << "sealed twice";
  return absl::OkStatus();
}

std::map<PackId, std::string> RecordingRegistry::announced() const {
  const MutexLock lock(mutex_);
  return announced_;
}

std::map<PackId, int> RecordingRegistry::sealed() const {
  const MutexLock lock(mutex_);
  return sealed_;
}

PackStoreContract::PackStoreContract() {
  setup_ = {.medium = folder_.path() / "packs",
            .target_size_bytes = 1 << 20,
            .max_open_packs = 4,
            .seal_idle_after = std::chrono::minutes(1),
            .clock = &clock_};
  Reopen();
}

void PackStoreContract::Reopen() {
  store_.reset();
  store_ = OpenAnother(registry_);
}

absl::StatusOr<WrittenBatch> PackStoreContract::TryWrite(const std::string& domain,
                                                         const std::vector<std::string>& payloads,
                                                         const PackId* prefer) {
  std::vector<Bytes> pieces;
  for (const std::string& payload : payloads) pieces.push_back(AsBytes(payload));
  std::vector<Record> records;
  for (const Bytes& piece : pieces) records.push_back(MakeRecord(RecordKind::kChunk, {&piece, 1}));
  return store_->Write(domain, records, prefer);
}

WrittenBatch PackStoreContract::Write(const std::string& domain, const std::vector<std::string>& payloads,
                                      const PackId* prefer) {
  absl::StatusOr<WrittenBatch> batch = TryWrite(domain, payloads, prefer);
  CKPT_CHECK_OK(batch.status());
  return *std::move(batch);
}

WrittenBatch PackStoreContract::WriteAndRelease(const std::string& domain, const std::vector<std::string>& payloads,
                                                const PackId* prefer) {
  WrittenBatch batch = Write(domain, payloads, prefer);
  store_->Release(batch.pack, true);
  return batch;
}

absl::StatusOr<std::string> PackStoreContract::Read(const std::string& domain, const PackId& pack, std::uint64_t offset,
                                                    std::size_t size) {
  std::string out(size, '\0');
  CKPT_RETURN_IF_ERROR(store_->Read(domain, pack, offset, std::as_writable_bytes(std::span(out))));
  return out;
}

void PackStoreContract::ExpectHolds(const std::string& domain, const WrittenBatch& batch,
                                    const std::vector<std::string>& payloads) {
  ASSERT_EQ(batch.locations.size(), payloads.size());
  std::uint64_t offset = batch.locations.empty() ? batch.end : batch.locations[0].offset;
  for (std::size_t i = 0; i < payloads.size(); ++i) {
    const RecordLocation& at = batch.locations[i];
    ASSERT_EQ(at.pack, batch.pack);
    ASSERT_EQ(at.offset, offset);
    ASSERT_EQ(at.ordinal, batch.locations[0].ordinal + i);
    ASSERT_EQ(at.stored_length, payloads[i].size());
    const absl::StatusOr<std::string> record = Read(domain, at.pack, at.offset, kRecordHeaderSize + at.stored_length);
    ASSERT_THAT(record.status(), IsOk());
    const absl::StatusOr<RecordHeader> header = DecodeRecordHeader(AsBytes(*record).first(kRecordHeaderSize));
    ASSERT_THAT(header.status(), IsOk());
    ASSERT_EQ(header->ordinal, at.ordinal);
    ASSERT_EQ(header->stored_length, at.stored_length);
    ASSERT_EQ(header->raw_length, at.stored_length);
    ASSERT_EQ(header->digest, Sha256(payloads[i]));
    ASSERT_EQ(header->fingerprint, Xxh3(payloads[i]));
    ASSERT_TRUE(record->substr(kRecordHeaderSize) == payloads[i]);
    offset += record->size();
  }
  ASSERT_EQ(batch.end, offset);
}

std::map<PackId, PackStore::Listed> PackStoreContract::List() {
  std::map<PackId, PackStore::Listed> out;
  const auto listed = store_->List();
  EXPECT_THAT(listed.status(), IsOk());
  for (const PackStore::Listed& pack : listed.value()) EXPECT_TRUE(out.emplace(pack.pack, pack).second);
  return out;
}

// Every implementation, one line each.
INSTANTIATE_TEST_SUITE_P(File, PackStoreContract,
                         testing::Values([](const PackStoreSetup& setup, PackRegistry& registry) {
                           return std::unique_ptr<PackStore>(
                               FilePackStore::Open({.root = setup.medium,
                                                    .target_size_bytes = setup.target_size_bytes,
                                                    .max_open_packs = setup.max_open_packs,
                                                    .seal_idle_after = setup.seal_idle_after,
                                                    .clock = setup.clock},
                                                   registry)
                                   .value());
                         }));

}  // namespace ckpt::storage
