"""A run's workdir says what made it, and the log when that has changed."""

import json

from evqgan.core import versions


def test_a_run_says_when_it_goes_on_under_other_versions(tmp_path, monkeypatch):
    assert versions.note(tmp_path, 0) == "" == versions.note(tmp_path, 5)
    legs = json.loads((tmp_path / "versions.json").read_text())["legs"]
    assert len(legs) == 1 and legs[0]["step"] == 0 and len(legs[0]["code"]) == 12
    assert all(legs[0][name] for name in ("python", "jax", "flax", "numpy"))
    other = versions.now() | {"jax": "0.99.0", "code": "0" * 12}
    monkeypatch.setattr(versions, "now", lambda: other)
    line = versions.note(tmp_path, 7)
    assert (
        f"jax {legs[0]['jax']}, now 0.99.0" in line
        and f"code {legs[0]['code']}, now 000000000000" in line
    )
    assert versions.note(tmp_path, 9) == ""
    assert [
        leg["step"] for leg in json.loads((tmp_path / "versions.json").read_text())["legs"]
    ] == [0, 7]


def test_a_damaged_record_is_begun_anew(tmp_path):
    for content in ("", "[]", '{"legs": 3}', '{"legs": [3]}', "{}"):
        (tmp_path / "versions.json").write_text(content)
        assert versions.note(tmp_path, 3) == ""
        assert len(json.loads((tmp_path / "versions.json").read_text())["legs"]) == 1


def test_the_hash_is_of_the_code_and_not_of_its_line_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(versions, "PACKAGE", tmp_path)
    (tmp_path / "a.py").write_bytes(b"x = 1\n")
    before = versions.code()
    (tmp_path / "a.py").write_bytes(b"x = 1\r\n")
    assert versions.code() == before
    (tmp_path / "a.py").write_bytes(b"x = 2\n")
    assert versions.code() != before
    assert versions.commit() == ""  # no clone
