"""Why a cloud did not do what it was asked: the stable reasons of its failures, the same for every place."""

from inbound.errors import TemporaryFailure

ACCESS_DENIED = "access denied"
BAD_REQUEST = "request not accepted"
BUCKET_MISSING = "no such bucket"
COMMAND_MISSING = "no such command"
CONFIGURATION = "AWS configuration not usable"
CONFLICT = "another write is under way"
CONTEXT_MISMATCH = "data key and encryption context do not belong together"
CREDENTIALS = "credentials not accepted"
DISK = "disk not writable"
FUNCTION_ERROR = "function failed"
FUNCTION_MISSING = "no such function"
FUNCTION_TIMEOUT = "function timed out"
KEY_MISSING = "no such key"
KEY_UNUSABLE = "key cannot be used"
NAME_REFUSED = "name cannot be used"
OBJECT_MISSING = "no such object"
QUEUE_MISSING = "no such queue"
SERVICE_DOWN = "service unavailable"
THROTTLED = "too many requests"
TIMED_OUT = "no answer in time"
TOO_LARGE = "too large"
TOPIC_MISSING = "no such topic"
UNREACHABLE = "service not reached"


def function_failure(payload: bytes) -> TemporaryFailure:
    """How a function failed, from its error document (X-Amz-Function-Error). A later try can differ, as with SES."""
    timed_out = b"Task timed out" in payload[:1000] or b"Sandbox.Timedout" in payload[:1000]
    return TemporaryFailure(FUNCTION_TIMEOUT if timed_out else FUNCTION_ERROR, payload[:500].decode("utf-8", "replace"))
