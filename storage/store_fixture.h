// For tests: a store in a fresh folder, and the shortest way to save into it and to look at its rows.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/digest.h"
#include "storage/fake_clock_fixture.h"
#include "storage/keys.h"
#include "storage/restore_reader.h"
#include "storage/rows.h"
#include "storage/save_stream.h"
#include "storage/status_matchers_fixture.h"
#include "storage/store.h"

namespace ckpt::storage {

// A state of a few tensors of bytes, by path ("model.a").
using Tensors = std::vector<std::pair<std::string, std::string>>;

class StoreTest : public testing::Test {
 protected:
  static constexpr std::uint32_t kChunk = 16384;

  StoreTest();
  ~StoreTest() override;

  void OpenStore();
  void CloseStore() { store_.reset(); }

  static v1::SaveBegin BeginOf(const std::string& run, std::int64_t epoch, std::string attempt_key = {});

  std::unique_ptr<SaveStream> Begin(const v1::SaveBegin& begin);

  // Sends the tensors and the tree over them, but not commit.
  static absl::Status Send(SaveStream& save, const Tensors& tensors);
  static v1::Tensor HeaderOf(const std::string& path, const std::string& bytes);
  static absl::Status SendTensors(SaveStream& save, const Tensors& tensors);
  static absl::Status SendTree(SaveStream& save, const Tensors& tensors);

  // Begin, Send, Commit.
  absl::StatusOr<v1::Checkpoint> Save(const v1::SaveBegin& begin, const Tensors& tensors,
                                      const std::map<std::string, double>& metrics = {});

  // What a restore of the reference gives.
  absl::StatusOr<std::map<std::string, std::string>> Restore(const std::string& reference);

  // The rows below a prefix.
  std::vector<std::pair<std::string, std::string>> Rows(const std::string& prefix);
  template <typename Row>
  Row Get(const std::string& key);
  template <typename Row>
  void Put(const std::string& key, const Row& row) {
    CKPT_CHECK_OK(store_->engine().Transact(KvEngine::Durability::kSync,
                                            [&](Transaction& txn) { return PutRow(txn, key, row); }));
  }
  v1::ChunkRow ChunkRowOf(const std::string& bytes) { return Get<v1::ChunkRow>(keys::Chunk("default", Sha256(bytes))); }
  static PackId PackIdOf(const v1::ChunkRow& row) { return *PackId::From(row.pack()); }
  static SessionId SessionOf(const SaveStream& save) { return *SessionId::From(save.begun().session()); }
  std::set<PackId> Pins(const SessionId& session);
  // The version's references of the component are to where the rows of these chunks say that they are, and to nothing
  // else.
  void ExpectReferences(const VersionId& version, const std::string& component, const std::vector<std::string>& chunks);

  // Distinct bytes of so many chunks.
  static std::string Data(char seed, std::size_t chunks = 1);

  std::filesystem::path dir_;
  FakeClock clock_;
  StoreOptions options_;
  std::unique_ptr<Store> store_;
};

template <typename Row>
Row StoreTest::Get(const std::string& key) {
  std::optional<Row> row;
  CKPT_CHECK_OK(store_->engine().Transact(KvEngine::Durability::kLazy, [&](Transaction& txn) -> absl::Status {
    CKPT_ASSIGN_OR_RETURN(row, GetRow<Row>(txn, key, Hold::kNone));
    return absl::OkStatus();
  }));
  CKPT_CHECK(row.has_value());
  return *row;
}

}  // namespace ckpt::storage
