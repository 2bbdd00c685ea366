"""Markdown tables: every line is as long as the others, and each cell is read back."""

import doctest

from hypothesis import given
from hypothesis import strategies as st

from relay_verl import markdown
from relay_verl.markdown import MIN_WIDTH, markdown_table

CELLS = st.text("ab é\n\t", max_size=9)


def test_the_example() -> None:
    assert doctest.testmod(markdown) == (0, 1)


@given(head=st.lists(CELLS, min_size=1, max_size=5), data=st.data())
def test_every_cell_is_read_back(head: list[str], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.lists(CELLS, max_size=len(head)), max_size=4))
    num_labels = data.draw(st.integers(0, len(head)))
    lines = markdown_table(head, rows, num_labels=num_labels).split("\n")
    assert len(lines) == 2 + len(rows) and len({len(line) for line in lines}) == 1
    read = [[cell.strip() for cell in line[1:-1].split("|")] for line in lines]
    expected = [[" ".join(cell.split()) for cell in row] + [""] * (len(head) - len(row)) for row in (head, *rows)]
    assert [read[0], *read[2:]] == expected
    assert [cell.startswith(":") for cell in read[1]] == [i < num_labels for i in range(len(head))]
    assert all(len(cell) >= MIN_WIDTH for cell in read[1])
