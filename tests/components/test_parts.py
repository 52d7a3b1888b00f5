"""The page's handlers are made of parts, which must not take one another's methods away."""

from collections import Counter

from components.desk import Desk
from components.studio import Studio


def test_no_two_parts_of_the_page_have_a_method_of_one_name():
    parts = [part for part in Studio.__mro__ if part not in (Desk, object)]
    counted = Counter(name for part in parts for name in vars(part) if not name.startswith("__"))
    assert [name for name, count in counted.items() if count > 1] == []
