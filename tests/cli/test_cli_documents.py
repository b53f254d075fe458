"""Reading files: documents, scalars as kumactl reads them, variables, and what cannot be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kumafast.cli import documents
from kumafast.cli.failure import CommandError
from kumafast.cli.output import Format, formatted


def read(text: str) -> list[Any]:
    return [document.content for document in documents.parse_documents(text, source="f.yaml")]


# What go-yaml 2, kumactl's library, makes of plain scalars.
@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", True),
        ("On", True),
        ("TRUE", True),
        ("y", True),
        ("no", False),
        ("off", False),
        ("N", False),
        ("yEs", "yEs"),
        ("'yes'", "yes"),
        ("~", None),
        ("null", None),
        ("", None),
        ("2026-01-02", "2026-01-02"),
        ("2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z"),
        ("12:30:45", "12:30:45"),
        ("10.0.0.1", "10.0.0.1"),
        ("1.2", 1.2),
        ("12", 12),
        ("+12", 12),
        ("-12", -12),
        ("1_000", 1000),
        ("010", 8),
        ("08", 8),
        ("0x1F", 31),
        ("-0x10", -16),
        ("0b101", 5),
        ("0o17", 15),
        ("1e3", 1000),
        (".5", 0.5),
        ("5m", "5m"),
        ("v1", "v1"),
        (".inf", ".inf"),
        ("!!timestamp 2026-01-02", "2026-01-02"),
    ],
)
def test_plain_scalars_are_read_as_kumactl_reads_them(text: str, value: object) -> None:
    found = read(f"key: {text}\n")[0]["key"]
    assert found == value
    assert type(found) is type(value)


def test_keys_are_text_whatever_they_look_like() -> None:
    assert read("y: 1\non: 2\n8080: 3\nnull: 4\n") == [{"y": 1, "on": 2, "8080": 3, "null": 4}]


def test_empty_documents_are_counted_and_left_out() -> None:
    found = documents.parse_documents("---\n---\na: 1\n---\n---\nb: 2\n", source="f.yaml")
    assert [(document.number, document.content) for document in found] == [(2, {"a": 1}), (4, {"b": 2})]
    assert found[1].place == "f.yaml, document 4"


def test_merged_mappings_give_way_to_own_keys() -> None:
    assert read("a: &a {x: 1, y: 2}\nb:\n  y: 3\n  <<: *a\n")[0]["b"] == {"x": 1, "y": 3}


def test_json_with_tabs_is_read() -> None:
    assert read('{\n\t"type": "Mesh",\n\t"on": true, "port": 80, "rate": 1.5, "none": null\n}') == [
        {"type": "Mesh", "on": True, "port": 80, "rate": 1.5, "none": None}
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "f.yaml, document 1: line 2, column 1: the key 'a' is there twice"),
        ('{"a": 1, "a": 2}', "f.yaml, document 1: the key 'a' is there twice"),
        ("a: 1\n---\n- 1\n", "f.yaml, document 2: must be a mapping, not a list"),
        ("just text", "f.yaml, document 1: must be a mapping, not a str"),
        ("a: 1\n---\nb: [1\n", "f.yaml, document 2: line 4, column 1"),
        ("a: b: c", "f.yaml, document 1: line 1, column 5: mapping values are not allowed in this context"),
        ("a: !!binary aGk=", "cannot read a value of kind tag:yaml.org,2002:binary"),
        ("a: !!python/object/apply:os.getcwd []", "cannot read a value of kind tag:yaml.org,2002:python/object"),
        ("a: &a [*a]", "found unconstructable recursive node"),
        ("a: 1e999", "1e999 is too big a number"),
        ('{"a": NaN}', "NaN is not a number that JSON knows"),
        ("name: {{ zone }}", "a key must be text (is a variable missing, -v zone=…?)"),
        ("a: \x01", "document 1"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_place(text: str, message: str) -> None:
    with pytest.raises(CommandError) as caught:
        read(text)
    assert message in str(caught.value)


def test_variables_replace_placeholders_and_nothing_else() -> None:
    text = 'name: {{name}}-{{ n }}\ntemplate: "{{ .DisplayName }}.mesh & <more>"\n'
    assert documents.render(text, {"name": "a&b", "n": "1"}) == (
        'name: a&b-1\ntemplate: "{{ .DisplayName }}.mesh & <more>"\n'
    )
    assert documents.render(text, {}) == text


def test_a_placeholder_without_a_variable_is_an_error() -> None:
    with pytest.raises(CommandError, match=r"no value for \{\{n\}\}; give -v n=…, -v other=…"):
        documents.render("{{name}} {{n}} {{other}}", {"name": "x"})


@pytest.mark.parametrize("pair", ["name", "=x", ""])
def test_a_variable_needs_a_name_and_a_value(pair: str) -> None:
    with pytest.raises(CommandError, match="key=value"):
        documents.parse_variables([pair])
    assert documents.parse_variables(["a=b=c", "d="]) == {"a": "b=c", "d": ""}


def test_directories_are_read_with_all_below_them_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name, text in (("z.json", '{"n": 3}'), ("a.yaml", "n: 1"), ("b/c.yml", "n: 2"), ("b/notes.txt", "n: 9")):
        (tmp_path / name).write_text(text)
    found = documents.read_documents([str(tmp_path)], variables={})
    assert [document.content["n"] for document in found] == [1, 2, 3]


def test_every_source_that_cannot_be_read_is_listed(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: [")
    (tmp_path / "b.yaml").write_text("b: 1")
    (tmp_path / "c.yaml").write_text("c: {")
    with pytest.raises(CommandError) as caught:
        documents.read_documents([str(tmp_path)], variables={})
    assert [line.split(",")[0].rpartition("/")[2] for line in caught.value.details] == ["a.yaml", "c.yaml"]


def test_missing_and_binary_files_and_empty_directories_are_errors(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "empty").mkdir()
    for path, message in (
        ("none.yaml", "No such file"),
        ("x.yaml", "is not UTF-8 text"),
        ("empty", "there is no .yaml"),
    ):
        with pytest.raises(CommandError, match=message):
            documents.read_documents([str(tmp_path / path)], variables={})


def test_what_is_printed_as_yaml_is_read_as_the_same() -> None:
    value = {"y": "y", "n": ["no", "NO", "8080", "1e3", "0x1", "~", "2026-01-02", "12:30:45"], "port": 80, "on": True}
    value |= {"text": "ä: {b}", "none": None, "version": "1.0", "long": "word " * 60}
    assert read(formatted(value, Format.YAML)) == [value]
