"""Limits that depend on each other: whoever changes one has to look at the others, and a test relates them."""

from app.application.execution.steps import LOOKS, SUBMISSIONS

# The POST of a submission, from the connection to the end of the answer.
POST_SECONDS_MAX = 20.0
# After its claim. No POST of an attempt begins or ends later, so an older claim without an outcome belongs to a process
# that is gone.
SUBMIT_LEASE_SECONDS = 30
# What a stop leaves to the steps that run: longer than a step with its POST takes while the database answers.
STOP_SECONDS_MAX = 22
# As many as the steps that may talk to fal at once, so that none waits for a connection.
PROVIDER_CONNECTIONS_MAX = SUBMISSIONS.provider_calls_max + LOOKS.provider_calls_max
