"""Log records as people read them: Lambda's text lines, or its JSON lines. The same as native/dispatch/render.c,
which renders the log tail of an invocation; a test compares the two.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import msgspec

from runtimed.dispatch.logs import DROPPED, Kind, Record, Report, Status, parse_report
from runtimed.model.wire import InitType

_WORDS: dict[int, str] = {
    Status.SUCCESS: "success",
    Status.ERROR: "error",
    Status.FAILURE: "failure",
    Status.TIMEOUT: "timeout",
    Status.INIT_ERROR: "error",
}
_MASK = (1 << 64) - 1


def request_id(record: Record) -> str:
    """As text; empty outside of any invocation."""
    return str(uuid.UUID(bytes=record.request_id)) if any(record.request_id) else ""


def render(record: Record, *, as_json: bool, runtime: str = "") -> str | None:
    """One line without its newline. None for what the format does not show, and for kinds of a later version."""
    version = str(record.version) if record.version else "$LATEST"
    match record.kind:
        case Kind.LINE:
            return record.payload.decode("utf-8", "replace")
        case Kind.START:
            if as_json:
                return _event(record, "start", {"requestId": request_id(record), "version": version})
            return f"START RequestId: {request_id(record)} Version: {version}"
        case Kind.END:
            return None if as_json else f"END RequestId: {request_id(record)}"
        case Kind.REPORT:
            report = parse_report(record.payload)
            return None if report is None else _report(record, report, as_json)
        case Kind.INIT_START:
            return _init_start(record, as_json, runtime, version)
        case Kind.INIT_REPORT:
            report = parse_report(record.payload)
            return None if report is None else _init_report(record, report, as_json)
        case Kind.DROPPED:
            return _dropped(record, as_json)
    return None


def _event(record: Record, kind: str, contents: dict[str, object]) -> str:
    event = {"time": iso_time(record.time_us), "type": f"platform.{kind}", "record": contents}
    return msgspec.json.encode(event).decode()


def _report(record: Record, report: Report, as_json: bool) -> str:
    if as_json:
        contents: dict[str, object] = {"requestId": request_id(record), "status": _word(report.status)}
        if report.error_type:
            contents["errorType"] = report.error_type
        metrics: dict[str, object] = {
            "durationMs": _number(report.duration_us),
            "billedDurationMs": report.billed_ms,
            "memorySizeMB": report.memory_mb,
            "maxMemoryUsedMB": report.peak_mb,
        }
        if report.init_us and report.init_type == InitType.SNAP_START:
            metrics["restoreDurationMs"] = _number(report.init_us)
            metrics["billedRestoreDurationMs"] = -(-report.init_us // 1000)
        elif report.init_us:
            metrics["initDurationMs"] = _number(report.init_us)
        contents["metrics"] = metrics
        return _event(record, "report", contents)
    parts = [
        f"REPORT RequestId: {request_id(record)}",
        f"Duration: {milliseconds(report.duration_us)} ms",
        f"Billed Duration: {report.billed_ms} ms",
        f"Memory Size: {report.memory_mb} MB",
        f"Max Memory Used: {report.peak_mb} MB",
    ]
    if report.init_us and report.init_type == InitType.SNAP_START:
        parts.append(f"Restore Duration: {milliseconds(report.init_us)} ms")
        parts.append(f"Billed Restore Duration: {-(-report.init_us // 1000)} ms")
    elif report.init_us:
        parts.append(f"Init Duration: {milliseconds(report.init_us)} ms")
    return "\t".join(parts + _status_parts(report))


def _status_parts(report: Report) -> list[str]:
    if report.status == Status.TIMEOUT:
        return ["Status: timeout"]
    if report.status in (Status.FAILURE, Status.INIT_ERROR):
        return ["Status: error", f"Error Type: {report.error_type}"]
    return []


def _init_start(record: Record, as_json: bool, runtime: str, version: str) -> str:
    name = runtime.replace("python", "python:", 1)
    restored = record.payload[:1] == bytes([InitType.SNAP_START])
    if as_json:
        contents: dict[str, object] = {"runtimeVersion": name, "functionVersion": version}
        if restored:
            return _event(record, "restoreStart", contents)
        return _event(record, "initStart", {"initializationType": "on-demand", "phase": "init", **contents})
    if restored:
        return f"RESTORE_START Runtime Version: {name}"
    return f"INIT_START Runtime Version: {name}"


def _restore_report(record: Record, report: Report, as_json: bool) -> str:
    """Of one that succeeded the text shows the duration alone."""
    status = "error" if report.status == Status.FAILURE else _word(report.status)
    if as_json:
        contents: dict[str, object] = {"status": status}
        if report.error_type:
            contents["errorType"] = report.error_type
        contents["metrics"] = {"durationMs": _number(report.duration_us)}
        return _event(record, "restoreReport", contents)
    parts = [f"RESTORE_REPORT Restore Duration: {milliseconds(report.duration_us)} ms"]
    if report.status != Status.SUCCESS:
        parts.append(f"Status: {status}")
    if report.status != Status.SUCCESS and report.error_type:
        parts.append(f"Error Type: {report.error_type}")
    return "\t".join(parts)


def _init_report(record: Record, report: Report, as_json: bool) -> str:
    if report.init_type == InitType.SNAP_START:
        return _restore_report(record, report, as_json)
    status = "timeout" if report.status == Status.TIMEOUT else "error"
    if as_json:
        contents: dict[str, object] = {"initializationType": "on-demand", "phase": "init", "status": status}
        if status == "error" and report.error_type:
            contents["errorType"] = report.error_type
        contents["metrics"] = {"durationMs": _number(report.duration_us)}
        return _event(record, "initReport", contents)
    parts = [f"INIT_REPORT Init Duration: {milliseconds(report.duration_us)} ms", "Phase: init", f"Status: {status}"]
    if status == "error" and report.error_type:
        parts.append(f"Error Type: {report.error_type}")
    return "\t".join(parts)


def _dropped(record: Record, as_json: bool) -> str | None:
    if len(record.payload) < DROPPED.size:
        return None
    records, size, reason = DROPPED.unpack_from(record.payload)
    why = "the log's disk is full or failing" if reason == 2 else "they came faster than they could be written"
    if as_json:
        contents: dict[str, object] = {"droppedRecords": records, "droppedBytes": size, "reason": why}
        return _event(record, "logsDropped", contents)
    return f"LOGS_DROPPED Records: {records}\tBytes: {size}\tReason: {why}"


def _word(status: int) -> str:
    return _WORDS.get(status, "failure")


def milliseconds(microseconds: int) -> str:
    """With two decimals, rounded to the nearest."""
    hundredths = (microseconds + 5) // 10
    return f"{hundredths // 100}.{hundredths % 100:02d}"


def _number(microseconds: int) -> msgspec.Raw:
    """The same as a JSON number."""
    return msgspec.Raw(milliseconds(microseconds).encode())


def iso_time(microseconds: int) -> str:
    moment = datetime.fromtimestamp(microseconds // 1_000_000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{microseconds % 1_000_000 // 1000:03d}Z"


def stream_of(record: Record) -> str:
    """The log stream, from the record alone: YYYY/MM/DD/[version]hex."""
    version = str(record.version) if record.version else "$LATEST"
    day = datetime.fromtimestamp((record.environment >> 20) // 1000, UTC)
    spread = f"{_spread(record.environment):016x}{_spread(~record.environment & _MASK):016x}"
    return f"{day:%Y/%m/%d}/[{version}]{spread}"


def _spread(x: int) -> int:
    """splitmix64."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)
