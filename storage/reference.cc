#include "storage/reference.h"

#include <type_traits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/status.h"
#include "base/utf8.h"
#include "storage/names.h"

namespace ckpt::storage {
namespace {

absl::Status Bad(std::string_view text) {
  return MakeError(absl::StatusCode::kInvalidArgument, "BAD_REFERENCE",
                   absl::StrCat("'", PrintableUtf8(text.substr(0, 300)),
                                "' names no checkpoint; use RUN@EPOCH, RUN@EPOCH#VERSION, RUN:latest, RUN:best, "
                                "RUN:best:METRIC, RUN:best:METRIC:min, RUN:best:METRIC:max or RUN:TAG"));
}

absl::string_view View(std::string_view s) { return {s.data(), s.size()}; }

// Digits only, after a sign where one may stand: SimpleAtoi takes spaces and '+' as well.
template <typename Number>
bool ParseNumber(std::string_view text, Number& number) {
  const std::string_view digits = std::is_signed_v<Number> && text.starts_with('-') ? text.substr(1) : text;
  return digits.find_first_not_of("0123456789") == digits.npos && absl::SimpleAtoi(View(text), &number);
}

}  // namespace

absl::StatusOr<Reference> ParseReference(std::string_view text) {
  Reference out;
  const std::size_t mark = text.find_first_of("@:");
  if (mark == text.npos) return Bad(text);
  out.run = std::string(text.substr(0, mark));
  CKPT_RETURN_IF_ERROR(CheckRunName(out.run));
  std::string_view rest = text.substr(mark + 1);
  if (text[mark] == '@') {
    out.kind = Reference::Kind::kEpoch;
    if (const std::size_t hash = rest.find('#'); hash != rest.npos) {
      std::uint64_t version = 0;
      if (!ParseNumber(rest.substr(hash + 1), version) || version == 0) return Bad(text);
      out.version = version;
      rest = rest.substr(0, hash);
    }
    if (!ParseNumber(rest, out.epoch)) return Bad(text);
    return out;
  }
  if (rest == "latest") return out;
  if (rest == "best" || absl::StartsWith(View(rest), "best:")) {
    out.kind = Reference::Kind::kBest;
    if (rest == "best") return out;
    std::optional<Ranking> ranking = ParseRanking(rest.substr(5));
    if (!ranking.has_value()) return Bad(text);
    out.metric = std::move(ranking->metric);
    out.lower_is_better = ranking->lower_is_better;
    return out;
  }
  if (rest.empty() || rest.find(':') != rest.npos || !IsPrintableUtf8(rest)) return Bad(text);
  out.kind = Reference::Kind::kTag;
  out.tag = std::string(rest);
  return out;
}

std::optional<Ranking> ParseRanking(std::string_view text) {
  Ranking out;
  if (const std::size_t colon = text.rfind(':'); colon != text.npos) {
    const std::string_view order = text.substr(colon + 1);
    if (order != "min" && order != "max") return std::nullopt;
    out.lower_is_better = order == "min";
    text = text.substr(0, colon);
  }
  if (text.empty() || text.find(':') != text.npos || !IsPrintableUtf8(text)) return std::nullopt;
  out.metric = std::string(text);
  return out;
}

bool LowerIsBetter(std::string_view metric) { return absl::EndsWith(View(metric), "loss"); }

}  // namespace ckpt::storage
