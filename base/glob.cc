#include "base/glob.h"

#include <algorithm>
#include <cstdint>
#include <optional>

#include "base/status.h"

namespace ckpt {
namespace {

// The character at `at`, which moves behind it: its bytes as one number, which order as code points do.
std::uint32_t Take(std::string_view text, std::size_t& at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  const std::size_t length = lead < 0xc0 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
  std::uint32_t character = 0;
  for (const std::size_t end = std::min(text.size(), at + length); at < end; ++at)
    character = character << 8 | static_cast<unsigned char>(text[at]);
  return character;
}

// The same, where '\' takes the next one as it is.
std::uint32_t TakeEscaped(std::string_view glob, std::size_t& at) {
  if (glob[at] == '\\' && at + 1 < glob.size()) ++at;
  return Take(glob, at);
}

// Whether the set whose '[' is before `at` has the character; `at` moves behind its ']'. nullopt if it never closes.
// `last_close` is where the glob's last ']' is.
std::optional<bool> InSet(std::string_view glob, std::size_t last_close, std::size_t& at, std::uint32_t character) {
  const bool negated = at < glob.size() && (glob[at] == '!' || glob[at] == '^');
  if (negated) ++at;
  if (last_close == glob.npos || last_close <= at) return std::nullopt;
  bool found = false;
  for (bool first = true; at < glob.size(); first = false) {
    if (glob[at] == ']' && !first) {
      ++at;
      return found != negated;
    }
    const std::uint32_t low = TakeEscaped(glob, at);
    std::uint32_t high = low;
    if (at + 1 < glob.size() && glob[at] == '-' && glob[at + 1] != ']') high = TakeEscaped(glob, ++at);
    found |= low <= character && character <= high;
  }
  return std::nullopt;
}

// Whether what is at `at`, no '*', stands for the character; `at` moves behind it.
bool StandsFor(std::string_view glob, std::size_t last_close, std::size_t& at, std::uint32_t character) {
  if (glob[at] == '?') {
    ++at;
    return true;
  }
  if (glob[at] == '[') {
    std::size_t end = at + 1;
    if (const auto in_set = InSet(glob, last_close, end, character); in_set.has_value()) {
      at = end;
      return *in_set;
    }
  }
  return TakeEscaped(glob, at) == character;
}

// Only the last '*' is ever tried again, with one character more: what is before it cannot match better.
bool Matches(std::string_view glob, std::string_view path) {
  const std::size_t last_close = glob.rfind(']');
  std::size_t g = 0;
  std::size_t p = 0;
  std::size_t behind_star = glob.npos;
  std::size_t star_ends = 0;  // in the path
  while (p < path.size()) {
    if (g < glob.size() && glob[g] == '*') {
      behind_star = ++g;
      star_ends = p;
      continue;
    }
    std::size_t next = p;
    if (g < glob.size() && StandsFor(glob, last_close, g, Take(path, next))) {
      p = next;
      continue;
    }
    if (behind_star == glob.npos) return false;
    g = behind_star;
    Take(path, star_ends);
    p = star_ends;
  }
  return glob.find_first_not_of('*', g) == glob.npos;
}

}  // namespace

absl::Status CheckGlob(std::string_view glob) {
  if (glob.size() <= 256 && std::count(glob.begin(), glob.end(), '*') <= 8 && glob.find('\0') == glob.npos)
    return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument, "BAD_GLOB",
                   "a glob may have 256 bytes and 8 '*' at most; use several");
}

bool MatchesAnyGlob(const std::string& path, std::span<const std::string> globs) {
  return std::any_of(globs.begin(), globs.end(), [&](const std::string& glob) { return Matches(glob, path); });
}

}  // namespace ckpt
