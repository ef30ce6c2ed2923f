#include "storage/kv_engine_contract_fixture.h"

#include <thread>

#include "base/status.h"
#include "storage/rocksdb_engine.h"

namespace ckpt::storage {

void Signal::Raise() {
  const MutexLock lock(mutex_);
  up_ = true;
  raised_.NotifyAll();
}

void Signal::Wait() {
  const MutexLock lock(mutex_);
  while (!up_) raised_.Wait(mutex_);
}

bool Signal::WaitFor(std::chrono::milliseconds time) {
  const auto end = std::chrono::steady_clock::now() + time;
  const MutexLock lock(mutex_);
  while (!up_ && std::chrono::steady_clock::now() < end)
    raised_.WaitFor(mutex_, end - std::chrono::steady_clock::now());
  return up_;
}

void KvEngineContract::Put(const std::string& key, const std::string& value) {
  ASSERT_THAT(Transact(Putting(key, value)), IsOk());
}

std::optional<std::string> KvEngineContract::Get(const std::string& key) {
  std::optional<std::string> out;
  EXPECT_THAT(Transact([&](Transaction& txn) -> absl::Status {
                CKPT_ASSIGN_OR_RETURN(out, txn.Get(key, Hold::kNone));
                return absl::OkStatus();
              }),
              IsOk());
  return out;
}

std::vector<KvEngineContract::Row> KvEngineContract::Scan(const std::string& prefix, const std::string& after,
                                                          std::size_t limit) {
  std::vector<Row> out;
  EXPECT_THAT(Transact([&](Transaction& txn) -> absl::Status {
                CKPT_ASSIGN_OR_RETURN(out, txn.Scan(prefix, after, limit));
                return absl::OkStatus();
              }),
              IsOk());
  return out;
}

KvEngineContract::Body KvEngineContract::Holding(const std::string& key, Hold hold) {
  return [=](Transaction& txn) { return txn.Get(key, hold).status(); };
}
KvEngineContract::Body KvEngineContract::Putting(const std::string& key, const std::string& value) {
  return [=](Transaction& txn) { return txn.Put(key, value); };
}
KvEngineContract::Body KvEngineContract::Deleting(const std::string& key) {
  return [=](Transaction& txn) { return txn.Delete(key); };
}

bool KvEngineContract::PassesDuring(const Body& mine, const Body& other, std::chrono::milliseconds patience) {
  Signal passed;
  std::thread thread;
  bool in_time = false;
  EXPECT_THAT(Transact([&](Transaction& txn) -> absl::Status {
                CKPT_RETURN_IF_ERROR(mine(txn));
                if (!thread.joinable()) {
                  thread = std::thread([&] {
                    EXPECT_THAT(Transact([&](Transaction& theirs) -> absl::Status {
                                  CKPT_RETURN_IF_ERROR(other(theirs));
                                  passed.Raise();
                                  return absl::OkStatus();
                                }),
                                IsOk());
                  });
                }
                in_time = passed.WaitFor(patience);
                return absl::OkStatus();
              }),
              IsOk());
  if (thread.joinable()) thread.join();
  return in_time;
}

// Every implementation, one line each.
INSTANTIATE_TEST_SUITE_P(RocksDb, KvEngineContract, testing::Values([](const std::filesystem::path& dir) {
                           return std::unique_ptr<KvEngine>(RocksDbEngine::Open(dir, {}).value());
                         }));

}  // namespace ckpt::storage
