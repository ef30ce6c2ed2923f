// ckptctl restore.
#include <signal.h>

#include <algorithm>
#include <array>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "ckpt/formats.h"
#include "ckpt/status.h"
#include "client/cli/commands.h"
#include "client/cli/json.h"
#include "client/cli/progress_bar.h"
#include "client/cli/text.h"

namespace ckpt::cli {
namespace {

volatile sig_atomic_t interrupted = 0;

// Until it goes, signals that end a process end the restore in an orderly way; a second one ends the process at once.
class InterruptGuard {
 public:
  InterruptGuard() {
    struct sigaction action {};
    action.sa_handler = [](int number) { interrupted = number; };
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    for (std::size_t i = 0; i < kSignals.size(); ++i) {
      sigaction(kSignals[i], nullptr, &before_[i]);
      if (before_[i].sa_handler != SIG_IGN) sigaction(kSignals[i], &action, nullptr);  // nohup ignores SIGHUP
    }
  }
  ~InterruptGuard() {
    for (std::size_t i = 0; i < kSignals.size(); ++i) sigaction(kSignals[i], &before_[i], nullptr);
  }
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

 private:
  static constexpr std::array kSignals = {SIGINT, SIGTERM, SIGHUP};
  std::array<struct sigaction, kSignals.size()> before_;
};

// Hands on what comes, until somebody interrupts.
class InterruptibleSink final : public TensorSink {
 public:
  explicit InterruptibleSink(TensorSink& sink) : sink_(sink) {}
  absl::Status Write(std::uint64_t tensor, std::uint64_t offset_bytes, std::span<const std::byte> bytes) override {
    if (interrupted != 0) return absl::CancelledError("interrupted; nothing was written");
    return sink_.Write(tensor, offset_bytes, bytes);
  }

 private:
  TensorSink& sink_;
};

std::string DefaultFile(const v1::Checkpoint& checkpoint, std::optional<FileFormat> format) {
  std::string name = checkpoint.run();
  std::replace(name.begin(), name.end(), '/', '-');
  return absl::StrCat(name, "@", checkpoint.epoch(), format == FileFormat::kSafetensors ? ".safetensors" : ".pth");
}

absl::StatusOr<std::uint64_t> WriteFile(Restore& restore, const std::string& file, FileFormat format, bool overwrite) {
  StateFileWriter::Options options;
  options.overwrite = overwrite;
  const absl::StatusOr<std::unique_ptr<StateFileWriter>> writer =
      StateFileWriter::Create(file, format, restore.nodes(), restore.tensors(), options);
  if (!writer.ok()) return writer.status();
  InterruptibleSink sink(**writer);
  if (const absl::Status status = restore.Read(sink); !status.ok()) return status;
  return (*writer)->Finish();
}

}  // namespace

absl::Status RestoreFile(Context context, const RestoreCommand& command) {
  RestoreOptions options;
  options.reference = command.reference;
  options.components = command.components;
  options.include = command.include;
  ProgressBar bar("restoring");
  options.progress = [&](std::uint64_t done, std::uint64_t total) { bar.Show(done, total); };
  const absl::StatusOr<std::unique_ptr<Restore>> restore = context.client.OpenRestore(options);
  if (!restore.ok()) return restore.status();
  const v1::Checkpoint& checkpoint = (*restore)->checkpoint();
  const std::string file = command.file.empty() ? DefaultFile(checkpoint, command.format) : command.file;
  const absl::StatusOr<FileFormat> format = command.format.has_value() ? *command.format : FormatOfPath(file);
  if (!format.ok()) return format.status();
  absl::StatusOr<std::uint64_t> size;
  {
    const InterruptGuard guard;
    size = WriteFile(**restore, file, *format, command.overwrite);
  }
  if (interrupted != 0 && !size.ok()) raise(interrupted);  // nothing is left: end as the signal wants
  if (absl::IsAlreadyExists(size.status()))
    return MakeError(absl::StatusCode::kAlreadyExists, "FILE_EXISTS",
                     absl::StrCat(file, " exists; choose another name, or replace it with --force"));
  if (!size.ok()) return size.status();
  if (context.json) {
    const Json json = {{"reference", command.reference},
                       {"run", checkpoint.run()},
                       {"epoch", checkpoint.epoch()},
                       {"version", checkpoint.version()},
                       {"file", file},
                       {"size_bytes", *size}};
    std::puts(Dump(json).c_str());
  } else {
    std::printf("restored %s into %s: %s\n", Name(checkpoint).c_str(), Printable(file).c_str(),
                HumanBytes(*size).c_str());
  }
  return absl::OkStatus();
}

}  // namespace ckpt::cli
