// For kv_engine_contract_test and kv_engine_locking_contract_test: what every KvEngine has to pass.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/mutex.h"
#include "storage/fresh_folder_fixture.h"
#include "storage/kv_engine.h"
#include "storage/status_matchers_fixture.h"

namespace ckpt::storage {

// Opens the engine whose data is in the folder; makes it the first time.
using KvEngineFactory = std::function<std::unique_ptr<KvEngine>(const std::filesystem::path&)>;

// Raised once, then for ever. Thread-safe.
class Signal {
 public:
  void Raise();
  void Wait();
  // False when it is not raised in that time.
  bool WaitFor(std::chrono::milliseconds time);

 private:
  Mutex mutex_;
  CondVar raised_;
  bool up_ CKPT_GUARDED_BY(mutex_) = false;
};

class KvEngineContract : public testing::TestWithParam<KvEngineFactory> {
 protected:
  using Body = std::function<absl::Status(Transaction&)>;
  using Row = std::pair<std::string, std::string>;

  KvEngineContract() { Reopen(); }

  void Reopen() {
    engine_.reset();
    engine_ = GetParam()(folder_.path() / "engine");
  }

  absl::Status Transact(const Body& body) { return engine_->Transact(KvEngine::Durability::kLazy, body); }

  // Each in a transaction of its own.
  void Put(const std::string& key, const std::string& value);
  std::optional<std::string> Get(const std::string& key);
  std::vector<Row> Scan(const std::string& prefix, const std::string& after = {}, std::size_t limit = 1'000'000);

  // Bodies.
  static Body Holding(const std::string& key, Hold hold);
  static Body Putting(const std::string& key, const std::string& value);
  static Body Deleting(const std::string& key);

  // Runs `other` in a transaction of another thread while one that has run `mine` is open. Whether it got through
  // within `patience`; in the end both commit.
  bool PassesDuring(const Body& mine, const Body& other, std::chrono::milliseconds patience);

  // An engine that is right makes a test wait for so long, one that is wrong is found out earlier; no result depends on
  // it.
  static constexpr std::chrono::milliseconds kLinger{100};
  // For what does happen.
  static constexpr std::chrono::milliseconds kAnyTime{60'000};

  const FreshFolder folder_;
  std::unique_ptr<KvEngine> engine_;
};

}  // namespace ckpt::storage
