"""docs/tour.ipynb: its commands are understood, its links lead, and (slow) it runs from the top."""

import ast
import json
import pathlib
import re

import pytest

from evqgan import main

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOK = json.loads((ROOT / "docs" / "tour.ipynb").read_text())


def cells(kind):
    """The texts of the cells of a kind, "code" or "markdown"."""
    return ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == kind]


def test_its_commands_are_understood(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = cells("code")
    names = {}
    exec(code[0], names)
    calls = [
        node
        for text in code[1:]
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "run"
    ]
    assert len(calls) > 1
    for call in calls:
        main.parse([str(eval(compile(ast.Expression(x), "", "eval"), names)) for x in call.args])


def test_its_links_lead_and_its_pictures_are_there():
    links = re.findall(r"\]\(([^)]+)\)", "\n".join(cells("markdown")))
    assert links and all((ROOT / "docs" / link).is_file() for link in links)
    pictures = [
        cell["source"]
        for cell in NOTEBOOK["cells"]
        for made in cell.get("outputs", ())
        if "image/png" in made.get("data", {})
    ]
    assert len(pictures) >= 8


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"display": lambda picture: None}  # Jupyter's
    for text in cells("code"):
        exec(text, names)
    assert (tmp_path / "workdirs" / "tour" / "digits" / "evaluation.json").is_file()
