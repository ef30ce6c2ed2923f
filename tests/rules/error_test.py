"""docs/errors.md lists every reason that the code gives an error, with its code, and no other."""

import re
import unittest

import tracked

DOCUMENT = "docs/errors.md"
CALL = re.compile(r"\bMakeError\(\s*absl::StatusCode::k(\w+),\s*\"([A-Z][A-Z0-9_]*)\"")
# A reason that has a name in the code, because programs look for it.
NAMED = re.compile(r"\bconstexpr char (k\w+)\[\] = \"([A-Z][A-Z0-9_]*)\"")
NAMED_CALL = re.compile(r"\bMakeError\(\s*absl::StatusCode::k(\w+),\s*(k[A-Z]\w*)")
# Given through a function of the file's own: known by its look. CKPT_… are environment variables, F8_… element types.
LITERAL = re.compile(r"\"(?!CKPT_|F8_)([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)\"")
ROW = re.compile(r"^\| `([A-Z][A-Z0-9_]*)` \| ([A-Z_, ]+) \| [^|]*\w[^|]* \| [^|]*\w[^|]* \|$", re.MULTILINE)
# Where MakeError is defined, and where an error that came over the wire is made again.
EXEMPT = re.compile(r"base/status\.(h|cc)|(server|client)/grpc_status\.(h|cc)|.*_test\.cc|tests/.*")


def upper(code):
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", code).upper()


def given():
    """{reason: {codes that are given next to it}} of the code."""
    reasons = {}
    texts = [tracked.read(path) for path in tracked.files("*.cc", "*.h") if not EXEMPT.fullmatch(path)]
    names = {name: reason for text in texts for name, reason in NAMED.findall(text)}
    for text in texts:
        calls = CALL.findall(text) + [(code, names[name]) for code, name in NAMED_CALL.findall(text)]
        for code, reason in calls:
            reasons.setdefault(reason, set()).add(upper(code))
        for reason in LITERAL.findall(text):
            reasons.setdefault(reason, set())
    return reasons


def documented():
    return {reason: set(codes.split(", ")) for reason, codes in ROW.findall(tracked.read(DOCUMENT))}


PYTHON_REASON = re.compile(r"\"([A-Z][A-Z_]{5,})\"(?=\s*[),])")
PYTHON_ROW = re.compile(r"^\| `([A-Z][A-Z0-9_]*)` \| `(\w+)` \| [^|]*\w[^|]* \| [^|]*\w[^|]* \|$", re.MULTILINE)


class PythonErrorRules(unittest.TestCase):
    def test_every_reason_is_documented_and_every_documented_one_is_given(self):
        given_here = {reason for path in tracked.files("client/python/ckptd/*.py")
                      for reason in PYTHON_REASON.findall(tracked.read(path)) if not reason.startswith("CKPT_")}
        here = {reason for reason, _ in PYTHON_ROW.findall(tracked.read(DOCUMENT))}
        self.assertEqual(given_here - here - set(documented()), set())
        self.assertEqual(here - given_here, set())


class ErrorRules(unittest.TestCase):
    def test_every_reason_is_documented_with_its_codes(self):
        self.assertTrue(given())
        for reason, codes in given().items():
            self.assertTrue(reason in documented(), f"add {reason} to {DOCUMENT}")
            self.assertLessEqual(codes, documented()[reason], f"{reason}: {DOCUMENT} says another code")

    def test_every_documented_reason_is_given(self):
        self.assertEqual(sorted(set(documented()) - set(given())), [])

    def test_reasons_stand_in_order_and_once(self):
        reasons = [reason for reason, _ in ROW.findall(tracked.read(DOCUMENT))]
        self.assertEqual(reasons, sorted(set(reasons)))


if __name__ == "__main__":
    unittest.main()
