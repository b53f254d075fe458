"""Where a certificate or key is kept: in a secret of the mesh, in a file of the control plane, or in the document.

In: documents in Kuma's 2.14 form. Out: `DataSource`, frozen. Never: the content of a secret or a file.
"""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import Field

from kumafast.errors import Violation
from kumafast.resources.fields import Text
from kumafast.resources.resource import Frozen


class DataSource(Frozen):
    """One of these; `inline` is base64."""

    secret: Text = ""
    file: Text = ""
    inline: Text = Field(default="", repr=False)
    inline_string: Text = Field(default="", repr=False)


def check_data_source(path: str, source: DataSource | None) -> Iterator[Violation]:
    """Something has to be named, or nothing said at all."""
    if source is not None and source == DataSource():
        yield Violation(path, "data source cannot be empty")
