import pytest

from lab.errors import LabError
from lab.wine import Windows, open_windows


@pytest.fixture(scope="session")
def windows() -> Windows:
    try:
        return open_windows()
    except LabError as error:
        pytest.skip(f"nothing was tried on Windows' Python: {error}")
