// For pack_store_contract_test: what every PackStore has to pass.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "storage/fake_clock_fixture.h"
#include "storage/fresh_folder_fixture.h"
#include "storage/pack_store.h"
#include "storage/status_matchers_fixture.h"

namespace ckpt::storage {

// What a test asks of the store that it opens.
struct PackStoreSetup {
  std::filesystem::path medium;  // of this test; stores that are opened on one see each other's packs
  std::uint64_t target_size_bytes = 0;
  std::size_t max_open_packs = 0;
  std::chrono::milliseconds seal_idle_after{};
  const Clock* clock = nullptr;
};
using PackStoreFactory = std::function<std::unique_ptr<PackStore>(const PackStoreSetup&, PackRegistry&)>;

// Keeps what it is told. Thread-safe.
class RecordingRegistry final : public PackRegistry {
 public:
  absl::Status Announce(const PackId& pack, std::string_view domain) override;
  absl::Status Sealed(const PackId& pack) override;
  absl::Status Lost(const PackId& pack) override { return Sealed(pack); }

  // Announce says what this says; called without a lock.
  std::function<absl::Status(const PackId&, std::string_view)> on_announce;

  std::map<PackId, std::string> announced() const;  // and their domains
  std::map<PackId, int> sealed() const;             // and how often
  [[nodiscard]] bool IsSealed(const PackId& pack) const { return sealed().contains(pack); }

 private:
  mutable Mutex mutex_;
  std::map<PackId, std::string> announced_ CKPT_GUARDED_BY(mutex_);
  std::map<PackId, int> sealed_ CKPT_GUARDED_BY(mutex_);
};

class PackStoreContract : public testing::TestWithParam<PackStoreFactory> {
 protected:
  PackStoreContract();

  // Closes the store and opens another on the same medium.
  void Reopen();
  std::unique_ptr<PackStore> OpenAnother(PackRegistry& registry) { return GetParam()(setup_, registry); }

  // A batch of chunks with these payloads.
  absl::StatusOr<WrittenBatch> TryWrite(const std::string& domain, const std::vector<std::string>& payloads,
                                        const PackId* prefer = nullptr);
  WrittenBatch Write(const std::string& domain, const std::vector<std::string>& payloads,
                     const PackId* prefer = nullptr);
  // Write, and Release as indexed.
  WrittenBatch WriteAndRelease(const std::string& domain, const std::vector<std::string>& payloads,
                               const PackId* prefer = nullptr);

  absl::StatusOr<std::string> Read(const std::string& domain, const PackId& pack, std::uint64_t offset,
                                   std::size_t size);

  // That a batch holds the chunks with these payloads, in this order.
  void ExpectHolds(const std::string& domain, const WrittenBatch& batch, const std::vector<std::string>& payloads);

  // By id.
  std::map<PackId, PackStore::Listed> List();

  // What was written, and the rest of a block at most.
  static constexpr std::uint64_t kBlock = 4096;
  static void ExpectSize(const PackStore::Listed& pack, std::uint64_t end) {
    EXPECT_GE(pack.size_bytes, end);
    EXPECT_LT(pack.size_bytes, end + kBlock);
  }

  const FreshFolder folder_;
  FakeClock clock_;
  PackStoreSetup setup_;
  RecordingRegistry registry_;
  std::unique_ptr<PackStore> store_;
};

}  // namespace ckpt::storage
