// Globs over paths: '*' stands for any characters, '?' for one, '[…]' for one of a set ("[a-z_]"; "[!0-9]": of all but
// it), and '\' takes the next character as it is. A dot is a character like any other. Characters are those of UTF-8,
// whatever the process's locale is: client and server choose the same.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"

namespace ckpt {

// InvalidArgument for a glob that is longer than 256 bytes or has more than 8 '*' (matching takes time in both).
absl::Status CheckGlob(std::string_view glob);

// True if the path matches one of the globs, each of which CheckGlob takes.
bool MatchesAnyGlob(const std::string& path, std::span<const std::string> globs);

}  // namespace ckpt
