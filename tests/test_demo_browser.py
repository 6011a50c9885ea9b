"""The web page in a real browser: clicks, a brush stroke, and what came of them.

It needs Gradio, Selenium, and Chromium with its driver (Debian: chromium, chromium-driver).
EVQGAN_SCREENSHOTS names a folder for pictures of the page.
"""

import base64
import io
import itertools
import json
import os
import pathlib
import shutil
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from evqgan.core import pictures, png_records

pytest.importorskip("gradio", reason="the web page needs Gradio: pip install 'gradio>=6,<7'")
pytest.importorskip("selenium", reason="the browser is driven by Selenium: pip install selenium")
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

# A browser is in no requirements. What the page does is guarded always by tests/test_demo.py, whose
# test_the_page_is_built_served_on_loopback_and_says_what_is_wrong builds and serves it.
CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER),
        reason="needs Chromium and its driver: apt-get install chromium-driver",
    ),
]
FLAGS = (
    "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--window-size=1300,1150"
)
PATIENCE = 240  # seconds; compilations take most of them
ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    """The address of a page that `python -m evqgan.demo` serves."""
    log = tmp_path_factory.mktemp("page") / "log"
    words = [sys.executable, "-u", "-m", "evqgan.demo", "--workdir=drawings", "--port=0"]
    with log.open("w") as file:
        process = subprocess.Popen(words, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
    try:
        waited_for(lambda: "the page is at" in log.read_text() or process.poll() is not None)
        yield log.read_text().split("the page is at ")[1].split()[0]
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def browser(address, tmp_path_factory):
    """Chromium at the page; it keeps downloads in the folder `browser.downloads`."""
    options = webdriver.ChromeOptions()
    for flag in FLAGS.split():
        options.add_argument(flag)
    options.binary_location = CHROMIUM
    downloads = tmp_path_factory.mktemp("downloads")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    driver.downloads, driver.downloaded = downloads, {}
    try:
        driver.get(address)
        waited_for(lambda: driver.find_elements(By.ID, "generate-run"))
        yield driver
    finally:
        driver.quit()


def waited_for(condition, seconds=PATIENCE):
    """The value of a condition once it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def shot(browser, name):
    """Keep a picture of the page, if it is wanted."""
    if folder := os.environ.get("EVQGAN_SCREENSHOTS"):
        time.sleep(0.7)  # the browser's own transitions
        browser.save_screenshot(str(pathlib.Path(folder) / f"{name}.png"))


def tab(browser, text):
    """Open a tab."""
    buttons = browser.find_elements(By.CSS_SELECTOR, "button[role=tab]")
    next(x for x in buttons if x.text == text).click()
    time.sleep(0.5)


def choose(browser, element, text):
    """Choose from a list by typing."""
    field = browser.find_element(By.CSS_SELECTOR, f"#{element} input")
    field.click()
    field.send_keys(Keys.CONTROL, "a")
    field.send_keys(text)
    time.sleep(0.3)
    field.send_keys(Keys.ENTER)


def line(browser, name):
    """The line that a tab says."""
    return browser.find_element(By.ID, f"{name}-line").text


def clicked(browser, name, end, button="run"):
    """Click a tab's button, and return the lines it says until one has `end` in it."""
    button = browser.find_element(By.ID, f"{name}-{button}")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    before, lines = line(browser, name), []
    button.click()

    def is_done():
        now = line(browser, name)
        if now and now != before and now not in lines:
            lines.append(now)
        return end in now and lines

    waited_for(is_done)
    time.sleep(0.7)
    return lines


def images(browser, name):
    """The pictures of a tab's gallery as uint8 [H,W,3], read as the browser gets them."""
    found = browser.find_elements(By.CSS_SELECTOR, f"#{name}-gallery .grid-wrap img")
    script = (
        "const [url, done] = arguments; fetch(url).then(x => x.blob()).then(x => {"
        "const r = new FileReader(); r.onload = () => done(r.result); r.readAsDataURL(x)})"
    )
    texts = [browser.execute_async_script(script, x.get_attribute("src")) for x in found]
    return [decoded(text) for text in texts]


def decoded(text):
    """The pixels of a data URL."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text.split(",")[1]))).convert("RGB"))


def command(browser, name):
    """The shell command that a tab shows."""
    shown = browser.find_element(By.CSS_SELECTOR, f"#{name}-command .cm-content")
    return "".join(x.text for x in shown.find_elements(By.CSS_SELECTOR, ".cm-line"))


def upload(browser, element, path):
    """Hand a file to an upload button."""
    script = "return document.getElementById(arguments[0]).previousElementSibling"
    browser.execute_script(script, element).send_keys(str(path))


def paint(browser, left, top, right, bottom):
    """Paint the outline of a part of the canvas, given as shares of its sides, with the brush."""
    found = browser.find_elements(By.CSS_SELECTOR, "#edit-canvas canvas")[-1]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", found)
    time.sleep(0.5)
    side = min(found.size["width"], found.size["height"])
    steps = [(left, top), (right, top), (right, bottom), (left, bottom), (left, top)]
    points = [(round((x - 0.5) * side), round((y - 0.5) * side)) for x, y in steps]
    hand = ActionChains(browser, duration=0)
    hand.move_to_element_with_offset(found, *points[0]).click_and_hold().perform()
    for before, after in itertools.pairwise(points):
        for i in (1, 2):
            x, y = (a + (b - a) * i // 2 for a, b in zip(before, after, strict=True))
            hand.move_to_element_with_offset(found, x, y).perform()
    hand.release().perform()
    time.sleep(1)


def downloaded(browser, kind):
    """The files of a kind that were downloaded, once there is one more than before."""
    before = browser.downloaded.setdefault(kind, set())
    new = waited_for(lambda: set(browser.downloads.glob(f"*.{kind}")) - before, 30)
    before |= new
    return new.pop()


def test_generate_by_a_class_that_is_typed(browser):
    choose(browser, "generate-class", "flag")
    lines = clicked(browser, "generate", "made in")
    assert any("compiling the sampler" in x and "once" in x for x in lines)
    assert "filling block by block ..." in lines
    made = images(browser, "generate")
    assert len(made) == 4 and made[0].shape == (64, 64, 3) and made[0].std() > 10
    assert "--labels=flags" in command(browser, "generate")
    shot(browser, "1_generate")


def test_a_png_is_downloaded_and_repeated(browser, tmp_path):
    made = images(browser, "generate")
    browser.find_element(By.ID, "generate-zip").click()
    with zipfile.ZipFile(downloaded(browser, "zip")) as file:
        file.extractall(tmp_path)
    path = tmp_path / "image_002.png"
    record = png_records.read(path)
    assert (record["class"], record["seed"], record["number"]) == ("flags", 0, 2)
    upload(browser, "generate-repeat", path)
    waited_for(lambda: "made again" in line(browser, "generate"))
    time.sleep(0.7)
    (again,) = images(browser, "generate")
    np.testing.assert_array_equal(again, made[2])
    browser.find_element(By.CSS_SELECTOR, "#generate-gallery .thumbnail-item").click()
    time.sleep(0.7)
    browser.find_element(By.CSS_SELECTOR, "#generate-gallery [aria-label=Download]").click()
    assert png_records.read(downloaded(browser, "png"))["number"] == 2


def test_inpaint_with_a_brush_and_outpaint(browser):
    tab(browser, "Inpaint and outpaint")
    browser.find_element(By.ID, "edit-take").click()
    time.sleep(2)
    paint(browser, 0.3, 0.3, 0.6, 0.6)
    shot(browser, "2_brush")
    choose(browser, "edit-class", "flags")
    clicked(browser, "edit", "made anew")
    taken, made = images(browser, "generate"), images(browser, "edit")
    shot(browser, "3_inpainted")
    before = taken[0] if taken else None
    assert len(made) == 4 and made[0].shape == (64, 64, 3)
    changed = (np.stack(made) != made[0]).any(axis=(0, -1)) | (made[0] != made[1]).any(axis=-1)
    assert changed[20:38, 20:38].any() and not changed[:5].any() and not changed[:, 56:].any()
    assert before is None or (made[0][:5] == before[:5]).all()
    browser.find_element(By.CSS_SELECTOR, "#edit-how input[value=sides]").click()
    time.sleep(0.5)
    clicked(browser, "edit", "made anew")
    wide = images(browser, "edit")
    assert wide[0].shape == (64, 128, 3)
    assert "--outpaint=32,0,32,0" in command(browser, "edit")
    shot(browser, "4_outpainted")


def test_class_edit(browser):
    tab(browser, "Class edit")
    browser.find_element(By.ID, "class-take").click()
    time.sleep(1)
    clicked(browser, "class", "made anew as 4 classes")
    assert len(images(browser, "class")) == 4
    shot(browser, "5_class")


def test_reconstruct_an_upload(browser, tmp_path):
    tab(browser, "Reconstruct")
    y, x = np.mgrid[:90, :120]
    picture = np.stack([x * 2, y * 2, 255 - x - y], axis=-1).clip(0, 255).astype(np.uint8)
    pictures.save_png(tmp_path / "mine.png", picture)
    upload(browser, "reconstruct-upload", tmp_path / "mine.png")
    waited_for(lambda: browser.find_elements(By.CSS_SELECTOR, "#reconstruct-picture img"))
    clicked(browser, "reconstruct", "tokens of 8 x 8")
    given, again, difference, ids = images(browser, "reconstruct")
    assert given.shape == again.shape == difference.shape == (64, 64, 3) and ids.shape[0] >= 512
    assert 0 < np.abs(given.astype(int) - again).mean() < 60
    shot(browser, "6_reconstruct")


def test_what_cannot_be_is_said_in_a_line(browser, tmp_path):
    tab(browser, "Reconstruct")
    (tmp_path / "text.png").write_text("no picture")
    upload(browser, "reconstruct-upload", tmp_path / "text.png")

    def said():  # it has no text yet while it comes in
        return [x.text for x in browser.find_elements(By.CSS_SELECTOR, ".toast-messages") if x.text]

    assert "expected a picture" in waited_for(said, 20)[0]
    shot(browser, "7_error")


def test_nothing_is_loaded_from_elsewhere(browser, address):
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [x["params"] for x in messages if x["method"] == "Network.requestWillBeSent"]
    urls = {x["request"]["url"] for x in sent}
    assert len(urls) > 20
    elsewhere = {x for x in urls if not x.startswith((address, "data:", "blob:", "chrome:"))}
    assert not elsewhere
    severe = [x["message"] for x in browser.get_log("browser") if x["level"] == "SEVERE"]
    assert not [x for x in severe if "Content Security Policy" in x], severe
