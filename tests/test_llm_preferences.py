"""Readers of preference data: what they read, and which line of which file they refuse."""

from __future__ import annotations

import gzip
import json

import pytest

from jaxpref import DataError, InputError
from jaxpref.llm.preferences import preferences_from_rows, read_preferences

ASK = [{"role": "user", "content": "Tea or milk?"}]


def message(content):
    return [{"role": "assistant", "content": content}]


GOOD = [
    ({"prompt": "P", "chosen": "a", "rejected": "b"}, ("P", ("a", "b"))),
    ({"prompt": "P", "responses": ["a", "b", "c"]}, ("P", ("a", "b", "c"))),
    (
        {"prompt": ASK, "chosen": message("Tea."), "rejected": message("Milk.")},
        (tuple(ASK), ("Tea.", "Milk.")),
    ),
    (
        {"prompt": ASK, "responses": [message("x"), message("y"), message("z")]},
        (tuple(ASK), ("x", "y", "z")),
    ),
    (
        {"chosen": ASK + message("Tea."), "rejected": ASK + message("Milk.")},
        (tuple(ASK), ("Tea.", "Milk.")),
    ),
    (
        {
            "chosen": "\n\nHuman: A\n\nAssistant: B\n\nHuman: C\n\nAssistant: D",
            "rejected": "\n\nHuman: A\n\nAssistant: B\n\nHuman: C\n\nAssistant: E",
        },
        ("\n\nHuman: A\n\nAssistant: B\n\nHuman: C\n\nAssistant:", (" D", " E")),
    ),
    ({"input": "I", "output_1": "a", "output_2": "b", "label": 1}, ("I", ("a", "b"))),
    ({"input": "I", "output_1": "a", "output_2": "b", "label": 2}, ("I", ("b", "a"))),
]


@pytest.mark.parametrize(("row", "expected"), GOOD)
@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.jsonl.gz", "x.json.gz"])
def test_every_layout_is_told_apart_and_read(tmp_path, name, row, expected):
    text = json.dumps(row if "jsonl" in name else [row])
    file = tmp_path / name
    file.write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    found = read_preferences(file)
    assert len(found.records) == 1 and found.dropped == ()
    record = found.records[0]
    assert (record.prompt, record.responses) == expected
    assert (record.chosen, record.rejected) == (expected[1][0], expected[1][-1])
    place = "item 1" if name.removesuffix(".gz").endswith(".json") else "line 1"
    assert record.source == f"{file}: {place}"


def test_blank_lines_count_as_lines_and_a_byte_order_mark_is_no_text(tmp_path):
    file = tmp_path / "x.jsonl"
    rows = [json.dumps({"prompt": "P", "chosen": c, "rejected": "no"}) for c in "ab"]
    file.write_text(f"\ufeff{rows[0]}\n\n{rows[1]}\n", encoding="utf-8")
    assert [r.source[-6:] for r in read_preferences(file).records] == ["line 1", "line 3"]


def test_a_directory_is_read_file_by_file_each_with_its_own_layout(tmp_path):
    (tmp_path / "b.jsonl").write_text(json.dumps(GOOD[0][0]))
    (tmp_path / "a.json").write_text(json.dumps([GOOD[6][0], GOOD[7][0]]))
    (tmp_path / "README.md").write_text("not data")
    assert [r.prompt for r in read_preferences(tmp_path).records] == ["I", "I", "P"]


TRL = {"prompt": "P", "chosen": "a", "rejected": "b"}
MALFORMED = [
    ({"prompt": "P", "chosen": "a"}, "expected the key 'rejected'; got 'prompt', 'chosen'"),
    (TRL | {"chosen": 3}, "chosen: expected a string; got a number"),
    (TRL | {"prompt": None}, "prompt: expected a string or a list of messages; got null"),
    (TRL | {"prompt": []}, "prompt: expected at least one message; got none"),
    (TRL | {"prompt": [{"role": "user"}]}, r"prompt\[0\]: expected a message"),
    (TRL | {"prompt": ASK}, "chosen: expected messages, as in the prompt; got a string"),
    (
        {"prompt": ASK, "chosen": ASK, "rejected": message("x")},
        "chosen: expected one message, the assistant's; got user",
    ),
    ({"prompt": "P", "responses": ["a"]}, "responses: expected a list of two or more; got 1"),
    ({"prompt": "P", "responses": ["a", 2]}, r"responses\[1\]: expected a string; got a number"),
    ({"input": "I", "output_1": "a", "output_2": "b"}, "expected the key 'label'"),
    (
        {"input": "I", "output_1": "a", "output_2": "b", "label": 3},
        "label: expected 1 or 2; got 3",
    ),
    ({"question": "Q"}, "cannot tell the layout; .* got 'question'"),
    ([1], "expected a JSON object; got a list"),
]


