// digits_trainer: teaches a small network to read handwritten digits, and saves its state after each epoch to ckptd.
// Killed at any moment and started again with --resume, it ends with the very weights that it would have had without
// that.
//
// The calls of the client library are in checkpoint.cc and in Resume and Train below; the rest is the training itself.
#include <CLI/CLI.hpp>
#include <cstdint>
#include <iostream>
#include <memory>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "ckpt/client.h"
#include "client/examples/checkpoint.h"
#include "client/examples/digits_data.h"
#include "client/examples/training.h"

namespace digits {
namespace {

struct Flags {
  std::string server = "127.0.0.1:7070";
  std::string run = "digits";
  std::string data;
  std::int64_t epochs = 8;
  std::uint64_t seed = 0;
  bool resume = false;
};

// Each line leaves at once: whoever reads the log of a killed trainer sees how far it came.
void Log(std::string_view line) { std::cout << line << std::endl; }

std::string Reference(const ckpt::v1::Checkpoint& checkpoint) {
  return absl::StrCat(checkpoint.run(), "@", checkpoint.epoch(), "#", checkpoint.version());
}

// The SHA-256 of the stored state, equal for states that are equal to the last bit.
std::string StateDigest(const ckpt::v1::Checkpoint& checkpoint) {
  return absl::BytesToHexString(checkpoint.manifest_digest());
}

absl::StatusOr<Dataset> LoadDigits(const std::string& path) {
  auto dataset = path.empty() ? ParseDigits(EmbeddedCsv()) : ReadDigits(path);
  if (dataset.ok() && (dataset->training.labels.size() < kBatchSize || dataset->validation.labels.empty()))
    return absl::InvalidArgumentError(absl::StrCat("too few images; a batch has ", kBatchSize));
  return dataset;
}

// Goes on from the run's latest checkpoint, if it has one. Returns the checkpoint's digest, or "".
absl::StatusOr<std::string> Resume(ckpt::Client& client, const std::string& run, Training& training) {
  ckpt::RestoreOptions options;
  options.reference = run + ":latest";
  const auto restore = client.OpenRestore(std::move(options));
  if (absl::IsNotFound(restore.status())) {
    Log(absl::StrCat("run ", run, " has no checkpoint yet: starting from the beginning"));
    return "";
  }
  if (!restore.ok()) return restore.status();
  const std::string reference = Reference((*restore)->checkpoint());
  if (const absl::Status status = RestoreTraining(**restore, training); !status.ok())
    return absl::Status(status.code(), absl::StrCat("cannot resume from ", reference, ": ", status.message()));
  const std::string digest = StateDigest((*restore)->checkpoint());
  Log(absl::StrFormat("resumed from %s, state %.16s", reference, digest));
  return digest;
}

// Trains and saves up to the last epoch. Returns the digest of the state then, or "" if there was nothing to do.
absl::StatusOr<std::string> Train(ckpt::Client& client, const Flags& flags, const Dataset& dataset,
                                  Training& training) {
  constexpr double kKiB = 1024;
  std::string digest;
  while (training.epoch < flags.epochs) {
    const EpochResult result = TrainEpoch(dataset, training);
    Log(absl::StrFormat("epoch %d: train_loss %.4f, val_loss %.4f, val_acc %.4f", training.epoch, result.train_loss,
                        result.validation.loss, result.validation.accuracy));
    const auto saved = SaveEpoch(client, flags.run, result, training);
    if (!saved.ok()) return saved.status();
    digest = StateDigest(saved->checkpoint);
    Log(absl::StrFormat("  saved as %s: %.0f KiB sent, %.0f KiB known already, state %.16s",
                        Reference(saved->checkpoint), static_cast<double>(saved->sent_bytes) / kKiB,
                        static_cast<double>(saved->cited_bytes) / kKiB, digest));
  }
  return digest;
}

absl::Status Run(const Flags& flags) {
  const auto dataset = LoadDigits(flags.data);
  if (!dataset.ok()) return dataset.status();
  // One client for the whole run: it remembers what it saved last.
  ckpt::ConnectOptions options;
  options.address = flags.server;
  const auto client = ckpt::Client::Connect(std::move(options));
  if (!client.ok()) return client.status();

  Training training(flags.seed);
  std::string digest;
  if (flags.resume) {
    auto resumed = Resume(**client, flags.run, training);
    if (!resumed.ok()) return resumed.status();
    digest = *std::move(resumed);
  }
  const auto trained = Train(**client, flags, *dataset, training);
  if (!trained.ok()) return trained.status();
  if (!trained->empty()) digest = *trained;
  Log(absl::StrFormat("%d epochs done, best val_acc %.4f, final state %s", training.epoch, training.best_val_acc,
                      digest));
  return absl::OkStatus();
}

}  // namespace
}  // namespace digits

int main(int argc, char** argv) {
  CLI::App app{"digits_trainer: learns to read handwritten digits, and saves each epoch to ckptd"};
  digits::Flags flags;
  app.add_option("--server", flags.server, "HOST:PORT of ckptd")->envname("CKPT_SERVER")->capture_default_str();
  app.add_option("--run", flags.run, "Name of the run")->capture_default_str();
  app.add_option("--epochs", flags.epochs, "Train until so many are done, those before a resume counted")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  app.add_flag("--resume", flags.resume, "Go on from the run's latest checkpoint, if it has one");
  app.add_option("--seed", flags.seed, "Of all that is random; a resumed run goes on with its own")
      ->capture_default_str();
  app.add_option("--data", flags.data, "CSV of 64 pixels (0 to 16) and a digit a line, instead of the images built in")
      ->type_name("FILE");
  app.footer("Exit codes: 0 done, 1 failed, 2 usage.\nExample:\n  digits_trainer --run digits --epochs 8 --resume");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  const absl::Status status = digits::Run(flags);
  if (status.ok()) return 0;
  std::cerr << "digits_trainer: " << status.message() << std::endl;
  return 1;
}
