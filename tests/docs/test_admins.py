"""The how-to on admins and tenants runs as it stands."""

from tests.docs import shell

from casemate.drivers import daemons

PAGE = shell.ROOT / "docs/how-to/admins-and-tenants.md"
PORT = "18443"


def test_the_page_runs_as_it_stands(tmp_path):
    done = shell.run(shell.script(PAGE).replace(PORT, str(daemons.free_port())), tmp_path, timeout=120)
    shell.good(done)
    for told in ("key#acme/ann", "key#acme/bea", "approved and carried out", "https://vault.example", "next"):
        assert told in done.stdout, told
    assert "waits for a second owner" in done.stderr
    assert "another owner than who asked" in done.stderr
