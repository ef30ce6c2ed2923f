"""The snippets of docs/python.md, as they stand there."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_tutorial_runs(client, capsys):
    text = (ROOT / "docs/python.md").read_text()
    snippets = re.findall(r"^<!-- run -->\n```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert len(snippets) == len(re.findall(r"^```python$", text, re.MULTILINE)) == 8
    names: dict[str, object] = {}
    for snippet in snippets:
        exec(compile(snippet, "docs/python.md", "exec"), names)
    out = capsys.readouterr().out.splitlines()
    reference, new, sent, _ = out[0].split()
    assert reference == "resnet@4#1" and int(sent) == 0 and int(new) < 1000
    assert "7" in out and out[-1].endswith("CHECKPOINT_NOT_FOUND")
    report = re.search(r"^```\n(trainer@8.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert client.checkpoint("sharded:latest").metrics["val_acc"] == 0.93
    assert report and report[1] in "\n".join(out)
