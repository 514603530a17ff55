"""The platform's numbers, each with its source.

D: AWS Lambda's developer guide. M: the service model of botocore. R: AWS's Runtime Interface Emulator. Ours: chosen
here. A megabyte is 1,024 kilobytes throughout.
"""

from __future__ import annotations

MEGABYTE = 1024 * 1024

# Invocation.
PAYLOAD_BYTES = 6 * MEGABYTE
"""A synchronous request's payload (D)."""
EVENT_BYTES = 1 * MEGABYTE
"""An asynchronous one's (D)."""
EVENT_RETRIES = 2
"""Attempts at an event after the first (D)."""
EVENT_RETRIES_OWN = 30
"""The most by our own members; RETRIES_MAX of native/queue."""
EVENT_DELAY_MS = 86_400_000
"""The longest before the first retry. Ours."""
EVENT_AGE_SECONDS_MIN = 60
EVENT_AGE_SECONDS = 6 * 3600
"""So old an event may become in its queue (D)."""
RESPONSE_BYTES = 6 * MEGABYTE + 100
"""A buffered response; the Runtime API reads no more (R)."""
STREAM_BYTES = 200 * MEGABYTE
"""A streamed response (D)."""
STREAM_BURST_BYTES = 6 * MEGABYTE
"""So much of it at full speed (D)..."""
STREAM_RATE_BYTES = 2 * MEGABYTE
"""...and then so much a second (D)."""
LOG_TAIL_BYTES = 4096
"""The last of the log that an invocation can return (M)."""
CLIENT_CONTEXT_BYTES = 3583
"""The client context's base64 (M)."""
TENANT_CHARACTERS = 256

# Configuration.
TIMEOUT_SECONDS_DEFAULT = 3
TIMEOUT_SECONDS_MAX = 900
MEMORY_MB_DEFAULT = 128
MEMORY_MB_MIN = 128
MEMORY_MB_MAX = 10_240
VCPU_MEMORY_MB = 1_769
"""CPU is proportional to memory; this much is one core (D)."""
STORAGE_MB_DEFAULT = 512
STORAGE_MB_MIN = 512
STORAGE_MB_MAX = 10_240
ENVIRONMENT_BYTES = 4096
"""All environment variables together, keys and values, as JSON (D)."""
FUNCTION_NAME_CHARACTERS = 64
"""The name alone; the model's pattern leaves room for an ARN (M)."""
FUNCTION_REFERENCE_CHARACTERS = 256
"""A name, partial ARN or ARN, with qualifier (M)."""
QUALIFIER_CHARACTERS = 128
DESCRIPTION_CHARACTERS = 256
HANDLER_CHARACTERS = 128
LOG_GROUP_CHARACTERS = 512
LAYERS = 5
ALIAS_CHARACTERS = 128
TARGETS = 12_000
"""Functions and published versions on a node, with what is being rolled out (ours). Only what is new is refused; what
is above is for updates. The dispatcher counts for 16,384 targets, and the launcher's link takes as many packets at
once, one for each launch plan, those included that are kept a while longer than their targets."""
ALIASES = 12_000
"""Aliases on a node (ours)."""

# Code.
PACKAGE_ZIPPED_BYTES = 250 * MEGABYTE
"""An uploaded archive (ours). Lambda takes 50 MB in a request body and larger ones through S3; an upload is streamed
here, so it stands for both."""
PACKAGE_UNZIPPED_BYTES = 250 * MEGABYTE
"""Package and layers unpacked (D)."""
PACKAGE_ENTRIES = 100_000
"""Files and directories in an archive (ours): a bound on inodes and on the time to unpack."""
PACKAGE_PATH_BYTES = 1024
"""One entry's path (ours)."""

# Execution environment.
DESCRIPTORS = 1024
PROCESSES = 1024
"""Processes and threads (D)."""
INIT_SECONDS = 10
"""The init phase on demand; after it the init is repeated inside the first invocation (D)."""

# Node.
CONCURRENCY_DEFAULT = 1000
"""Concurrent executions of the account (D)."""
KEYS = 500
"""Keys of callers that a node has at most (ours): each is told the dispatcher every day."""
LIST_ITEMS_MAX = 10_000
"""`MaxItems` that a list request may ask for (M); a page never holds more than `LIST_PAGE_ITEMS`."""
LIST_PAGE_ITEMS = 50
LOG_EVENTS_MAX = 10_000
"""The last events of a log that may be asked for at once (ours, as CloudWatch's `limit`): their places are kept in
memory while the log is searched."""
