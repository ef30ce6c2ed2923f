#include "server/stream_threads.h"

#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status.h"

namespace ckpt::server {

StreamThreads::~StreamThreads() {
  const MutexLock lock(mutex_);
  while (running_ != 0) changed_.Wait(mutex_);
}

void StreamThreads::Run(std::shared_ptr<RawStream> stream, std::function<absl::Status(RawStream&)> serve) {
  bool taken = false;
  {
    const MutexLock lock(mutex_);
    taken = running_ < limit_;
    if (taken) ++running_;
  }
  if (!taken) {
    stream->Close(MakeError(absl::StatusCode::kResourceExhausted, "TOO_MANY_STREAMS",
                            absl::StrCat("this server serves ", limit_, " saves and restores at once; try again later")));
    return;
  }
  std::thread([this, stream = std::move(stream), serve = std::move(serve)] {
    stream->Close(serve(*stream));
    const MutexLock lock(mutex_);
    --running_;
    changed_.NotifyAll();  // under the lock: after it this may be gone
  }).detach();
}

}  // namespace ckpt::server
