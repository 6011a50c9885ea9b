"""docs/config_keys.md is what the constructors say, and says something of every key."""

from document_makers import ROOT, maker


def test_the_list_of_keys_is_that_of_the_code():
    made = maker("config_keys").listing()
    assert (ROOT / "docs" / "config_keys.md").read_text() == made, (
        "python -m docs.make.config_keys docs/config_keys.md makes it again"
    )
    empty = [line for line in made.splitlines() if line.endswith("|  |")]
    assert not empty, "these keys have no meaning in a docstring or a comment"
    sections = [section.splitlines() for section in made.split("\n### ")]
    said = [[line.split(" | ", 3)[-1] for line in lines if line[:3] == "| `"] for lines in sections]
    twice = [text for texts in said for text in set(texts) if texts.count(text) > 1]
    assert not twice, "of several keys of a section: give each a meaning of its own"
    keys = {line.split("`")[1] for line in made.splitlines() if line.startswith("| `")}
    assert {"learning_rate", "global_tokens", "batch_size", "choice_temperature"} <= keys
    assert not {"parent", "name", "run", "devices", "codebook"} - {"name"} & keys


def test_meanings_are_read_from_docstrings_and_comments():
    keys = maker("config_keys")
    said = keys.documented("A head.\n\na, b: of both,\n  and more.\nc: one\n\nRaises: nothing")
    assert said == {"a": "of both, and more.", "b": "of both, and more.", "c": "one"} | {
        "Raises": "nothing"
    }
    source = (
        "class A:\n    # Two\n    # lines.\n    a: int = 1\n    b: int = 2  # one\n    c: int\n"
    )
    assert keys.commented(source) == {"a": "Two lines.", "b": "one"}
    assert keys.commented("class A:\n    width: int = 2  # ours\n") == {
        "width": keys.COMMON["width"] + "; ours"
    }
