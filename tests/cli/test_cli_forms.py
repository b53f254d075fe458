"""Documents of Kuma's users, of its first version and of 2.14, as they stand in `tests/forms`: applied unchanged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.cli.running import Run
from typer.testing import CliRunner, Result

from kumafast.cli.main import app
from kumafast.resources import catalog

FORMS = Path(__file__).parent.parent / "forms"
WARNED = {
    "2-dataplanes.yaml": ["networking.outbound[0].servicePort: unknown field, ignored"],
    "4-client.yaml": ["networking.outbound[0].servicePort: unknown field, ignored"],
    "3-secure.yaml": ["logging.accessLogs: it is the backend", "rules: each of the 2 rules is a permission of its own"],
    "external-service.yaml": ["networking.tls: without caCert any certificate is taken"],
}
FIRST, QUICK_START, TODAY = FORMS / "0.1.0", FORMS / "quick-start", FORMS / "2.14"


@pytest.fixture(scope="module")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    run = Run(tmp_path_factory.mktemp("forms"), "--store", "memory")
    yield run
    run.stop()


@pytest.fixture(scope="module")
def applied(control_plane: Run) -> Run:
    """The control plane when all documents have been applied to it, whichever test comes first."""
    for directory in (FIRST, QUICK_START, TODAY):
        for path in sorted(directory.iterdir()):
            outcome = kumafast(control_plane, "apply", "-f", str(path))
            assert outcome.exit_code == 0, outcome.stderr
    return control_plane


def kumafast(run: Run, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["--api", run.api, *arguments])


def lines(*paths: Path) -> list[str]:
    documents = [document for path in paths for document in yaml.safe_load_all(path.read_text())]
    return [f"{document['type']} {document['name']}" for document in documents]


def test_all_kinds_with_sources_or_selectors_have_a_form() -> None:
    """A kind of that family that comes has to come with one."""
    named = {line.split()[0] for line in lines(*TODAY.iterdir())}
    kinds = {kind.name for kind in catalog.POLICY_TYPES if kind.policy is not None and not kind.policy.is_target_ref}
    assert kinds <= named
    assert {"Mesh", "Dataplane"} <= named


@pytest.mark.parametrize("directory", [FIRST, QUICK_START, TODAY], ids=lambda directory: str(directory.name))
def test_documents_are_applied_as_they_are(control_plane: Run, directory: Path) -> None:
    paths = sorted(directory.iterdir())
    for path in paths:
        foreseen = kumafast(control_plane, "diff", "-f", str(path))
        assert foreseen.exit_code == 0, foreseen.stderr
        warnings = WARNED.get(path.name, [])
        assert [warning for warning in warnings if warning not in foreseen.stderr] == []
        assert foreseen.stderr.count("\n") == len(warnings), foreseen.stderr
        applied = kumafast(control_plane, "apply", "--wait", "-f", str(path))
        assert (applied.exit_code, applied.stderr) == (0, foreseen.stderr), path.name
        told = applied.stdout.splitlines()[:-1]
        assert [line.rpartition(" ")[0] for line in told] == lines(path)
        # What was foreseen has come.
        for line in told:
            what, _, outcome = line.rpartition(" ")
            foretold = "would not change" if outcome == "unchanged" else f"would be {outcome}"
            assert f"{what} {foretold}" in foreseen.stdout.splitlines()
        again = kumafast(control_plane, "apply", "-f", str(path))
        assert all(line.endswith(" unchanged") for line in again.stdout.splitlines()), again.stdout


def test_they_are_there_by_all_their_names(applied: Run) -> None:
    for path in (*FIRST.iterdir(), *QUICK_START.iterdir(), *TODAY.iterdir()):
        for line in lines(path):
            kind, name = line.split()
            shown = kumafast(applied, "get", kind, name, "-o", "yaml")
            assert shown.exit_code == 0, line
            assert yaml.safe_load(shown.stdout)["name"] == name


def test_the_first_version_s_forms_are_todays(applied: Run) -> None:
    dataplane = yaml.safe_load(kumafast(applied, "get", "dataplane", "cart-1", "-o", "yaml").stdout)
    [inbound] = dataplane["networking"]["inbound"]
    assert (dataplane["networking"]["address"], inbound["port"], inbound["servicePort"]) == ("127.0.0.1", 19000, 18080)
    assert inbound["tags"]["kuma.io/service"] == "cart"
    assert dataplane["networking"]["outbound"][0]["port"] == 16379
