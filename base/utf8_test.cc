#include "base/utf8.h"

#include <gtest/gtest.h>

namespace ckpt {
namespace {

TEST(Utf8, WellFormedTextIsPrintable) {
  for (const std::string text : {"", "abc ~", "caf\xc3\xa9", "\xc2\xa0", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf",
                                 "\xee\x80\x80", "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(IsPrintableUtf8(text)) << text;
    EXPECT_TRUE(IsUtf8(text)) << text;
    EXPECT_EQ(PrintableUtf8(text), text);
  }
}

TEST(Utf8, ControlCharactersAreNotPrintable) {
  for (int c = 0; c < 0x20; ++c) EXPECT_FALSE(IsPrintableUtf8(std::string(1, static_cast<char>(c)))) << c;
  EXPECT_FALSE(IsPrintableUtf8("\x7f"));
  for (int c = 0x80; c < 0xa0; ++c) EXPECT_FALSE(IsPrintableUtf8(std::string{'\xc2', static_cast<char>(c)})) << c;
  EXPECT_TRUE(IsUtf8("\xc2\x9b"));
  EXPECT_TRUE(IsUtf8("a\n\x7f"));
  EXPECT_FALSE(IsPrintableUtf8(std::string("a\0b", 3)));
}

TEST(Utf8, MalformedTextIsNotPrintable) {
  for (const std::string text : {"\x80",                                          // a continuation by itself
                                 "\xbf", "\xc0\x80", "\xc1\xbf",                  // overlong
                                 "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf",              // overlong
                                 "\xed\xa0\x80", "\xed\xbf\xbf",                  // surrogates
                                 "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff",  // beyond U+10FFFF
                                 "\xc3", "\xe2\x82", "\xf0\x9f\x98",              // cut off
                                 "\xc3(", "\xe2(\xac", "\xe2\x82(", "\xf0\x9f\x98("})
    EXPECT_FALSE(IsPrintableUtf8(text)) << PrintableUtf8(text);
}

TEST(Utf8, EachBadByteIsShownAsHex) {
  EXPECT_EQ(PrintableUtf8("a\nb"), "a\\x0ab");
  EXPECT_EQ(PrintableUtf8("\xc2\x9b"), "\\xc2\\x9b") << "CSI as one character";
  EXPECT_EQ(PrintableUtf8("\xc3("), "\\xc3(");
  EXPECT_EQ(PrintableUtf8("\xe2\x82"), "\\xe2\\x82");
  EXPECT_EQ(PrintableUtf8("\xed\xa0\x80\xc3\xa9"), "\\xed\\xa0\\x80\xc3\xa9");
  EXPECT_EQ(PrintableUtf8("\xc3\xa9\x80\xf0\x9f\x98\x80"), "\xc3\xa9\\x80\xf0\x9f\x98\x80");
}

TEST(Utf8, WhatIsShownIsPrintable) {
  for (int a = 0; a < 256; ++a)
    for (int b = 0; b < 256; ++b) {
      const std::string text = {static_cast<char>(a), static_cast<char>(b), '\xbf'};
      ASSERT_TRUE(IsPrintableUtf8(PrintableUtf8(text))) << a << ' ' << b;
    }
}

}  // namespace
}  // namespace ckpt
