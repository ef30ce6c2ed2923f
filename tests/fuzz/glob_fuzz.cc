// Globs over paths, against a matcher of a few lines for those in ASCII without sets and escapes.
// The input is a glob, ended by a NUL, and a path.
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "base/glob.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/oracle.h"

namespace {

// The state's bit i says that the glob's first i characters match the path so far.
bool Matches(std::string_view glob, std::string_view path) {
  std::vector<bool> states(glob.size() + 1);
  const auto skip_stars = [&] {
    for (std::size_t i = 0; i < glob.size(); ++i)
      if (states[i] && glob[i] == '*') states[i + 1] = true;
  };
  states[0] = true;
  skip_stars();
  for (const char c : path) {
    std::vector<bool> next(glob.size() + 1);
    for (std::size_t i = 0; i < glob.size(); ++i) {
      if (!states[i]) continue;
      if (glob[i] == '*') next[i] = true;
      if (glob[i] == '?' || glob[i] == c) next[i + 1] = true;
    }
    states = std::move(next);
    skip_stars();
  }
  return states[glob.size()];
}

}  // namespace

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ckpt::fuzz::Input input(data, size);
  const std::vector<std::string> globs = {std::string(input.Until('\0'))};
  std::string path(input.Rest().substr(0, 4096));
  path.erase(std::remove(path.begin(), path.end(), '\0'), path.end());  // no path has one
  if (!ckpt::CheckGlob(globs[0]).ok()) return 0;
  const bool matches = ckpt::MatchesAnyGlob(path, globs);
  const bool ascii = std::none_of(data, data + size, [](std::uint8_t c) { return c >= 0x80; });
  if (ascii && globs[0].find_first_of("[\\") == std::string::npos)
    ckpt::fuzz::Require(matches == Matches(globs[0], path), "the same paths match");
  return 0;
}
