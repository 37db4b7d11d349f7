"""The page in a real browser, opened from disk: nothing asked for, nothing complained of, nothing cut off."""

import pytest

from fer_jax import report
from tests.browsing import MISSING, browsing

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)

HOSTILE = ('</style><script>document.title="taken"</script>', '"><img src=x onerror="document.title=1">', 'W' * 60)
REQUESTS = 'return performance.getEntriesByType("resource").map((entry) => entry.name.slice(0, 30))'
OVERFLOW = 'return document.documentElement.scrollWidth - document.documentElement.clientWidth'
# WCAG 2.2, 1.4.3: what is read against what lies under it, 4.5 to 1; blends of transparent backgrounds included.
CONTRAST = """
const parts = (c) => { const m = c.match(/[\\d.]+/g).map(Number); return m.length < 4 ? [...m, 1] : m; };
const light = (c) => { const [r, g, b] = c.map((v) => { v /= 255; return v <= .04045 ? v / 12.92 :
  ((v + .055) / 1.055) ** 2.4; }); return .2126 * r + .7152 * g + .0722 * b; };
const under = (e) => { if (!e) return [255, 255, 255]; const c = parts(getComputedStyle(e).backgroundColor);
  if (c[3] === 0) return under(e.parentElement);
  const below = c[3] === 1 ? c : under(e.parentElement);
  return [0, 1, 2].map((i) => c[3] * c[i] + (1 - c[3]) * below[i]); };
let worst = [99, ''];
for (const e of document.querySelectorAll('body *')) {
  const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
  if (!own || !e.getClientRects().length || ['title', 'desc'].includes(e.tagName)) continue;
  const style = getComputedStyle(e), svg = e instanceof SVGElement;
  const [a, b] = [light(parts(svg ? style.fill : style.color)), light(under(e))].sort((x, y) => y - x);
  const ratio = (a + .05) / (b + .05);
  if (ratio < worst[0]) worst = [ratio, e.tagName + ' ' + e.className + ' ' + e.textContent.slice(0, 40)];
}
return worst;
"""


@pytest.fixture(scope='module')
def browser():
    with browsing() as browser:
        yield browser


def look(browser, width, scheme):
    browser.devtools(
        'Emulation.setDeviceMetricsOverride', width=width, height=900, deviceScaleFactor=1, mobile=width < 500
    )
    browser.devtools('Emulation.setEmulatedMedia', features=[{'name': 'prefers-color-scheme', 'value': scheme}])


@pytest.fixture
def page(make_workdir, make_folds, tmp_path):
    workdirs = [make_workdir('one'), make_workdir('two' * 20, seed=2, rate=0.2), make_workdir('odd', names=HOSTILE)]
    output = tmp_path / 'page.html'
    names = ','.join(map(str, [*workdirs, make_folds()]))
    assert report.main([names, f'--output={output}', '--files-only']) == 0
    return output


def test_it_opens_from_disk_and_asks_for_nothing(browser, page):
    look(browser, 1280, 'light')
    browser.open(f'file://{page}')
    assert browser.log() == []
    assert [name for name in browser.do(REQUESTS) if not name.startswith('data:image/')] == []
    assert browser.do('return document.title').startswith('fer_jax: A one, B twotwo')
    assert browser.do('return document.querySelectorAll("script").length') == 0
    seen = browser.do('return [...document.images].map((image) => [image.naturalWidth > 0, image.alt.length > 0])')
    assert len(seen) > 48 and all(map(all, seen))
    names = browser.do('return [...document.querySelectorAll("#classes tbody th")].map((cell) => cell.textContent)')
    assert set(HOSTILE) <= set(names)


@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_it_fits_a_phone_and_can_be_read(browser, page, scheme):
    for width in (360, 1280):
        look(browser, width, scheme)
        browser.open(f'file://{page}')
        browser.do('document.querySelectorAll("details").forEach((part) => { part.open = true; })')
        assert browser.do(OVERFLOW) == 0, width
        ratio, where = browser.do(CONTRAST)
        assert ratio >= 4.5, where
        assert (
            browser.do('return getComputedStyle(document.body).backgroundColor')
            == {
                'light': 'rgb(246, 247, 248)',
                'dark': 'rgb(21, 24, 27)',
            }[scheme]
        )
    smallest = 'return Math.min(...[...document.querySelectorAll("nav a, summary")].map((e) => e.offsetHeight))'
    assert browser.do(smallest) >= 44


def test_it_can_be_walked_by_keyboard_and_heard(browser, page):
    look(browser, 1280, 'light')
    browser.open(f'file://{page}')
    browser.press('\ue004')  # tab
    assert browser.do('return document.activeElement.textContent') == 'To the content'
    browser.press('\ue007')  # return
    assert browser.do('return document.activeElement.id') == 'content'
    links = browser.do('return [...document.querySelectorAll("nav a")].map((link) => link.hash)')
    assert len(links) == 8 and browser.do('return arguments[0].every((id) => document.querySelector(id))', links)
    browser.click('nav a[href="#mistakes"]')
    top = 'return document.querySelector("#mistakes h2").getBoundingClientRect().top'
    below = 'return document.querySelector("nav").getBoundingClientRect().bottom'
    assert browser.do(below) <= browser.do(top) < 400
    ids = browser.do('return [...document.querySelectorAll("[id]")].map((part) => part.id)')
    assert len(ids) == len(set(ids))
    pointed = 'return [...document.querySelectorAll("[aria-labelledby]")].map((e) => e.getAttribute("aria-labelledby"))'
    assert set(' '.join(browser.do(pointed)).split()) <= set(ids)
    for count in (
        'table:not(:has(caption))',
        'th:not([scope])',
        'svg:not([role=img]):not([aria-hidden])',
        '.scrolling:not([tabindex][role=region][aria-label])',
    ):
        assert browser.do('return document.querySelectorAll(arguments[0]).length', count) == 0, count
    levels = browser.do('return [...document.querySelectorAll("h1, h2, h3, h4")].map((title) => +title.tagName[1])')
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))


def test_it_prints_light_and_whole(browser, page):
    look(browser, 1280, 'dark')
    browser.open(f'file://{page}')
    dark = {'name': 'prefers-color-scheme', 'value': 'dark'}
    browser.devtools('Emulation.setEmulatedMedia', media='print', features=[dark])
    assert (
        browser.do('return getComputedStyle(document.querySelector("section")).backgroundColor') == 'rgb(255, 255, 255)'
    )
    assert browser.do('return getComputedStyle(document.querySelector("nav")).display') == 'none'
    shown = 'return [...document.querySelectorAll("details:not([open]) table")].every((part) => part.offsetHeight > 0)'
    assert browser.do(shown)
    browser.devtools('Emulation.setEmulatedMedia', media='', features=[])
