"""Pages written for a test: `page("text")` reads as a page of the course, in a folder beside real files."""

import pytest
from checks import source


@pytest.fixture
def page(tmp_path):
    def page(text, name="book/bad.md"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return source.read(path, tmp_path)

    return page
