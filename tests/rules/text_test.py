"""Lengths, names, and words that tracked files must not have."""

import re
import unittest

import tracked

MAX_LINES = 600
SOURCES = ("*.cc", "*.h", "*.py", "*.proto", "*.sh", "*.cmake", "*CMakeLists.txt", "dev")

# Unfinished work. gRPC has a use of its own for the last word.
UNFINISHED = re.compile(r"\b(TO" r"DO|FIX" r"ME|X" r"XX|HA" r"CK|place" r"holder|not (yet )?imple" r"mented)\b|"
                        r"\b(a|just|only) st" r"ub\b|\bst" r"ubbed\b", re.IGNORECASE)
# Places that only one machine has, and where packages come from.
PLACES = re.compile(r"(?<![\w.}])/(wo" r"rk|fa" r"rm)/|/tmp/(w" r"t|stu" r"dio)\b|\.lib" r"rary\b|"
                    r"\b(deb\.debian|py" r"pi|docker|registry\.npmjs)\.(org|io)\b", re.IGNORECASE)
VAGUE = re.compile(r"(^|[/_])(util|utils|helper|helpers|common|misc|manager)([/_.]|$)")


class TextRules(unittest.TestCase):
    def assert_no_line(self, matches, patterns=()):
        for path in tracked.files(*patterns):
            for number, line in enumerate(tracked.read(path).splitlines(), 1):
                if matches(line):
                    self.fail(f"{path}:{number}: {line.strip()}")

    def test_no_source_is_too_long(self):
        for path in tracked.files(*SOURCES):
            lines = len(tracked.read(path).splitlines())
            self.assertLessEqual(lines, MAX_LINES, f"{path}: split it by what its parts do")

    def test_nothing_is_left_unfinished(self):
        self.assert_no_line(UNFINISHED.search, SOURCES)

    def test_no_place_of_one_machine_is_named(self):
        self.assert_no_line(PLACES.search)

    def test_files_are_named_for_what_they_do(self):
        self.assertEqual([path for path in tracked.files() if VAGUE.search(path)], [])

    def test_catches_the_words(self):
        for line in ("// TO" "DO: later", "// fix" "me", "return 0;  // just a st" "ub", "throw not imple" "mented"):
            self.assertTrue(UNFINISHED.search(line), line)
        for line in ("auto stub = v1::CheckpointService::NewStub(channel);", "stub_->Save(&context)", "// stubborn"):
            self.assertFalse(UNFINISHED.search(line), line)
        for line in ("see /wo" "rk/main", "cd /tmp/w" "t/x", "https://py" "pi.org/simple"):
            self.assertTrue(PLACES.search(line), line)
        for line in ("build/wo" "rk/x", "${dir}/wo" "rk/x", "https://pytorch.org"):
            self.assertFalse(PLACES.search(line), line)
        self.assertTrue(VAGUE.search("base/string_utils.h"))
        self.assertFalse(VAGUE.search("base/state_walk.h"))


if __name__ == "__main__":
    unittest.main()
