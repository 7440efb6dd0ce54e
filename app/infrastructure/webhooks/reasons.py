import os

import aiohttp


def why_not_connected(error: aiohttp.ClientConnectorError) -> str:
    """In the system's words. A name that cannot be looked up has an error of its own, which is no number of these."""
    number = error.errno
    return str(error.strerror or error) if number is None or number <= 0 else os.strerror(number)
