"""The page on running a broker, as it stands but for place and port: init, serve, the trust file, its first reader."""

import json

from tests.docs import shell

from casemate.drivers import daemons

PAGE = shell.ROOT / "docs/how-to/broker.md"


def test_the_page_runs_from_init_to_the_log(tmp_path):
    blocks = dict(shell.blocks(PAGE, "sh"))
    begin, operator = blocks[""].rstrip(), blocks["operator"]
    assert begin.endswith("casemate serve --home /srv/casemate")
    address = f"127.0.0.1:{daemons.free_port()}"
    wait = "until casemate trust write first.json --home /srv/casemate 2> /dev/null; do sleep 0.2; done\n"
    ready = f"until curl -ksf https://{address}/readyz > /dev/null; do sleep 0.2; done\n"
    script = f"{begin} --log broker.log &\n{wait}{ready}{operator}"
    for was, now in (
        ("/srv/casemate", "./srv"),
        ("~/casemate-admin.pem", "admin.pem"),
        ("--host 0.0.0.0 --port 8443", f"--host 127.0.0.1 --port {address.split(':')[1]}"),
        ("broker.example:8443", address),
    ):
        assert was in script
        script = script.replace(was, now)
    told = shell.good(shell.run(script, tmp_path, timeout=100))
    assert "NUMBER" in told, told
    assert json.loads((tmp_path / "trust.json").read_text())["broker"]["url"] == f"https://{address}"
