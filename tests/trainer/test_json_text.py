"""JSON of a run folder: what is read back is what was written, and a matrix takes a line a row."""

import json

from sightline_training.run.json_text import json_text


def test_rows_of_numbers_stand_on_one_line_and_nothing_else_changes() -> None:
    content = {
        "matrix": [[1, 0, -2], [3.5, 1e-07, 2e30]],
        "text": "[\n  1,\n  2\n]",
        "texts": ["1", "[ 1,"],
        "mixed": [1, "2", None, [], {}],
        "flags": [True, False],
        "one": [7],
    }
    text = json_text(content)
    assert json.loads(text) == content
    lines = text.splitlines()
    assert "    [1, 0, -2]," in lines
    assert "    [3.5, 1e-07, 2e+30]" in lines
    assert '  "one": [7]' in lines
