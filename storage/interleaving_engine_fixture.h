// For tests: an engine that stops one piece of work in the middle of its transactions and lets another have its way
// there.
#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <thread>

#include "base/mutex.h"
#include "storage/kv_engine.h"

namespace ckpt::storage {

// An engine over another one. Two pieces of work use it at a time, each in a thread of its own.
class InterleavingEngine final : public KvEngine {
 public:
  // The engine below must outlive this one.
  explicit InterleavingEngine(KvEngine& engine) : engine_(engine) {}

  absl::Status Transact(Durability durability, const std::function<absl::Status(Transaction&)>& body) override;

  // What came of a run.
  struct Outcome {
    bool paused = false;  // the first work had as many calls; else the second ran after it
    bool passed = false;  // the second work ended during the pause: nothing that the first held was in its way
  };

  // Runs both works to their end: the second begins when the n-th call that the first makes in its transactions has
  // been answered, and the first goes on when the second has ended or plainly waits for a lock.
  Outcome Run(const std::function<void()>& first, const std::function<void()>& second, int n);

 private:
  class Watched;
  class LockCall;

  void Answered();  // a call of the first work
  void WaitForSecond();

  KvEngine& engine_;
  std::thread::id first_;
  int calls_left_ = 0;  // of the first work, until its pause
  std::function<void()> second_;
  std::thread thread_;
  Outcome outcome_;

  Mutex mutex_;
  CondVar changed_;
  bool ended_ CKPT_GUARDED_BY(mutex_) = false;  // the second work
  // Since when the second work is in a call that takes a lock.
  std::optional<std::chrono::steady_clock::time_point> locking_since_ CKPT_GUARDED_BY(mutex_);
};

}  // namespace ckpt::storage
