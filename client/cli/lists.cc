// ckptctl runs, ckptctl list.
#include <algorithm>
#include <cstdint>
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
constexpr std::uint64_t kAll = UINT64_MAX;

// Calls each(item) for the first `limit` items, over as many pages as it takes: fetch(next, size of the page).
template <typename T>
absl::Status ForEach(std::uint64_t limit,
                     const std::function<absl::StatusOr<Page<T>>(const std::string&, std::uint32_t)>& fetch,
                     const std::function<void(const T&)>& each) {
  std::string next;
  do {
    absl::StatusOr<Page<T>> page = fetch(next, static_cast<std::uint32_t>(std::min<std::uint64_t>(limit, kPage)));
    if (!page.ok()) return page.status();
    for (const T& item : page->items) {
      if (limit == 0) break;
      each(item);
      --limit;
    }
    next = std::move(page->next);
  } while (!next.empty() && limit > 0);
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

absl::Status Runs(Context context, std::optional<std::uint32_t> limit) {
  Json json = Json::array();
  using enum Table::Align;
  Table table({{"RUN", kLeft},
               {"CHECKPOINTS", kRight},
               {"LATEST EPOCH", kRight},
               {"BEST", kLeft},
               {"LOGICAL", kRight},
               {"STORED", kRight},
               {"LAST UPDATE", kLeft}});
  const absl::Status status = ForEach<v1::Run>(
      limit.has_value() ? *limit : kAll,
      [&](const std::string& next, std::uint32_t size) { return context.client.ListRuns(next, size); },
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
  const absl::Status status = ForEach<v1::Checkpoint>(
      kAll,
      [&](const std::string& next, std::uint32_t size) { return context.client.ListCheckpoints(run, next, size); },
      [&](const v1::Checkpoint& checkpoint) {
        if (context.json) {
          json.push_back(CheckpointJson(checkpoint));
          return;
        }
        table.Add({absl::StrCat(checkpoint.epoch()), absl::StrCat(checkpoint.version()),
                   checkpoint.has_step() ? absl::StrCat(checkpoint.step()) : "-", Metrics(checkpoint), Tags(checkpoint),
                   HumanBytes(checkpoint.logical_bytes()), HumanBytes(checkpoint.new_bytes()),
                   Time(checkpoint.create_time())});
      });
  if (!status.ok()) return status;
  Print(context.json ? Dump(json) + "\n" : table.Text());
  return absl::OkStatus();
}

}  // namespace ckpt::cli
