// ckptctl runs, ckptctl list.
#include <cstdio>
#include <functional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cli/commands.h"
#include "client/cli/json.h"
#include "client/cli/text.h"

namespace ckpt::cli {
namespace {

constexpr std::uint32_t kPage = 1000;

// Calls each(item) for all items of all pages.
template <typename T>
absl::Status ForAll(const std::function<absl::StatusOr<Page<T>>(const std::string&)>& fetch,
                    const std::function<void(const T&)>& each) {
  std::string next;
  do {
    absl::StatusOr<Page<T>> page = fetch(next);
    if (!page.ok()) return page.status();
    for (const T& item : page->items) each(item);
    next = std::move(page->next);
  } while (!next.empty());
  return absl::OkStatus();
}

void Print(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

std::string Metrics(const v1::Checkpoint& checkpoint) {
  std::string out;
  for (const v1::Metric& metric : checkpoint.metrics())
    absl::StrAppend(&out, out.empty() ? "" : " ", metric.name(), "=", Number(metric.value()));
  return out;
}

std::string Tags(const v1::Checkpoint& checkpoint) {
  std::string out;
  for (const std::string& tag : checkpoint.tags()) absl::StrAppend(&out, out.empty() ? "" : " ", tag);
  return out;
}

}  // namespace

absl::Status Runs(Context context) {
  Json json = Json::array();
  using enum Table::Align;
  Table table({{"RUN", kLeft},
               {"CHECKPOINTS", kRight},
               {"LATEST EPOCH", kRight},
               {"BEST", kLeft},
               {"LOGICAL", kRight},
               {"STORED", kRight},
               {"LAST UPDATE", kLeft}});
  const absl::Status status = ForAll<v1::Run>(
      [&](const std::string& next) { return context.client.ListRuns(next, kPage); },
      [&](const v1::Run& run) {
        if (context.json) {
          json.push_back(RunJson(run));
          return;
        }
        const std::string best = run.has_best() ? absl::StrCat(run.best().metric(), " ", Number(run.best().value()),
                                                               " @", run.best().epoch())
                                                : "-";
        table.Add({run.name(), absl::StrCat(run.checkpoint_count()), absl::StrCat(run.latest_epoch()), best,
                   HumanBytes(run.logical_bytes()), HumanBytes(run.stored_bytes()), Time(run.update_time())});
      });
  if (!status.ok()) return status;
  Print(context.json ? Dump(json) + "\n" : table.Text());
  return absl::OkStatus();
}

absl::Status List(Context context, const std::string& run) {
  Json json = Json::array();
  using enum Table::Align;
  Table table({{"EPOCH", kRight},
               {"VERSION", kRight},
               {"STEP", kRight},
               {"METRICS", kLeft},
               {"TAGS", kLeft},
               {"LOGICAL", kRight},
               {"NEW", kRight},
               {"CREATED", kLeft}});
  const absl::Status status =
      ForAll<v1::Checkpoint>([&](const std::string& next) { return context.client.ListCheckpoints(run, next, kPage); },
                             [&](const v1::Checkpoint& checkpoint) {
                               if (context.json) {
                                 json.push_back(CheckpointJson(checkpoint));
                                 return;
                               }
                               table.Add({absl::StrCat(checkpoint.epoch()), absl::StrCat(checkpoint.version()),
                                          checkpoint.has_step() ? absl::StrCat(checkpoint.step()) : "-",
                                          Metrics(checkpoint), Tags(checkpoint), HumanBytes(checkpoint.logical_bytes()),
                                          HumanBytes(checkpoint.new_bytes()), Time(checkpoint.create_time())});
                             });
  if (!status.ok()) return status;
  Print(context.json ? Dump(json) + "\n" : table.Text());
  return absl::OkStatus();
}

}  // namespace ckpt::cli
