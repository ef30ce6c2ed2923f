#include "storage/names.h"

#include <algorithm>
#include <cstddef>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/utf8.h"

namespace ckpt::storage {
namespace {

constexpr int kMaxEntries = 100;
constexpr std::size_t kMaxEntryName = 200;
constexpr std::size_t kMaxLabelValue = 4096;

// A name from outside as an error message can show it.
std::string Shown(std::string_view name) {
  std::string text = PrintableUtf8(name.substr(0, 80));
  if (name.size() > 80) text += "…";
  return text;
}

bool Matches(std::string_view name, std::size_t max_size, std::string_view also) {
  return !name.empty() && name.size() <= max_size && absl::ascii_isalnum(static_cast<unsigned char>(name[0])) &&
         std::all_of(name.begin(), name.end(), [&](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) || also.find(c) != also.npos;
         });
}

absl::Status BadName(std::string_view what, std::string_view name, std::string_view rule) {
  return MakeError(absl::StatusCode::kInvalidArgument, "BAD_NAME",
                   absl::StrCat("'", Shown(name), "' is no name for a ", absl::string_view(what.data(), what.size()),
                                ": ", absl::string_view(rule.data(), rule.size())));
}

// Checks the names of a list of metrics or labels and sorts it by them.
template <typename List, typename NameOf>
absl::Status CheckEntries(List& list, std::string_view what, char banned, NameOf name_of) {
  if (list.size() > kMaxEntries)
    return MakeError(absl::StatusCode::kInvalidArgument, "TOO_MANY_ENTRIES",
                     absl::StrCat("a checkpoint may have ", kMaxEntries, " ",
                                  absl::string_view(what.data(), what.size()), "s at most, not ", list.size()));
  for (const auto& entry : list) {
    const std::string& name = name_of(entry);
    if (name.empty() || name.size() > kMaxEntryName || !IsPrintableUtf8(name) || name.find(banned) != name.npos)
      return BadName(what, name,
                     absl::StrCat("it takes 1 to ", kMaxEntryName, " bytes of UTF-8 without control characters and '",
                                  std::string(1, banned), "'"));
  }
  std::sort(list.begin(), list.end(), [&](const auto& a, const auto& b) { return name_of(a) < name_of(b); });
  for (int i = 1; i < list.size(); ++i)
    if (name_of(list[i]) == name_of(list[i - 1])) return BadName(what, name_of(list[i]), "it stands twice");
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckRunName(std::string_view name) {
  if (Matches(name, 200, "._/-") && name.find("..") == name.npos && name.find("//") == name.npos)
    return absl::OkStatus();
  return BadName("run", name,
                 "use 1 to 200 of A-Z a-z 0-9 . _ / - starting with a letter or digit, without '..' and '//'");
}

absl::Status CheckDomain(std::string_view name) {
  if (Matches(name, 64, "._-")) return absl::OkStatus();
  return BadName("domain", name, "use 1 to 64 of A-Z a-z 0-9 . _ - starting with a letter or digit");
}

absl::Status CheckAndSort(google::protobuf::RepeatedPtrField<v1::Metric>& metrics) {
  return CheckEntries(metrics, "metric", ':', [](const v1::Metric& m) -> const std::string& { return m.name(); });
}

absl::Status CheckAndSort(google::protobuf::RepeatedPtrField<v1::Label>& labels) {
  for (const v1::Label& label : labels)
    if (label.value().size() > kMaxLabelValue)
      return MakeError(
          absl::StatusCode::kInvalidArgument, "TOO_LARGE",
          absl::StrCat("the value of label '", Shown(label.key()), "' is longer than ", kMaxLabelValue, " bytes"));
  return CheckEntries(labels, "label", '=', [](const v1::Label& l) -> const std::string& { return l.key(); });
}

}  // namespace ckpt::storage
