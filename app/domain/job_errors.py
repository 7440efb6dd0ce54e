"""Why a job has no result: our codes and our sentences. Those for the errors of fal are in `errors_of_fal`.

A sentence never has a word of fal's, nor of the input: what fal says of a limit is shown only where it is a number or
a list of plain words. Codes are stable.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from string import Formatter

PICTURES = frozenset({"image_url", "image_urls"})
SOUNDS = frozenset({"audio_url"})
FILMS = frozenset({"video_url"})
FILES = PICTURES | SOUNDS | FILMS
TEXTS_AND_NUMBERS = frozenset(
    {
        "prompt",
        "negative_prompt",
        "num_images",
        "image_size",
        "seed",
        "enable_prompt_expansion",
        "enable_safety_checker",
        "duration",
        "resolution",
        "aspect_ratio",
    }
)
PARAMETERS = FILES | TEXTS_AND_NUMBERS


@dataclass(frozen=True, slots=True)
class JobError:
    """`reason` may hold `{place}`: in which parameter. Each of `limits` is left out if fal does not tell its values."""

    code: str
    reason: str
    advice: str = ""
    limits: Sequence[str] = ()
    about: Collection[str] = PARAMETERS
    """The parameters that it can be about; where fal names another one, none is named."""

    def sentence(self, parameter: str | None = None, values: Mapping[str, str] | None = None) -> str:
        """`parameter` may go on with the place in it, as `image_urls/1`."""
        is_told = parameter is not None and parameter.partition("/")[0] in self.about
        shown = [self.reason.format(place=f" in {parameter}" if is_told else "")]
        known = values or {}
        shown += [limit.format_map(known) for limit in self.limits if set(_names_in(limit)) <= known.keys()]
        return " ".join(part for part in (*shown, self.advice) if part)

    @property
    def limit_names(self) -> frozenset[str]:
        """What of fal's context the sentence shows."""
        return frozenset(name for limit in self.limits for name in _names_in(limit))


def _names_in(template: str) -> Iterator[str]:
    return (name for _, name, _, _ in Formatter().parse(template) if name is not None)


TRY_AGAIN = "Your input is not the reason. Try again in a minute."

CANCELED = JobError("canceled", "The job was canceled.")
NO_OUTPUT = JobError(
    "no_output", "The safety checker withheld everything that was generated.", "Change the prompt or the pictures."
)
NO_MEDIA = JobError("no_media_generated", "The model made nothing of this input.", "Change the prompt or the pictures.")
RESTORED = JobError(
    "restored", "The service was restored from a backup, and it is not certain that this job was kept.", TRY_AGAIN
)
RESULT_INVALID = JobError("result_invalid", "The result that fal returned does not have the expected form.", TRY_AGAIN)
RESULT_TOO_LARGE = JobError("result_invalid", "The result that fal returned is too large.", TRY_AGAIN)
RESULT_TOO_DEEP = JobError("result_invalid", "The result that fal returned is nested too deeply.", TRY_AGAIN)
INPUT_DELETED = JobError(
    "input_deleted",
    "A file that the job was given was deleted before fal had it.",
    "Send the file again, and start another job with it.",
)
QUEUE_TIMEOUT = JobError(
    "queue_timeout", "The job could not be handed over to fal for too long.", "Your input is not the reason. Try again."
)
SUBMIT_UNKNOWN = JobError("submit_unknown", "It is not known whether fal got the job.", TRY_AGAIN)
TIMED_OUT = JobError("timed_out", "fal did not finish within the time limit.", TRY_AGAIN)
OWN_ERRORS = (
    CANCELED,
    INPUT_DELETED,
    NO_OUTPUT,
    RESTORED,
    RESULT_INVALID,
    RESULT_TOO_LARGE,
    RESULT_TOO_DEEP,
    QUEUE_TIMEOUT,
    SUBMIT_UNKNOWN,
    TIMED_OUT,
)
