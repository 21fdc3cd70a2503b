"""Text files that people give: UTF-8 with or without a byte order mark, JSON one value a line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labkit.errors import LabkitError


def read_text(path: Path) -> str:
    """Return the file's text without a byte order mark and with plain line ends.

    Raises `LabkitError` where the file cannot be read or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise LabkitError(f"Cannot read {path}: {error.strerror or error}.") from None
    except UnicodeDecodeError as error:
        raise LabkitError(f"{path} is not UTF-8 text (byte {error.start}).") from None


def json_lines(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the number (from 1) and the value of each line that is not blank.

    Only a line feed ends a line: JSON may hold U+2028 and the like as they are. Raises
    `LabkitError` naming the line that is not JSON or holds text that is not Unicode.
    """
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise LabkitError(f"{path}, line {number}: half of a character pair.") from None
        except (ValueError, RecursionError) as error:
            reason = getattr(error, "msg", None) or "nested too deeply or a number too long"
            raise LabkitError(f"{path}, line {number}: not JSON ({reason}).") from None
        yield number, value
