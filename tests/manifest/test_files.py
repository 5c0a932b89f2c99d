from __future__ import annotations

from pathlib import Path

import pytest

from interlock.domain.errors import ManifestError
from interlock.manifest.files import parse, read_folder


def _problem(text: str) -> str:
    with pytest.raises(ManifestError) as caught:
        parse("a.yaml", text)
    (problem,) = caught.value.problems
    return str(problem)


def test_values_are_read_by_the_core_schema_of_yaml_1_2() -> None:
    """Words like `yes` and dates are texts; each document and key has its line."""
    one, other = parse("a.yaml", 'a: yes\nb: [1, -2.5, 1e3, true, ~]\n---\nc: {d: "1"}\ne: 1_0\n')

    assert {"a": "yes", "b": [1, -2.5, 1000.0, True, None]} == one.content
    assert {"c": {"d": "1"}, "e": "1_0"} == other.content
    assert {(): 4, ("c",): 4, ("c", "d"): 4, ("e",): 5} == other.lines


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: 1\nb: [1\n", "a.yaml:3: is not YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: 1\nb: 2\na: 3\n", "a.yaml:3: the key `a` is there twice"),
        ("a: &x 1\nb: *x\n", "a.yaml:1: anchors and aliases are not accepted"),
        (
            "a: !!python/name:os.system x\n",
            "a.yaml:1: the tag `tag:yaml.org,2002:python/name:os.system` is not accepted",
        ),
        ("a: !x {b: 1}\n", "a.yaml:1: the tag `!x` is not accepted"),
        ("a: .inf\n", "a.yaml:1: `.inf` is not a finite number"),
        ("a: 1e999\n", "a.yaml:1: `1e999` is not a finite number"),
        (
            "a: 99999999999999999999\n",
            "a.yaml:1: the integer `99999999999999999999` is beyond 2^53",
        ),
        ("1: a\n", "a.yaml:1: the key `1` is not a text"),
        ("<<: {a: 1}\n", "a.yaml:1: the tag `tag:yaml.org,2002:merge` is not accepted"),
        ("- a\n", "a.yaml:1: a project file holds keys with values"),
        ("a: " + "[" * 40 + "]" * 40, "a.yaml:1: is nested deeper than 32 levels"),
        ("%YAML 1.1\n---\na: yes\nb: &c 1\n", "a.yaml:4: anchors and aliases are not accepted"),
    ],
)
def test_what_json_cannot_hold_is_refused(text: str, expected: str) -> None:
    """Broken YAML, duplicates, tags, anchors and strange numbers are named with their line."""
    assert expected == _problem(text)


def test_very_deep_text_is_refused_without_a_crash() -> None:
    """A text nested thousands deep is a problem of the file, not of the process."""
    assert _problem("a: " + "[" * 20_000).startswith("a.yaml")


def test_folder_is_read_by_its_layout(tmp_path: Path) -> None:
    """Files of the known folders count; hidden ones, links and other folders do not."""
    for name in ("project.yaml", "tools/a.yaml", "tools/b/c.yaml", "world/x.yaml", "tools/.d.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a: 1")
    (tmp_path / "tools" / "link.yaml").symlink_to(tmp_path / "world" / "x.yaml")
    (tmp_path / "policies" / "tests").mkdir(parents=True)
    (tmp_path / "policies" / "tests" / "t.yaml").write_text("")

    assert ["project.yaml", "tools/a.yaml", "tools/b/c.yaml"] == sorted(read_folder(tmp_path))


def test_folder_without_project_file_is_refused(tmp_path: Path) -> None:
    """A wrong folder is told from an empty project."""
    with pytest.raises(ManifestError, match="has no project file"):
        read_folder(tmp_path)


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    """Bytes that are not UTF-8, and files over the limit, are named."""
    (tmp_path / "project.yaml").write_bytes(b"\xff")
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "big.yaml").write_bytes(b"#" * (1024 * 1024 + 1))

    with pytest.raises(ManifestError) as caught:
        read_folder(tmp_path)

    assert ["project.yaml", "tools/big.yaml"] == [p.path for p in caught.value.problems]
