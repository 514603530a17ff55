"""Answers with everything a function can learn about where it runs."""

import os
import sys
import time

STARTED = time.time()


def handler(event, context):
    before = context.get_remaining_time_in_millis()
    time.sleep(event.get("sleep", 0.02))
    after = context.get_remaining_time_in_millis()
    return {
        "event": event,
        "function_name": context.function_name,
        "function_version": context.function_version,
        "invoked_function_arn": context.invoked_function_arn,
        "memory_limit_in_mb": context.memory_limit_in_mb,
        "aws_request_id": context.aws_request_id,
        "log_group_name": context.log_group_name,
        "log_stream_name": context.log_stream_name,
        "identity": context.identity and context.identity.cognito_identity_id,
        "client": context.client_context and context.client_context.custom,
        "remaining": [before, after],
        "environment": dict(os.environ),
        "python": list(sys.version_info[:2]),
        "path": sys.path,
        "directory": os.getcwd(),
        "file": __file__,
        "started": STARTED,
    }
