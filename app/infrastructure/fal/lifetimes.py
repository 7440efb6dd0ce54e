"""How long fal keeps files: what a request says of its outputs, and an upload of itself.

fal has its own default, which its pages name differently and an account can change, so every request says it. What has
expired is gone for good.
"""

import json

MEDIA_SECONDS = 3 * 24 * 60 * 60
# The header of a request to the queue, and of an upload: fal's own client sends the second one along with it there.
PREFERENCE_HEADER = "X-Fal-Object-Lifecycle-Preference"
LIFECYCLE_HEADER = "X-Fal-Object-Lifecycle"


def expires_after(seconds: int) -> str:
    return json.dumps({"expiration_duration_seconds": seconds})
