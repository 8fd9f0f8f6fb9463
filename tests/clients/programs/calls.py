"""Answers calls over pipes: a JSON object a line, each way. Runs with the clients' Python, imports nothing of ours."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any


def answer_calls(functions: Mapping[str, Callable[..., Any]]) -> None:
    """Read `{"name", "args", "kwargs"}` until the input ends; write `{"result"}` or `{"error"}` for each."""
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        # What a client prints must not come between the answers.
        os.dup2(2, 1)
        for line in sys.stdin:
            call = json.loads(line)
            try:
                answer = {"result": functions[call["name"]](*call["args"], **call["kwargs"])}
            except BaseException as error:  # noqa: BLE001 - the task boundary of a call, sys.exit() included
                answer = {
                    "error": {
                        "kinds": [kind.__name__ for kind in type(error).__mro__],
                        "text": str(error),
                        "trace": traceback.format_exc(),
                    }
                }
            answers.write(json.dumps(answer, default=str) + "\n")
