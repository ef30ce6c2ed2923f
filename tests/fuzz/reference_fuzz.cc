// References to checkpoints, and the names of runs, domains, metrics and labels: just those of their grammar are taken.
// The input is a reference, a run and a domain, each ended by a NUL, and a SaveBegin.
#include <algorithm>
#include <string>
#include <string_view>

#include "absl/strings/str_cat.h"
#include "base/utf8.h"
#include "ckpt/v1/service.pb.h"
#include "storage/names.h"
#include "storage/reference.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/oracle.h"
#include "tests/fuzz/parse_message.h"

namespace {

using ckpt::fuzz::Require;
using ckpt::storage::Reference;

bool IsName(std::string_view name, std::string_view also, std::size_t longest) {
  const auto is_alnum = [](char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
  };
  return !name.empty() && name.size() <= longest && is_alnum(name[0]) &&
         std::all_of(name.begin(), name.end(), [&](char c) { return is_alnum(c) || also.find(c) != also.npos; });
}

bool IsRunName(std::string_view name) {
  return IsName(name, "._/-", 200) && name.find("..") == name.npos && name.find("//") == name.npos;
}

// As people would write it.
std::string Format(const Reference& reference) {
  switch (reference.kind) {
    case Reference::Kind::kEpoch:
      return absl::StrCat(reference.run, "@", reference.epoch,
                          reference.version.has_value() ? absl::StrCat("#", *reference.version) : "");
    case Reference::Kind::kLatest: return absl::StrCat(reference.run, ":latest");
    case Reference::Kind::kTag: return absl::StrCat(reference.run, ":", reference.tag);
    case Reference::Kind::kBest: break;
  }
  std::string text = absl::StrCat(reference.run, ":best");
  if (!reference.metric.empty()) absl::StrAppend(&text, ":", reference.metric);
  if (reference.lower_is_better.has_value()) absl::StrAppend(&text, *reference.lower_is_better ? ":min" : ":max");
  return text;
}

void CheckReference(std::string_view text) {
  const auto reference = ckpt::storage::ParseReference(text);
  if (!reference.ok()) {
    Require(ckpt::IsPrintableUtf8(std::string(reference.status().message())), "errors can be printed");
    return;
  }
  Require(IsRunName(reference->run), "a reference's run is a run's name");
  Require(ckpt::IsPrintableUtf8(text), "a reference can be printed");
  Require(reference->version.value_or(1) != 0, "versions count from 1");
  // Leading zeros are the one freedom that numbers have.
  const std::string canonical = Format(*reference);
  if (reference->kind != Reference::Kind::kEpoch || text.find('0') == text.npos)
    Require(canonical == text, "a reference means what is written");
  const auto again = ckpt::storage::ParseReference(canonical);
  Require(again.ok() && Format(*again) == canonical, "the same reference");
}

template <typename List, typename NameOf>
void RequireSorted(const List& list, NameOf name_of) {
  Require(list.size() <= 100, "at most 100 entries");
  for (int i = 1; i < list.size(); ++i)
    Require(name_of(list[i - 1]) < name_of(list[i]), "entries in order, none twice");
}

void CheckEntries(std::string_view message) {
  ckpt::v1::SaveBegin begin;
  if (!ckpt::fuzz::ParseMessage(message, begin)) return;
  if (ckpt::storage::CheckAndSort(*begin.mutable_metrics()).ok())
    RequireSorted(begin.metrics(), [](const auto& metric) { return metric.name(); });
  if (ckpt::storage::CheckAndSort(*begin.mutable_labels()).ok())
    RequireSorted(begin.labels(), [](const auto& label) { return label.key(); });
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ckpt::fuzz::Input input(data, size);
  CheckReference(input.Until('\0'));
  const std::string_view run = input.Until('\0');
  Require(ckpt::storage::CheckRunName(run).ok() == IsRunName(run), "just the names of the grammar are runs'");
  const std::string_view domain = input.Until('\0');
  Require(ckpt::storage::CheckDomain(domain).ok() == IsName(domain, "._-", 64), "just those are domains'");
  CheckEntries(input.Rest());
  return 0;
}
