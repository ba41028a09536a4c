"""The console in a real Chromium: signing in by keyboard, a refusal with its reason, markup that stays text."""

import pytest

from casemate.testing import programs
from casemate.testing.browser import Browser

from .conftest import EVIL, admin_of, token

pytestmark = [pytest.mark.tools, pytest.mark.timeout(300)]
PAGES = ("apps", "decisions", "trust", "log", "simulate")
# What a screen reader needs of every page: a language, one first heading, names for all controls, captions for tables.
LACKS = """(() => {
  const lacks = [];
  if (document.documentElement.lang !== "en") lacks.push("language");
  if (document.querySelectorAll("h1").length !== 1) lacks.push("one h1");
  if (!document.title) lacks.push("title");
  if (!document.querySelector("main")) lacks.push("main");
  for (const one of document.querySelectorAll("input:not([type=hidden]), select, textarea"))
    if (!one.labels.length) lacks.push("label of " + one.name);
  for (const one of document.querySelectorAll("table")) {
    if (!one.caption) lacks.push("caption");
    if ([...one.querySelectorAll("th")].some(cell => !cell.scope)) lacks.push("scope");
  }
  const ids = [...document.querySelectorAll("[id]")].map(one => one.id);
  if (new Set(ids).size !== ids.length) lacks.push("ids that occur once");
  const light = text => {
    const parts = text.match(/[\\d.]+/g).slice(0, 3).map(n => n / 255)
      .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const ground = one => {
    for (; one; one = one.parentElement) {
      const found = getComputedStyle(one).backgroundColor;
      if (found !== "rgba(0, 0, 0, 0)") return found;
    }
    return getComputedStyle(document.body).backgroundColor;
  };
  for (const one of document.querySelectorAll("main *, header *")) {
    if (!one.innerText) continue;
    const [a, b] = [light(getComputedStyle(one).color), light(ground(one))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) lacks.push("contrast of " + one.tagName + " " + one.className);
  }
  return lacks;
})()"""


@pytest.fixture
def browser(tmp_path):
    try:
        programs.find("chromium")
    except programs.Missing as missing:
        pytest.skip(str(missing))
    made = Browser(tmp_path)
    yield made
    made.close()


def enter(browser, service, shown):
    """Sign in as people do who use no mouse."""
    browser.go(f"{service.url}/console")
    assert browser.run("location.pathname") == "/console/login"
    for _ in range(2):  # the link that skips to the content, then the token
        browser.press("Tab", 9)
    assert browser.run("document.activeElement.id") == "token"
    browser.type(shown)
    browser.submit("document.querySelector('main button').click()")
    assert browser.run("location.pathname") == "/console/apps"


def test_signing_in_and_seeing_why(service, browser):
    enter(browser, service, service.admin.token())
    assert "web" in browser.text
    assert "shop" in browser.text
    assert browser.run("document.cookie") == ""
    browser.submit("[...document.querySelectorAll('nav a')].find(a => a.innerText === 'Decisions').click()")
    assert "release.active" in browser.text
    browser.run("document.getElementById('allowed').value = 'no'")
    browser.submit("document.querySelector('form.filter button').click()")
    assert browser.run("location.search").endswith("allowed=no")
    assert "release.active" in browser.text
    for page in PAGES:
        browser.go(f"{service.url}/console/{page}")
        for scheme in ("light", "dark"):
            browser.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
            assert browser.run(LACKS) == [], (page, scheme)
        assert browser.run("document.querySelector('nav a[aria-current]').href").endswith(page)
    assert browser.errors == []
    assert {url.split("/")[2] for url in browser.requests if not url.startswith("about:")} == {service.url[8:]}


def test_markup_of_others_is_text(service, browser):
    enter(browser, service, service.admin.token())
    browser.go(f"{service.url}/console/decisions")
    assert EVIL in browser.text
    assert browser.run("document.title") == "Decisions - Casemate"
    assert browser.run("document.querySelectorAll('script, img').length") == 0
    assert browser.errors == []
    # Even a script that got in would not run.
    browser.run(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = 1'}))"
    )
    assert browser.run("window.ran === undefined")
    assert "Content Security Policy" in browser.errors[0]


def test_another_tenants_admin_does_not_see_it(service, browser):
    enter(browser, service, token(admin_of(service, "umbrella", "auditor", "bob").key))
    told = browser.text
    for page in PAGES:
        browser.go(f"{service.url}/console/{page}")
        told += browser.text
    assert "shop" in told
    assert "release.active" in told
    for word in ("acme", "evil.rule", service.acme.app_id, service.acme.path):
        assert word not in told, word


def test_a_policy_is_simulated_and_one_signs_out(service, browser):
    enter(browser, service, service.admin.token())
    browser.go(f"{service.url}/console/simulate")
    browser.submit("document.querySelector('form.filter button').click()")
    assert "package policy" in browser.run("document.getElementById('text').value")
    worse = 'package policy\\nimport rego.v1\\ntrust_claims := {"executables": 96}\\n'
    browser.run(f"document.getElementById('text').value = '{worse}'")
    browser.run("document.getElementById('policy').value = 'attestation/default_cpu'")
    browser.submit("document.querySelector('form.stack button').click()")
    assert "attestations replayed" in browser.text
    assert "contraindicated" in browser.text
    assert browser.run(LACKS) == []
    browser.submit("document.querySelector('form.who button').click()")
    assert browser.run("location.pathname") == "/console/login"
    browser.go(f"{service.url}/console/apps")
    assert browser.run("location.pathname") == "/console/login"
    assert browser.errors == []
