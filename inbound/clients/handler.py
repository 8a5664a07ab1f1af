"""Run in a child process: calls one `handler(event, context)` of a Python file, as Lambda does.

    python handler.py FILE HANDLER        the event as JSON on stdin, the answer as JSON on stdout

What the handler prints goes to stderr. If it raises, the answer is Lambda's error document and the exit status 1. This
file imports nothing of the package: the function's own directory comes first on the path, as in Lambda.
"""

import importlib.util
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

FAILED = 1


class Context:
    """What Lambda gives a handler beside the event."""

    def __init__(self) -> None:
        self.function_name = os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "")
        self.function_version = "$LATEST"
        self.invoked_function_arn = os.environ.get("INVOKED_FUNCTION_ARN", "")
        self.aws_request_id = os.environ.get("AWS_REQUEST_ID", "")
        self.memory_limit_in_mb = "128"
        self.log_group_name = f"/aws/lambda/{self.function_name}"
        self.log_stream_name = "local"
        self.identity = None
        self.client_context = None
        self._until = time.monotonic() + float(os.environ.get("FUNCTION_TIMEOUT_SECONDS", "30"))

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the process is ended."""
        return max(0, int((self._until - time.monotonic()) * 1000))


def load(file: Path, name: str) -> Callable[[Any, Context], Any]:
    """The handler of that name in that file."""
    sys.path[0] = str(file.parent)  # this file's own directory must not shadow anybody's modules
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    handler: Callable[[Any, Context], Any] = getattr(module, name)
    return handler


def main(file: str, name: str) -> int:
    """Answer the event on stdin. The exit status is 0, or 1 with an error document."""
    answer_to = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    try:
        answer, status = load(Path(file).resolve(), name)(json.load(sys.stdin), Context()), 0
        text = json.dumps(answer)
    except Exception as error:  # noqa: BLE001 - whatever a handler raises is its answer
        traceback.print_exc()
        document = {
            "errorMessage": str(error),
            "errorType": type(error).__name__,
            "stackTrace": traceback.format_tb(error.__traceback__),
        }
        text, status = json.dumps(document), FAILED
    with answer_to:
        answer_to.write(text.encode("utf-8"))
    sys.stdout.flush()
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
