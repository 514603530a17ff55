"""What Lambda's REST API says in other words than the requests here: members that are named or nested otherwise, and
those that this node does not have.

Each function makes of a request's JSON, in place, the members of our request (see `operation.Route.adapt`). What asks
for nothing (no layers, the only package type there is) is dropped; what asks for something that the
node cannot do is refused. A member that is neither is left, and the gateway refuses what no request has.
"""

from __future__ import annotations

import platform
from typing import Any

from runtimed.model import errors

Members = dict[str, Any]

ARCHITECTURE = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())
"""As Lambda names it."""
OTHER_CODE = ("S3Bucket", "S3Key", "S3ObjectVersion", "S3ObjectStorageMode", "ImageUri", "SourceKMSKeyArn")


def create_function(members: Members) -> str:
    code = members.pop("Code", None)
    if not isinstance(code, dict):
        raise errors.InvalidParameterValue("Code: give a zip archive as Code.ZipFile.")
    package = _zip_file(code, "Code.")
    _drop_role(members)
    _only(members, "PackageType", "Zip", "functions are made of zip archives here.")
    _common(members)
    return package


def update_function_code(members: Members) -> str:
    kept: Members = {name: members.pop(name) for name in ("FunctionName", "RevisionId", "Publish") if name in members}
    _common(members)
    _only(members, "DryRun", False, "there is no dry run of an update here. Leave it out.")
    package = _zip_file(members, "")
    members.update(kept)
    return package


def update_function_configuration(members: Members) -> str:
    _drop_role(members)
    _common(members)
    return ""


def list_functions(members: Members) -> str:
    if members.pop("MasterRegion", "ALL") != "ALL":
        raise errors.InvalidParameterValue("MasterRegion: this node is its only region. Leave it out.")
    return ""


def event_invoke_config(members: Members) -> str:
    destinations = members.pop("DestinationConfig", None)
    if destinations is not None and any(destinations.values() if isinstance(destinations, dict) else [1]):
        raise errors.InvalidParameterValue(
            "DestinationConfig: this node has no destinations yet. Leave it out; `runtimectl queue list --state dead` "
            "shows the events that were given up."
        )
    return ""


def _zip_file(code: Members, where: str) -> str:
    for name in OTHER_CODE:
        if name in code:
            raise errors.InvalidParameterValue(f"{where}{name}: this node takes code as {where}ZipFile only.")
    package = code.pop("ZipFile", None)
    if not isinstance(package, str) or not package:
        raise errors.InvalidParameterValue(f"{where}ZipFile: give a zip archive, in base64.")
    if code:
        raise errors.InvalidParameterValue(f"{where}{min(code)}: is not known. Leave it out.")
    return package


def _drop_role(members: Members) -> None:
    """Lambda needs one; functions here have no role to assume."""
    if not isinstance(members.pop("Role", ""), str):
        raise errors.InvalidParameterValue("Role: must be a string.")


def _common(members: Members) -> None:
    architectures = members.pop("Architectures", None)
    if architectures is not None and architectures != [ARCHITECTURE]:
        raise errors.InvalidParameterValue(f"Architectures: this node runs {ARCHITECTURE} only.")
    tracing = members.pop("TracingConfig", None)
    if tracing not in (None, {}, {"Mode": "PassThrough"}):
        raise errors.InvalidParameterValue(
            "TracingConfig: traces are passed through here and not sampled. Leave it out."
        )
    for name in ("Layers", "Tags", "VpcConfig", "DeadLetterConfig", "FileSystemConfigs"):
        if members.get(name) in ([], {}):
            del members[name]


def _only(members: Members, name: str, value: object, why: str) -> None:
    if name in members and members.pop(name) != value:
        raise errors.InvalidParameterValue(f"{name}: {why}")
