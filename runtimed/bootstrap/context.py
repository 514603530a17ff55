"""The context object that a handler gets beside its event: names and methods of AWS's Python runtime."""

import time

from . import logs, payload, stream
from .errors import CONTEXT, Fault, text_of

# What of the W3C trace context a caller may hand through.
W3C_FIELDS = ("traceparent", "tracestate", "baggage")


# What start() told of START: the same in every invocation.
NOTHING = (None,) * 10
promised = NOTHING

# Of the present invocation.
channel = None


class LambdaContext:
    def __init__(self, invoke_id, deadline_ms, arn, client_context, cognito_identity, tenant_id):
        self.aws_request_id = invoke_id
        (
            _,
            self.function_name,
            self.function_version,
            self.memory_limit_in_mb,
            self.log_group_name,
            self.log_stream_name,
            _,
            _,
            _,
            _,
        ) = promised
        self.invoked_function_arn = arn
        self.tenant_id = tenant_id
        self.client_context = None
        self.identity = CognitoIdentity()
        self._w3c = {}
        self._epoch_deadline_time_in_ms = deadline_ms
        if client_context is not None:
            self._set_client_context(_read(client_context, "Client Context"))
        if cognito_identity is not None:
            identity = _read(cognito_identity, "Cognito Identity")
            self.identity.cognito_identity_id = identity.get("cognitoIdentityId")
            self.identity.cognito_identity_pool_id = identity.get("cognitoIdentityPoolId")

    def _set_client_context(self, given):
        w3c = given.pop("w3c", None)
        if isinstance(w3c, dict):
            self._w3c = {name: w3c[name] for name in W3C_FIELDS if isinstance(w3c.get(name), str)}
        self.client_context = ClientContext()
        _fill(self.client_context, given)
        client = given.get("client")
        if isinstance(client, dict):
            self.client_context.client = Client()
            _fill(self.client_context.client, client)

    def get_remaining_time_in_millis(self):
        remaining = self._epoch_deadline_time_in_ms - int(time.time() * 1000)
        return remaining if remaining > 0 else 0

    def w3c(self):
        return dict(self._w3c)

    def response_stream(self, content_type="", *, metadata=None):
        """The stream that the response is written to in parts: see stream.py.

        `metadata`: of a response for HTTP, as a dict with statusCode, headers, cookies; it makes its own content type.
        """
        opened = stream.open_stream(channel)
        opened.describe(content_type, metadata)
        return opened

    def log(self, message):
        logs.write(str(message))

    def __repr__(self):
        return _show(
            self,
            "aws_request_id log_group_name log_stream_name function_name memory_limit_in_mb function_version"
            " invoked_function_arn client_context identity tenant_id".split(),
        )


class CognitoIdentity:
    __slots__ = ("cognito_identity_id", "cognito_identity_pool_id")

    def __init__(self):
        self.cognito_identity_id = None
        self.cognito_identity_pool_id = None

    def __repr__(self):
        return _show(self, self.__slots__)


class Client:
    __slots__ = ("app_package_name", "app_title", "app_version_code", "app_version_name", "installation_id")

    def __repr__(self):
        return _show(self, self.__slots__)


class ClientContext:
    __slots__ = ("client", "custom", "env")

    def __repr__(self):
        return _show(self, self.__slots__)


def _show(value, names):
    return "%s([%s])" % (type(value).__name__, ",".join("%s=%s" % (name, getattr(value, name)) for name in names))


def _fill(value, given):
    for name in value.__slots__:
        setattr(value, name, given.get(name))


def _read(body, what):
    """A JSON object that came beside the event."""
    try:
        value = payload.read_json(body)
    except Exception as error:
        raise Fault(CONTEXT, "Unable to parse %s JSON: %s" % (what, text_of(error))) from None
    if not isinstance(value, dict):
        raise Fault(CONTEXT, "Unable to parse %s JSON: not an object" % what)
    return value
