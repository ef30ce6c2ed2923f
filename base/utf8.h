// UTF-8 of names that come from outside.
#pragma once

#include <string>
#include <string_view>

namespace ckpt {

// True for well-formed UTF-8.
bool IsUtf8(std::string_view text);

// True for well-formed UTF-8 without control characters (U+0000 to U+001F, U+007F to U+009F).
bool IsPrintableUtf8(std::string_view text);

// The text with each byte that is a control character or no well-formed UTF-8 as \xNN.
std::string PrintableUtf8(std::string_view text);

}  // namespace ckpt
