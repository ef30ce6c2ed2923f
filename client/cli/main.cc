// ckptctl: looks at the checkpoints of a ckptd, saves files to it and restores them.
#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "ckpt/status.h"
#include "client/cli/commands.h"
#include "client/cli/text.h"

namespace {

using ckpt::cli::Context;

constexpr char kExitCodes[] =
    "Exit codes:\n"
    "  0 ok   1 failed   2 usage   3 not found   4 conflict or exists   5 refused by the server (auth)   6 server "
    "unreachable\n"
    "  7 data damaged\n\n"
    "A reference REF is RUN@EPOCH, RUN@EPOCH#VERSION, RUN:latest, RUN:best, RUN:best:METRIC, RUN:best:METRIC:min,\n"
    "RUN:best:METRIC:max or RUN:TAG.\n\n"
    "Examples:\n"
    "  ckptctl runs\n"
    "  ckptctl save resnet50 checkpoint.pth --metric val_acc=0.91\n"
    "  ckptctl restore resnet50:best best.pth";

const std::map<std::string, ckpt::FileFormat> kFormats = {{"pth", ckpt::FileFormat::kPth},
                                                          {"safetensors", ckpt::FileFormat::kSafetensors}};

// What the command line says.
struct Options {
  std::string server = "127.0.0.1:7070";
  std::string domain = "default";
  std::string output = "table";
  double retry_s = 30;
  std::optional<std::uint32_t> limit;
  std::string run;
  std::string reference;
  std::vector<std::string> metrics;
  std::vector<std::string> labels;
  ckpt::cli::SaveCommand save;
  ckpt::cli::RestoreCommand restore;
};

using Command = std::function<absl::Status(Context)>;

// Prints what went wrong, and returns the exit code for it.
int Fail(const absl::Status& status) {
  const std::string reason = ckpt::ReasonOf(status);
  std::fflush(stdout);
  std::fprintf(stderr, "ckptctl: %s%s\n", ckpt::cli::Printable(std::string(status.message())).c_str(),
               reason.empty() ? "" : absl::StrCat(" [", reason, "]").c_str());
  return ckpt::cli::ExitCode(status);
}

// The exit code once all is printed. What could not be written earlier is not in stdout's buffer any more.
int Flush() {
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return 0;
  std::fprintf(stderr, "ckptctl: cannot write the result%s%s\n", errno == 0 ? "" : ": ",
               errno == 0 ? "" : std::strerror(errno));
  return 1;
}

// What a command's help ends with.
std::string Example(const std::string& line) {
  return absl::StrCat("Example:\n  ", line,
                      "\n\n--server, --output and the other options of all commands: ckptctl --help");
}

void AddGlobal(CLI::App& app, Options& options) {
  app.add_option("--server", options.server, "HOST:PORT of the ckptd")->envname("CKPT_SERVER")->capture_default_str();
  app.add_option("--domain", options.domain, "Domain to work in")->envname("CKPT_DOMAIN")->capture_default_str();
  app.add_option("--output", options.output, "How results are printed")
      ->check(CLI::IsMember({"table", "json"}))
      ->capture_default_str();
  app.add_option("--retry-s", options.retry_s, "Seconds for which an unreachable server is tried again")
      ->check(CLI::Validator(
          [](const std::string& text) { return text.find_first_of("nN") == text.npos ? "" : text + " is no number"; },
          ""))
      ->check(CLI::Range(0.0, 86400.0))
      ->capture_default_str();
  app.fallthrough();
}

void AddReads(CLI::App& app, Options& options, Command& chosen) {
  CLI::App* runs = app.add_subcommand("runs", "List the runs");
  runs->add_option("--limit", options.limit, "List the first of them only, by name")->check(CLI::Range(1, 1'000'000'000));
  runs->footer(
      Example("ckptctl runs --output json\n  ckptctl runs --limit 1 --retry-s 0   (asks whether a server is there)"));
  runs->callback([&] { chosen = [&](Context context) { return ckpt::cli::Runs(context, options.limit); }; });

  CLI::App* list = app.add_subcommand("list", "List a run's checkpoints");
  list->add_option("RUN", options.run, "The run")->required();
  list->footer(Example("ckptctl list resnet50"));
  list->callback([&] { chosen = [&](Context context) { return ckpt::cli::List(context, options.run); }; });

  CLI::App* show = app.add_subcommand("show", "Show a checkpoint: its metadata, components and tensors");
  show->add_option("REF", options.reference, "The checkpoint")->required();
  show->footer(Example("ckptctl show resnet50:best:val_loss:min"));
  show->callback([&] { chosen = [&](Context context) { return ckpt::cli::Show(context, options.reference); }; });
}

// NAME=VALUE into its two halves.
std::pair<std::string, std::string> Split(const std::string& text) {
  const std::size_t mark = text.find('=');
  return {text.substr(0, mark), text.substr(mark + 1)};
}

std::string CheckPair(const std::string& text) {
  const std::size_t mark = text.find('=');
  return mark == std::string::npos || mark == 0 ? text + " is not NAME=VALUE" : "";
}

std::string CheckMetric(const std::string& text) {
  double value = 0;
  if (std::string wrong = CheckPair(text); !wrong.empty()) return wrong;
  return absl::SimpleAtod(Split(text).second, &value) ? "" : Split(text).second + " is no number";
}

// The metrics and labels, each of which is said once.
void TakePairs(Options& options) {
  for (const std::string& text : options.metrics) {
    const auto [name, number] = Split(text);
    double value = 0;
    (void)absl::SimpleAtod(number, &value);  // CheckMetric has read it
    if (!options.save.metrics.emplace(name, value).second)
      throw CLI::ValidationError("--metric", name + " comes twice");
  }
  for (const std::string& text : options.labels) {
    const auto [key, value] = Split(text);
    if (!options.save.labels.emplace(key, value).second) throw CLI::ValidationError("--label", key + " comes twice");
  }
}

// A whole number, decimal whatever it begins with, as in references. CLI11's own would read 010 as 8 and clamp.
void AddNumber(CLI::App& app, const std::string& name, std::optional<std::int64_t>& out, const std::string& what) {
  const auto read = [&out, name](const std::string& text) {
    std::int64_t number = 0;
    if (!absl::SimpleAtoi(text, &number))
      throw CLI::ValidationError(name, "'" + text + "' is no whole number of 64 bits");
    out = number;
  };
  app.add_option_function<std::string>(name, read, what)->type_name("INT");
}

void AddFormat(CLI::App& app, std::optional<ckpt::FileFormat>& out) {
  const auto read = [&out](const std::string& text) {
    const auto format = kFormats.find(text);
    if (format == kFormats.end())
      throw CLI::ValidationError("--format", "'" + text + "' is no format: pth or safetensors");
    out = format->second;
  };
  app.add_option_function<std::string>("--format", read,
                                       "The file's format, pth or safetensors (default: by its ending)")
      ->type_name("FORMAT");
}

void AddSave(CLI::App& app, Options& options, Command& chosen) {
  CLI::App* save = app.add_subcommand("save", "Save a .pth or .safetensors file as a checkpoint");
  save->add_option("RUN", options.save.run, "The run; made if it is not there")->required();
  save->add_option("FILE", options.save.file, "The file: .pth, .pt, .bin, .ckpt or .safetensors")->required();
  AddNumber(*save, "--epoch", options.save.epoch, "The epoch (default: the file's)");
  AddNumber(*save, "--step", options.save.step, "The step (default: the file's, if it has one)");
  save->add_option("--metric", options.metrics,
                   "NAME=VALUE; besides the numbers at the file's top level, if those are 100 at most")
      ->allow_extra_args(false)
      ->check(CheckMetric);
  save->add_option("--primary-metric", options.save.primary_metric,
                   "NAME, NAME:min or NAME:max: what RUN:best goes by from now on (default: the only metric)");
  AddFormat(*save, options.save.format);
  save->add_option("--label", options.labels, "KEY=VALUE")->allow_extra_args(false)->check(CheckPair);
  save->add_flag_callback(
      "--no-crc", [&] { options.save.check_crc = false; }, "Take a file that was written with torch's CRC turned off");
  save->footer(Example("ckptctl save resnet50 checkpoint.pth --epoch 3 --metric val_acc=0.91 --label git=1f3c2a"));
  save->callback([&] {
    TakePairs(options);
    chosen = [&](Context context) { return ckpt::cli::SaveFile(context, options.save); };
  });
}

void AddRestore(CLI::App& app, Options& options, Command& chosen) {
  CLI::App* restore = app.add_subcommand("restore", "Restore a checkpoint into a file that PyTorch opens");
  restore->add_option("REF", options.restore.reference, "The checkpoint")->required();
  restore->add_option("FILE", options.restore.file, "Where to (default: RUN@EPOCH.pth)");
  restore->add_option("--component", options.restore.components, "Only this top-level part; more than one may be named")
      ->allow_extra_args(false);
  restore->add_option("--include", options.restore.include, "Only what matches this glob, as in '*.weight'")
      ->allow_extra_args(false);
  AddFormat(*restore, options.restore.format);
  restore->add_flag("--force", options.restore.overwrite, "Overwrite an existing file");
  restore->footer(absl::StrCat(
      "Of one component, a .safetensors file leaves the component's name out: fc.weight, not model.fc.weight.\n\n",
      Example("ckptctl restore resnet50:best best.safetensors --component model")));
  restore->callback(
      [&] { chosen = [&](Context context) { return ckpt::cli::RestoreFile(context, options.restore); }; });
}

int Run(const Options& options, const Command& chosen) {
  ckpt::ConnectOptions connect;
  connect.address = options.server;
  connect.domain = options.domain;
  connect.retry_for = std::chrono::milliseconds(static_cast<std::int64_t>(options.retry_s * 1000));
  const absl::StatusOr<std::unique_ptr<ckpt::Client>> client = ckpt::Client::Connect(connect);
  if (!client.ok()) return Fail(client.status());
  const absl::Status status = chosen({**client, options.output == "json"});
  return status.ok() ? Flush() : Fail(status);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Lists, saves and restores the checkpoints of a ckptd", "ckptctl"};
  Options options;
  Command chosen;
  AddGlobal(app, options);
  app.set_version_flag("--version", "ckptctl " CKPT_VERSION);
  app.footer(kExitCodes);
  app.require_subcommand(1);
  AddReads(app, options, chosen);
  AddSave(app, options, chosen);
  AddRestore(app, options, chosen);
  CLI::App* completion = app.add_subcommand("completion", "Print a completion script");
  std::string shell;
  completion->add_option("SHELL", shell, "The shell")->required()->check(CLI::IsMember({"bash"}));
  completion->footer(Example("source <(ckptctl completion bash)"));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (const auto extra = app.remaining();
        error.get_exit_code() != 0 && app.get_subcommands().empty() && !extra.empty()) {
      std::fprintf(stderr, "ckptctl: there is no command '%s'; ckptctl --help lists them\n",
                   ckpt::cli::Printable(extra.front()).c_str());
      return 2;
    }
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (completion->parsed()) {
    std::fputs(ckpt::cli::BashCompletion().c_str(), stdout);
    return Flush();
  }
  return Run(options, chosen);
}
