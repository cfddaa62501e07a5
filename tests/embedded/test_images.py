"""What is read of a Dockerfile."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedded.aws.images import BadDockerfile, read_dockerfile


@pytest.mark.parametrize(
    ("line", "place", "source"),
    [
        ("COPY a.py /opt/code/", "/opt/code/a.py", "a.py"),
        ("COPY a.py /opt/b.py", "/opt/b.py", "a.py"),
        ("COPY a.py .", "/srv/a.py", "a.py"),
        ("COPY folder /opt/code/", "/opt/code/c.py", "folder/c.py"),
        ("COPY a.py folder/c.py /opt", "/opt/c.py", "folder/c.py"),
        ('COPY ["a.py", "/opt/a b.py"]', "/opt/a b.py", "a.py"),
        ("COPY --chown=1:1 --link a.py /opt/a.py", "/opt/a.py", "a.py"),
        ("COPY --from=builder a.py /opt/a.py", "/opt/a.py", None),
        ("COPY --chown=1:1 --from=builder a.py /opt/a.py", "/opt/a.py", None),
    ],
)
def test_a_copied_file_is_found_in_the_checkout(line: str, place: str, source: str | None, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for name in ("a.py", "folder/c.py"):
        (tmp_path / name).touch()
    image = read_dockerfile(f"FROM base\nWORKDIR /srv\n{line}\n", tmp_path)
    assert image.file(place) == (source and tmp_path / source)


def test_variables_are_read_in_both_forms(tmp_path: Path) -> None:
    image = read_dockerfile('FROM base\nENV A=1 B="two words"\nENV C three words\nENV PATH=/opt:$PATH\n', tmp_path)
    assert image.environ == {"A": "1", "B": "two words", "C": "three words"}


def test_a_variable_made_of_others_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(BadDockerfile, match=r"ENV HERE=\$BASE/a: write out the value of HERE"):
        read_dockerfile("FROM base\nENV HERE=$BASE/a\n", tmp_path)
