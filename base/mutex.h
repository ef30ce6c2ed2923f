// std::mutex with clang's thread-safety annotations. (Debian's absl::Mutex is not instrumented and gives
// ThreadSanitizer false races.)
#pragma once

#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define CKPT_TSA(x) __attribute__((x))
#else
#define CKPT_TSA(x)
#endif
#define CKPT_GUARDED_BY(x) CKPT_TSA(guarded_by(x))
#define CKPT_REQUIRES(...) CKPT_TSA(requires_capability(__VA_ARGS__))
#define CKPT_EXCLUDES(...) CKPT_TSA(locks_excluded(__VA_ARGS__))

namespace ckpt {

class CKPT_TSA(capability("mutex")) Mutex {
 public:
  void lock() CKPT_TSA(acquire_capability()) { mutex_.lock(); }
  void unlock() CKPT_TSA(release_capability()) { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

class CKPT_TSA(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) CKPT_TSA(acquire_capability(mutex)) : mutex_(mutex) { mutex_.lock(); }
  ~MutexLock() CKPT_TSA(release_capability()) { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

// Waits on a Mutex that the caller holds.
class CondVar {
 public:
  void Wait(Mutex& mutex) CKPT_REQUIRES(mutex) { cv_.wait(mutex); }
  // False when the time is over first.
  template <typename Duration>
  bool WaitFor(Mutex& mutex, Duration duration) CKPT_REQUIRES(mutex) {
    return cv_.wait_for(mutex, duration) == std::cv_status::no_timeout;
  }
  void NotifyAll() { cv_.notify_all(); }

 private:
  std::condition_variable_any cv_;
};

}  // namespace ckpt
