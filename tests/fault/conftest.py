import pytest

pytest.register_assert_rewrite("tests.fault.fal_world", "tests.fault.fal_scripts")
