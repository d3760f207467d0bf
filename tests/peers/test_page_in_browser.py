"""The web page of a score in a real browser: Debian's Chromium, headless, asked through Playwright."""

import json
import shutil

import pytest

from mlpinfer import Predictor, load_network, score
from mlpinfer.evaluation.mistakes import find_mistakes
from mlpinfer.io.data.mnist import load_mnist_dataset
from mlpinfer.io.weights.load import shipped
from mlpinfer.render.html import write_page

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"),
            args=["--no-sandbox", "--disable-background-networking", "--disable-component-update"],
        )
        yield browser
        browser.close()


@pytest.fixture
def report(run, tmp_path):
    done = run("score", "--report", "report.html", "--json", "report.json", "--repeat", 1)
    assert done.returncode == 0, done.stderr
    return tmp_path / "report.html"


class Watched:
    """A page, and all that it asked for and complained of."""

    def __init__(self, browser, report, **how):
        self.requests, self.complaints = [], []
        self.page = browser.new_page(**how)
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(report.as_uri())
        self.report = report
        self.check()

    def check(self):
        """Nothing was asked for but the page, and nothing went wrong, until now."""
        assert {url for url in self.requests if not url.startswith("data:")} == {self.report.as_uri()}
        assert self.complaints == []

    def shown(self):
        return self.page.locator("#gallery li:visible").count()


def test_the_gallery_is_filtered_by_class(browser, report):
    confusion = json.loads(report.with_suffix(".json").read_text())["metrics"]["confusion"]
    watched = Watched(browser, report)
    page, wrong = watched.page, sum(map(sum, confusion)) - sum(confusion[i][i] for i in range(10))
    assert watched.shown() == wrong
    page.select_option("#true-label", "9")
    of_nine = sum(confusion[9]) - confusion[9][9]
    assert (watched.shown(), page.inner_text("#count")) == (of_nine, f"{of_nine} shown")
    page.select_option("#predicted-label", "4")
    assert watched.shown() == confusion[9][4]
    page.click("text=show all")
    page.wait_for_function(f"document.getElementById('count').textContent === '{wrong} shown'")
    assert watched.shown() == wrong
    assert page.evaluate("[...document.images].every(image => image.naturalWidth === 28)")
    watched.check()


def test_a_gallery_of_some_says_of_how_many(browser, tmp_path):
    data = load_mnist_dataset()
    predictor = Predictor(load_network(shipped()), scale=data.scale)
    path = tmp_path / "some.html"
    write_page(path, score(predictor, data, repeat=1), find_mistakes(predictor, data, 20), "python")
    page = Watched(browser, path).page
    assert page.inner_text("#count") == "20 shown, of the 20 most confident"
    label = page.get_attribute("#gallery li", "data-label")
    page.select_option("#true-label", label)
    alike = page.locator(f"#gallery li[data-label='{label}']").count()
    assert page.inner_text("#count") == f"{alike} shown, of the 20 most confident"


def test_the_filter_and_the_gallery_agree_after_going_back(browser, report):
    watched = Watched(browser, report)
    watched.page.select_option("#true-label", "9")
    watched.page.goto("about:blank")
    watched.page.go_back()
    chosen = watched.page.input_value("#true-label")
    assert (chosen == "") == (watched.shown() == 223)


def test_the_keyboard_alone_filters(browser, report):
    page = Watched(browser, report).page
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "true-label":
            break
    else:
        pytest.fail("no way to the filter by keyboard")
    page.keyboard.press("3")
    assert page.input_value("#true-label") == "3"
    assert page.locator("#gallery li:visible").count() < 223


@pytest.mark.parametrize("width", [320, 375, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_phones_and_desktops_in_light_and_dark(browser, report, width, scheme):
    watched = Watched(browser, report, viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert watched.page.evaluate("document.documentElement.scrollWidth") <= width
    ground, ink = watched.page.evaluate(
        "['backgroundColor', 'color'].map(name => getComputedStyle(document.body)[name])"
    )
    brightness = [sum(map(int, colour.strip("rgb()").split(","))) for colour in (ground, ink)]
    assert (brightness[0] > brightness[1]) == (scheme == "light")
    watched.check()


def test_a_screen_reader_finds_its_way(browser, report):
    page = Watched(browser, report).page
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.locator("h1").count() == 1
    assert page.get_by_role("main").count() == 1
    assert page.get_by_role("combobox", name="true label").count() == 1
    assert page.get_by_role("img", name="Confusion matrix").count() == 1
    assert page.get_by_role("rowheader").count() == 10
    page.get_by_text("Its counts as a table").click()
    assert page.get_by_role("table", name="True labels in rows").get_by_role("rowheader").count() == 10
    assert page.evaluate("[...document.images].every(image => image.alt)")
