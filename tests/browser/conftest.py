"""A workplace on each database, and a browser that looks at it.

Pictures go to the folder that ALPACAFARM_SCREENSHOTS names, so that a person can look at them.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.workplace import Workplace, postgres, postgres_programs, workplace

pytestmark = pytest.mark.browser
WIDTH, HEIGHT = 1280, 1000


@pytest.fixture(scope="session", params=["sqlite", "postgres"])
def place(request, tmp_path_factory) -> Iterator[Workplace]:
    """What `make ui` starts, on SQLite and then on Postgres."""
    folder = tmp_path_factory.mktemp(request.param)
    with ExitStack() as stack:
        more = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        if request.param == "postgres":
            if postgres_programs() is None:
                pytest.skip("no Postgres here; install postgresql to see its half")
            url = stack.enter_context(postgres())
            url = url.replace("postgresql:", "postgresql+asyncpg:")
            more["PREFECT_API_DATABASE_CONNECTION_URL"] = url
        yield stack.enter_context(workplace(folder, request.param, **more))


@pytest.fixture(scope="session")
def chromium():
    """A headless Chromium of this machine."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install -e '.[browser]'")
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium here; install it to look at pages")
    with sync_api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium):
    """A fresh page."""
    context = chromium.new_context(viewport={"width": WIDTH, "height": HEIGHT})
    context.set_default_timeout(60_000)
    yield context.new_page()
    context.close()


@pytest.fixture
def picture(place, page, tmp_path):
    """Take a picture of the page under a name, when what moves has come to rest."""
    folder = Path(os.environ.get("ALPACAFARM_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)

    def take(name: str) -> None:
        page.wait_for_timeout(3500)
        page.screenshot(path=folder / f"{place.database}-{name}.png")

    return take
