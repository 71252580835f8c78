"""What a workflow takes from others is named by its content: a tag can be moved to other code."""

import re
from pathlib import Path

WORKFLOWS = sorted((Path(__file__).resolve().parents[3] / ".github" / "workflows").glob("*.yml"))
USED = re.compile(r"^\s*(?:- )?uses: *(.+)$", re.MULTILINE)
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v[\d.]+")


def test_every_action_is_named_by_commit_and_says_its_tag() -> None:
    used = [action for path in WORKFLOWS for action in USED.findall(path.read_text(encoding="utf-8"))]
    assert used
    assert [action for action in used if not action.startswith("./") and not PINNED.fullmatch(action)] == []
