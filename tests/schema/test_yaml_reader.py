"""YAML: plain data, line numbers, and every trick of the format refused."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from casemate.errors import Malformed
from casemate.schema import yaml_reader

TEXT = """\
# a comment
name: no
mode: 0400
quoted: '0400'
list:
  - a: 1
    b: 0x10
  - ~
  - [1.5, -2, 1e3, true]
block: |
  two
  lines
date: 2001-01-01
time: 1:30
"""


def test_plain_data_by_the_core_schema():
    assert yaml_reader.load(TEXT).document == {
        "name": "no",
        "mode": 400,
        "quoted": "0400",
        "list": [{"a": 1, "b": 16}, None, [1.5, -2, 1000.0, True]],
        "block": "two\nlines\n",
        "date": "2001-01-01",
        "time": "1:30",
    }


def test_lines():
    lines = yaml_reader.load(TEXT).lines
    assert lines["name"] == 2
    assert lines["list"] == 5
    assert lines["list[0].b"] == 7
    assert lines["list[2][3]"] == 9
    assert not [path for path in lines if "<" in path]


BAD = {
    "empty": ("", 0),
    "only a comment": ("# nothing", 0),
    "anchor": ("a: &x 1", 1),
    "alias": ("b: *x", 1),
    "bomb": ("a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]", 1),
    "merge": ("a: 1\n<<: {b: 1}", 2),
    "python tag": ("a: 1\nb: !!python/object/apply:os.system [x]", 2),
    "own tag": ("!thing {}", 1),
    "standard tag": ("a: !!str 1", 1),
    "twice": ("a: 1\nb: 2\na: 3", 3),
    "two documents": ("a: 1\n---\nb: 1", 2),
    "number as a key": ("80: x", 1),
    "list as a key": ("[a]: x", 1),
    "null as a key": ("~: x", 1),
    "deep": ("[" * 40, 1),
    "very deep": ("[" * 20_000, 1),
    "syntax": ("a: b: c", 1),
    "tab": ("a:\n\t- b", 2),
    "control character": ("a: \x01", 0),
    "huge number": ("a: 99999999999999999999", 1),
    "infinity": ("a: .inf", 1),
    "not a number": ("a: .nan", 1),
    "directive": ("%YAML 9.9\n---\na: 1", 0),
}


@pytest.mark.parametrize(("text", "line"), BAD.values(), ids=BAD)
def test_refused_with_the_line(text, line):
    with pytest.raises(Malformed) as caught:
        yaml_reader.load(text)
    if line:
        assert [p.line for p in caught.value.problems] == [line]
        assert f"line {line}" in str(caught.value)


def test_bounds():
    with pytest.raises(Malformed, match="at most"):
        yaml_reader.load("#" * (yaml_reader.MAX_BYTES + 1))
    with pytest.raises(Malformed, match="values"):
        yaml_reader.load("[" + "1," * (yaml_reader.MAX_NODES + 1) + "]")
    with pytest.raises(Malformed, match="UTF-8"):
        yaml_reader.load(b"\xff\xfe\xff")


@given(st.text(max_size=80) | st.binary(max_size=80))
def test_any_text_gives_data_or_malformed(text):
    try:
        yaml_reader.load(text)
    except Malformed:
        return


WORDS = st.text(max_size=10)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


class Quoting(yaml.SafeDumper):
    """Quotes all text: the writer's idea of a plain scalar is YAML 1.1's."""

    def ignore_aliases(self, data):
        return True


Quoting.add_representer(str, lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"'))


@given(st.dictionaries(WORDS.filter(lambda key: key != "<<"), PLAIN, max_size=4))
def test_what_a_yaml_writer_makes_is_read_back(value):
    text = yaml.dump(value, Dumper=Quoting)
    assert yaml_reader.load(text).document == value
