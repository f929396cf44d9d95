import pytest
pytestmark = pytest.mark.live
def test_fails(lab_guest): assert lab_guest.name == "x"