@pytest.mark.parametrize(("row", "says"), MALFORMED)
def test_a_malformed_record_is_refused_with_its_file_and_line(tmp_path, row, says):
    for policy in (None, "drop", "error"):  # never silently dropped
        file = tmp_path / "x.jsonl"
        file.write_text(json.dumps(row))
        with pytest.raises(DataError, match=f"x.jsonl: line 1: {says}"):
            read_preferences(file, unusable=policy)


def test_the_line_named_is_the_one_that_is_wrong(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text("\n".join([json.dumps(TRL), json.dumps(TRL), json.dumps(MALFORMED[0][0])]))
    with pytest.raises(DataError, match="line 3"):
        read_preferences(file)
    file.write_text(json.dumps(TRL) + "\n{oops\n")
    with pytest.raises(DataError, match="x.jsonl: line 2: not JSON"):
        read_preferences(file)


HH = {"chosen": "\n\nHuman: A\n\nAssistant: B", "rejected": "\n\nHuman: A\n\nAssistant: C"}
SAYS_NOTHING = [
    (TRL | {"rejected": "a"}, "equal responses"),
    (TRL | {"chosen": " \n"}, "an empty response"),
    ({"prompt": "P", "responses": ["a", "b", "a"]}, "equal responses"),
    (
        {"chosen": ASK + message("a"), "rejected": message("b")},
        "conversations that differ before the last message",
    ),
    (HH | {"rejected": HH["chosen"]}, "equal responses"),
    (HH | {"rejected": "\n\nHuman: A\n\nAssistant:"}, "an empty response"),
    (
        HH | {"rejected": "\n\nHuman: Z\n\nAssistant: C"},
        "dialogues that differ before the last answer",
    ),
    (HH | {"rejected": HH["rejected"] + "\n\nHuman: D"}, "a dialogue that ends with the human"),
]


@pytest.mark.parametrize(("row", "reason"), SAYS_NOTHING)
def test_a_record_that_says_nothing_is_dropped_with_a_count_or_refused(tmp_path, row, reason):
    is_hh = "\n\nAssistant:" in row.get("chosen", "")
    good = HH if is_hh else TRL
    file = tmp_path / "x.jsonl"
    file.write_text("\n".join(map(json.dumps, [good, row, good])))
    found = read_preferences(file, unusable="drop")
    assert len(found.records) == 2 and found.drops() == {reason: 1}
    assert found.dropped[0].source == f"{file}: line 2"
    with pytest.raises(DataError, match=f"line 2: {reason}"):
        read_preferences(file, unusable="error")
    if is_hh:
        assert read_preferences(file) == found
    else:
        with pytest.raises(DataError, match="line 2"):
            read_preferences(file)


def test_nothing_left_nothing_there_and_nothing_readable(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_preferences(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="expected files ending in .jsonl"):
        read_preferences(tmp_path)
    file = tmp_path / "x.jsonl"
    file.write_text("")
    with pytest.raises(DataError, match="no record can be used .there are none"):
        read_preferences(file)
    file.write_text(json.dumps(HH | {"rejected": HH["chosen"]}))
    with pytest.raises(DataError, match="1 x equal responses"):
        read_preferences(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="x.jsonl: expected text in UTF-8"):
        read_preferences(file)
    file.write_bytes(gzip.compress(json.dumps(TRL).encode() * 1000)[:-20])
    with pytest.raises(DataError, match="x.jsonl: damaged or cut short"):
        read_preferences(file)
    single = tmp_path / "y.json"
    single.write_text(json.dumps(TRL))
    with pytest.raises(DataError, match="y.json: expected a JSON list"):
        read_preferences(single)


def test_options_are_checked():
    with pytest.raises(InputError, match="format: .*'hh'"):
        preferences_from_rows([TRL], format="hhh")
    with pytest.raises(InputError, match="unusable"):
        preferences_from_rows([TRL], unusable="ignore")


@pytest.mark.shared_data
def test_hh_rlhf_itself(shared_data):
    found = read_preferences(shared_data / "hh_rlhf")
    assert len(found.records) + len(found.dropped) == 8552
    assert found.drops() == {
        "equal responses": 36,
        "an empty response": 11,
        "dialogues that differ before the last answer": 17,
        "a dialogue that ends with the human": 2,
    }
    for record in found.records[:500]:
        prompt = str(record.prompt)
        assert prompt.startswith("\n\nHuman:") and prompt.endswith("\n\nAssistant:")
        assert all("\n\nAssistant:" not in response for response in record.responses)


@pytest.mark.shared_data
def test_llmbar_itself(shared_data):
    found = read_preferences(shared_data / "llmbar")
    assert len(found.records) == 419 and not found.dropped
