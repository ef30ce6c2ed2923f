#include "storage/interleaving_engine_fixture.h"

#include <type_traits>
#include <utility>

namespace ckpt::storage {
namespace {

// A lock that is free is had in microseconds. Where a lock is missing, no result depends on this: the second work ends;
// where none is, a machine so slow that this is too short only makes the pause end early.
constexpr std::chrono::milliseconds kPlainly{20};

}  // namespace

// Notes how long the second work is in a call that may wait for a lock.
class InterleavingEngine::LockCall {
 public:
  explicit LockCall(InterleavingEngine& owner) : owner_(owner) { Set(std::chrono::steady_clock::now()); }
  ~LockCall() { Set(std::nullopt); }
  LockCall(const LockCall&) = delete;
  LockCall& operator=(const LockCall&) = delete;

 private:
  void Set(std::optional<std::chrono::steady_clock::time_point> since) {
    if (std::this_thread::get_id() == owner_.first_) return;
    const MutexLock lock(owner_.mutex_);
    owner_.locking_since_ = since;
  }

  InterleavingEngine& owner_;
};

class InterleavingEngine::Watched final : public Transaction {
 public:
  Watched(InterleavingEngine& owner, Transaction& txn) : owner_(owner), txn_(txn) {}

  absl::StatusOr<std::optional<std::string>> Get(std::string_view key, Hold hold) override {
    return Call([&] { return txn_.Get(key, hold); });
  }
  absl::StatusOr<std::vector<std::optional<std::string>>> MultiGet(std::span<const std::string> keys,
                                                                   Hold hold) override {
    return Call([&] { return txn_.MultiGet(keys, hold); });
  }
  absl::Status Put(std::string_view key, std::string_view value) override {
    return Call([&] { return txn_.Put(key, value); });
  }
  absl::Status Delete(std::string_view key) override {
    return Call([&] { return txn_.Delete(key); });
  }
  absl::StatusOr<std::vector<std::pair<std::string, std::string>>> Scan(std::string_view prefix, std::string_view after,
                                                                        std::size_t limit) override {
    return Call([&] { return txn_.Scan(prefix, after, limit); });
  }

 private:
  template <typename Function>
  std::invoke_result_t<Function> Call(Function call) {
    std::optional<std::invoke_result_t<Function>> answer;
    {
      const LockCall locking(owner_);
      answer = call();
    }
    owner_.Answered();
    return *std::move(answer);
  }

  InterleavingEngine& owner_;
  Transaction& txn_;
};

absl::Status InterleavingEngine::Transact(Durability durability,
                                          const std::function<absl::Status(Transaction&)>& body) {
  return engine_.Transact(durability, [&](Transaction& txn) {
    Watched watched(*this, txn);
    return body(watched);
  });
}

void InterleavingEngine::Answered() {
  if (std::this_thread::get_id() != first_ || calls_left_ == 0 || --calls_left_ > 0) return;
  outcome_.paused = true;
  WaitForSecond();
}

void InterleavingEngine::WaitForSecond() {
  thread_ = std::thread([this] {
    second_();
    const MutexLock lock(mutex_);
    ended_ = true;
    changed_.NotifyAll();
  });
  const MutexLock lock(mutex_);
  while (!ended_ && !(locking_since_.has_value() && std::chrono::steady_clock::now() - *locking_since_ > kPlainly))
    changed_.WaitFor(mutex_, std::chrono::milliseconds(1));
  outcome_.passed = ended_;
}

InterleavingEngine::Outcome InterleavingEngine::Run(const std::function<void()>& first,
                                                    const std::function<void()>& second, int n) {
  first_ = std::this_thread::get_id();
  calls_left_ = n;
  second_ = second;
  outcome_ = {};
  {
    const MutexLock lock(mutex_);
    ended_ = false;
    locking_since_.reset();
  }
  first();
  calls_left_ = 0;
  if (outcome_.paused) {
    thread_.join();
  } else {
    second();
  }
  return std::exchange(outcome_, {});
}

}  // namespace ckpt::storage
