"""Which plain YAML scalars are not text.

In: nothing. Out: resolvers for a YAML loader or dumper, after go-yaml 2, kumactl's library. Never: YAML 1.1's times and
sixties: `2026-01-02` and `12:30:45` are text.
"""

from __future__ import annotations

import re
from typing import Any

_WORDS = [
    form for word in ("yes", "true", "on", "no", "false", "off") for form in (word, word.capitalize(), word.upper())
]
_WHOLE = r"0x[0-9a-fA-F_]+|0b[01_]+|0o[0-7_]+|[0-9][0-9_]*"
_DECIMAL = r"(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
_KINDS = (
    ("bool", f"y|Y|n|N|{'|'.join(_WORDS)}", "yYtToOnNfF"),
    ("null", "~|null|Null|NULL", "~nN"),
    ("null", "", ("",)),
    ("int", f"[-+]?(?:{_WHOLE}|{_DECIMAL})", "-+.0123456789"),
    ("merge", "<<", "<"),
)


def add_resolvers(kind: Any) -> None:
    """Teach a class of PyYAML's loaders, or of its dumpers, which plain scalars are booleans, nulls and numbers."""
    for name, pattern, first in _KINDS:
        kind.add_implicit_resolver(f"tag:yaml.org,2002:{name}", re.compile(f"^(?:{pattern})$"), list(first))
