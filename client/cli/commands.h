// What ckptctl does, a function a command. Each prints its result on standard output.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "ckpt/client.h"
#include "ckpt/formats.h"

namespace ckpt::cli {

// What every command needs.
struct Context {
  Client& client;
  bool json = false;
};

// The first `limit` runs by name, or all.
absl::Status Runs(Context context, std::optional<std::uint32_t> limit);

absl::Status List(Context context, const std::string& run);

absl::Status Show(Context context, const std::string& reference);

struct SaveCommand {
  std::string run;
  std::string file;
  std::optional<std::int64_t> epoch;      // else the file's
  std::optional<std::int64_t> step;       // else the file's, if it has one
  std::map<std::string, double> metrics;  // besides the file's, and before them
  std::map<std::string, std::string> labels;
  std::string primary_metric;        // of the run from now on; empty: as before
  std::optional<FileFormat> format;  // else by the file's ending
  bool check_crc = true;
};

absl::Status SaveFile(Context context, const SaveCommand& command);

struct RestoreCommand {
  std::string reference;
  std::string file;                     // empty: named after run and epoch
  std::vector<std::string> components;  // empty: all
  std::vector<std::string> include;     // empty: all
  std::optional<FileFormat> format;     // else by the file's ending
  bool overwrite = false;
};

absl::Status RestoreFile(Context context, const RestoreCommand& command);

// The script that makes bash complete ckptctl's words.
std::string BashCompletion();

// The exit code that an error ends ckptctl with.
int ExitCode(const absl::Status& status);

}  // namespace ckpt::cli
