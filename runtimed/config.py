"""Settings: a TOML file, then RUNTIMED_SECTION_KEY in the environment, then the command line; later ones win.

    [node]                                 RUNTIMED_NODE_REGION=eu-west-1
    region = "eu-west-1"

They are read once, by `runtimed` as root; the control plane gets the outcome in RUNTIMED_SETTINGS and hands each
part the section that it needs. A wrong setting is refused with its name and where it came from.
"""

from __future__ import annotations

import hashlib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta, Struct

import runtimed
from runtimed.model import quotas, wire

DEFAULT_FILE = Path("/etc/runtimed/runtimed.toml")
PREFIX = "RUNTIMED_"

AbsolutePath = Annotated[str, Meta(pattern=r"^/[^\x00]*$", description="an absolute path")]
Seconds = Annotated[int, Meta(ge=0, le=86_400, description="whole seconds, at most a day")]
Count = Annotated[int, Meta(ge=1, le=10_000, description="a whole number from 1 to 10000")]


class SettingsError(Exception):
    """A setting that cannot be used; the text names it, its source, and what would do."""


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of the file. Every setting has a default, and below it the meaning that users read."""


class NodeSettings(Section, frozen=True, kw_only=True):
    """The node itself."""

    state_dir: AbsolutePath = "/var/lib/runtimed"
    """Where functions, their code, logs and keys are kept. The service's unit names it too: ReadWritePaths=."""
    run_dir: Annotated[
        str, Meta(pattern=r"^/[^\x00]*$", max_length=90, description="an absolute path of at most 90 characters")
    ] = "/run/runtimed"
    """Where the sockets are; the service's unit names it too. Short, because socket addresses are (108 bytes)."""
    account_id: Annotated[str, Meta(pattern=r"^\d{12}$", description="twelve digits")] = "000000000000"
    """The account in the ARNs of functions."""
    region: Annotated[str, Meta(pattern=r"^[a-z]{2}(-gov)?-[a-z]+-\d$", description="such as us-east-1")] = "us-east-1"
    """The region in the ARNs of functions, and what they see as AWS_REGION."""
    user: str = "runtimed"
    """Whom the control plane runs as when there is such a user; otherwise an unused uid of the sandboxes' range."""
    group: str = "runtimed"
    """The group whose members may use the sockets, besides root."""
    log_level: Annotated[
        str, Meta(pattern=r"^(debug|info|warning|error)$", description="debug, info, warning or error")
    ] = "info"
    """What the node writes to its own log."""
    drain_seconds: Seconds = 10
    """How long running invocations may take to end after SIGTERM."""
    hang_seconds: Seconds = 15
    """How long control plane or dispatcher may leave the launcher without an answer before it is killed and started
    again; 0: for ever."""


class ApiSettings(Section, frozen=True, kw_only=True):
    """The control API."""

    listen: Annotated[
        str,
        Meta(pattern=r"^([^\s:]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5})?$", description="HOST:PORT, or nothing for none"),
    ] = "127.0.0.1:7401"
    """Where the control API listens for TCP, where callers need a key. The unix socket is always there."""


class InvokeSettings(Section, frozen=True, kw_only=True):
    """Lambda's own API over HTTP: invocations, and functions."""

    listen: Annotated[
        str,
        Meta(pattern=r"^([^\s:]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5})?$", description="HOST:PORT, or nothing for none"),
    ] = "127.0.0.1:7402"
    """Where functions are invoked over TCP, where callers need a key. The unix socket is always there."""


class MetricsSettings(Section, frozen=True, kw_only=True):
    """Metrics for Prometheus."""

    listen: Annotated[
        str,
        Meta(pattern=r"^([^\s:]+:\d{1,5}|\[[0-9a-fA-F:]+\]:\d{1,5})?$", description="HOST:PORT, or nothing for none"),
    ] = "127.0.0.1:7403"
    """Where /metrics is read. Whoever can connect may: there are names of functions and counts."""
    functions: Annotated[int, Meta(ge=0, le=16_384, description="a whole number up to 16384")] = 10_000
    """Functions that have series of their own, about forty each: those invoked most."""


class SandboxSettings(Section, frozen=True, kw_only=True):
    """How sandboxes are made."""

    uid_base: Annotated[
        int, Meta(ge=65_536, le=4_000_000_000, multiple_of=65_536, description="a multiple of 65536 from 65536 up")
    ] = 1_900_019_712
    """The first of the host's user ids given to sandboxes, 65,536 for each zygote; nobody else may own them."""
    zygotes_per_runtime: Annotated[int, Meta(ge=1, le=8, description="a whole number from 1 to 8")] = 2
    """Processes of each runtime that environments are forked from."""
    shells: Annotated[int, Meta(ge=1, le=256, description="a whole number from 1 to 256")] = 8
    """Sets of namespaces made ahead of demand."""
    tmp_pool: Annotated[int, Meta(ge=1, le=64, description="a whole number from 1 to 64")] = 4
    """File systems for /tmp made ahead of demand."""
    cpu: Annotated[str, Meta(pattern=r"^(weight|hard)$", description="weight or hard")] = "weight"
    """How CPU is given to environments. weight: in proportion to memory, and all that is idle besides; hard: never
    more than that share."""
    processes: Count = quotas.PROCESSES
    """Processes and threads that one environment may have."""
    descriptors: Count = quotas.DESCRIPTORS
    """File descriptors that one process in an environment may have open."""
    interpreters: list[AbsolutePath] = []
    """Python interpreters besides those found in /usr/bin, /usr/local/bin, and below pyenv's and uv's directories."""


class PoolSettings(Section, frozen=True, kw_only=True):
    """How many environments there may be."""

    memory_percent: Annotated[int, Meta(ge=1, le=100, description="a percentage from 1 to 100")] = 80
    """The share of the machine's memory that is for environments."""
    overcommit: Annotated[float, Meta(ge=1.0, le=100.0, description="a number from 1 to 100")] = 8.0
    """How many times that memory may be promised: a function's memory size is a ceiling that few reach, and an idle
    environment takes about a megabyte."""
    environments: Annotated[int, Meta(ge=0, le=10_000, description="a whole number up to 10000")] = 0
    """Environments that the node may have at a time, over all functions; 0: one for each two megabytes of the share
    above. When another is needed, the idle one that is least likely to be used soon ends."""
    keep_alive_seconds: Seconds = 600
    """How long an idle environment is kept, unless its room is needed. Of a function that was seen at work it is by its
    own idle times, longer or shorter."""
    keep_alive: Annotated[str, Meta(pattern=r"^(observed|fixed)$", description="observed or fixed")] = "observed"
    """observed: environments are kept idle as long as the function's own idle times make it worth while, at most six
    times the setting above, and one is there again when the next invocation is likely; fixed: as long as that
    setting says."""
    parked: Annotated[int, Meta(ge=0, le=1000, description="a whole number up to 1000")] = 16
    """Environments of one function, at most, that are started and initialised ahead of demand while more and more of
    its invocations come at once, or while it is called at all and takes long to start; 0: none. All together take at
    most an eighth of what the node may have."""
    spares: Annotated[int, Meta(ge=0, le=64, description="a whole number up to 64")] = 2
    """Sandboxes of one runtime, at most, that are made ahead of demand for whichever of its functions is called next:
    complete but for the function's code. As many as environments were started in the last seconds, and one; each takes
    about a megabyte. A runtime without functions, or of which none was started for an hour, has none, nor has any while
    memory is short. 0: none."""
    freeze_after_ms: Annotated[int, Meta(ge=0, le=3_600_000, description="whole milliseconds, at most an hour")] = 100
    """How long an environment is idle before it is frozen, with all that its function left running; 0: never. Freezing
    and thawing take about 0.1 ms each, so what is called more often than that stays as it is."""
    snapshot: Annotated[str, Meta(pattern=r"^(off|auto|on)$", description="off, auto or on")] = "off"
    """SnapStart for functions that do not ask for it: their environments begin as copies of one whose init phase is
    over (on), from the third on (auto: the second is copied), or do not (off). Python only."""
    scaling_period_ms: Annotated[
        int, Meta(ge=100, le=3_600_000, description="whole milliseconds from 100 to an hour")
    ] = 60_000
    """Over how long the utilization of provisioned concurrency is averaged for target tracking."""
    scale_out_periods: Count = 3
    """After so many periods in a row above the target there is more of it."""
    scale_in_periods: Count = 15
    """After so many periods in a row below nine tenths of the target there is less."""
    launches_per_second: Count = 1000
    """Environments of one function version started in a second, at most."""
    burst: Annotated[int, Meta(ge=0, le=1_000_000, description="a whole number up to 1000000")] = 1000
    """Environments that one function may get beyond those it has at once, and as many again, evenly, in every ten
    seconds; its further invocations wait for environments that become free. 0: without limit. As in Lambda."""
    waiting: Annotated[int, Meta(ge=0, le=100_000, description="a whole number up to 100000")] = 1000
    """Invocations of one function version that may wait for an environment; further ones are throttled."""


class LimitSettings(Section, frozen=True, kw_only=True):
    """The account's limits."""

    concurrency: Annotated[int, Meta(ge=1, le=100_000, description="a whole number from 1 to 100000")] = (
        quotas.CONCURRENCY_DEFAULT
    )
    """Invocations that may run at the same time; further ones are throttled."""
    unreserved: Annotated[int, Meta(ge=0, le=100_000, description="a whole number up to 100000")] = 0
    """Of that concurrency, what stays for functions without a reservation: reserved and provisioned concurrency leave
    it. 0: Lambda's 100, or a tenth of the concurrency where that is less."""
    stream_mb: Annotated[int, Meta(ge=1, le=1_048_576, description="whole megabytes from 1 to 1048576")] = (
        quotas.STREAM_BYTES // quotas.MEGABYTE
    )
    """Megabytes of a response that comes in parts; what is more is cut off, and the caller is told."""
    stream_burst_kb: Annotated[int, Meta(ge=32, le=1_048_576, description="whole kilobytes from 32 to 1048576")] = (
        quotas.STREAM_BURST_BYTES // 1024
    )
    """Kilobytes of such a response that pass at full speed."""
    stream_rate_kb: Annotated[int, Meta(ge=32, le=1_048_576, description="whole kilobytes from 32 to 1048576")] = (
        quotas.STREAM_RATE_BYTES // 1024
    )
    """Kilobytes of it that pass in a second afterwards."""
    stall_seconds: Annotated[int, Meta(ge=1, le=3600, description="whole seconds from 1 to 3600")] = 30
    """How long a caller may stand still while its answer is sent, that is take less than 16 KB of it; then its
    connection ends."""
    environment_ration: Annotated[
        int, Meta(ge=1000, le=1_000_000, description="whole microseconds from 1000 to 1000000")
    ] = 50_000
    """Microseconds of the dispatcher, roughly, that an environment may cost it in a second of its own accord: by calls
    of the Runtime API that nobody waits for, connections, the smallest of parts. Beyond it the environment waits."""
    code_storage_mb: Annotated[int, Meta(ge=1, description="whole megabytes")] = 75 * 1024
    """Megabytes of all packages together, as uploaded and unpacked."""
    code_files: Annotated[int, Meta(ge=1, description="a whole number from 1 up")] = 2_000_000
    """Files and directories of all packages together, as uploaded and unpacked."""
    disk_reserve_mb: Annotated[int, Meta(ge=0, description="whole megabytes")] = 0
    """Megabytes of the state directory's file system that stay free: below it functions are neither deployed nor are
    environments started. 0: two percent of it, at most 512 MB."""
    uploads: Annotated[int, Meta(ge=1, le=1000, description="a whole number from 1 to 1000")] = 16
    """Packages received at the same time; further ones are refused until one is done."""
    upload_seconds: Annotated[int, Meta(ge=1, le=3600, description="whole seconds from 1 to 3600")] = 30
    """How long the sender of a package may be silent."""
    init_seconds: Annotated[int, Meta(ge=1, le=900, description="whole seconds from 1 to 900")] = quotas.INIT_SECONDS
    """How long an environment's init phase may take; it is repeated inside the first invocation then, within the
    function's timeout."""


class DispatchSettings(Section, frozen=True, kw_only=True):
    """The dispatcher, which serves invocations."""

    loops: Annotated[int, Meta(ge=0, le=64, description="a whole number from 0 to 64")] = 1
    """Event loops, a thread each. 0: one on machines with fewer than four cores, else one for two cores, eight at most.
    Each takes about 8 MB, and a core when it is busy."""
    busy_percent: Annotated[int, Meta(ge=0, le=100, description="a whole number from 0 to 100")] = 75
    """Percent of a core at which a loop counts as busy: connections are kept on as few loops as can serve them below
    that, and move to others when it is passed. 0: each new connection goes to the loop with the fewest, and stays."""


class LogSettings(Section, frozen=True, kw_only=True):
    """How long the logs of functions are kept; the oldest go first."""

    function_mb: Annotated[int, Meta(ge=1, le=1_048_576, description="whole megabytes from 1 to 1048576")] = 32
    """Megabytes of the log of one function."""
    node_mb: Annotated[int, Meta(ge=0, le=1_073_741_824, description="whole megabytes up to 1073741824")] = 4096
    """Megabytes of the logs of all functions together. 0: no such limit."""
    days: Annotated[int, Meta(ge=0, le=36_500, description="whole days up to 36500")] = 30
    """Days after which logs are removed, those of deleted functions too. 0: never."""


class EventSettings(Section, frozen=True, kw_only=True):
    """Asynchronous invocation: events are kept on the disk until their function has handled them."""

    retry_delay_ms: Annotated[int, Meta(ge=1, le=86_400_000, description="whole milliseconds, at most a day")] = 60_000
    """Before the first retry of an event whose function failed; before the second twice that."""
    dead: Annotated[int, Meta(ge=0, le=100_000, description="a whole number up to 100000")] = 10_000
    """Events that were given up and are kept, to be listed and to be tried again; the oldest go first."""
    chain: Annotated[int, Meta(ge=0, le=255, description="a whole number up to 255")] = 16
    """How often functions may call functions asynchronously within one trace: the event after that is given up. 0:
    without end."""
    segment_mb: Annotated[int, Meta(ge=8, le=1024, description="whole megabytes from 8 to 1024")] = 32
    """Megabytes of one file of the event log; a thirty-second of the disk at most. Three are always there, so that what
    was accepted can be settled when the disk is full."""


class SnapshotSettings(Section, frozen=True, kw_only=True):
    """Snapshots of initialised environments (SnapStart)."""

    memory_mb: Annotated[int, Meta(ge=0, le=16_777_216, description="whole megabytes up to 16777216")] = 0
    """Megabytes of all snapshots together, and as many of those that are being made; beyond it the one that was used
    longest ago goes, of those that no environment has in its memory, and of those being made the largest is broken off.
    0: an eighth of the machine's memory."""
    seconds: Annotated[int, Meta(ge=1, le=3600, description="whole seconds from 1 to 3600")] = 60
    """How long writing one may take; one that takes longer is broken off."""
    uses: Annotated[int, Meta(ge=1, le=1_000_000, description="a whole number from 1 to 1000000")] = 1000
    """Environments that begin with one, which share its address layout, before it is made anew."""
    minutes: Annotated[int, Meta(ge=1, le=10_080, description="whole minutes up to a week")] = 60
    """After which one is made anew."""


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of them."""

    node: NodeSettings = NodeSettings()
    api: ApiSettings = ApiSettings()
    invoke: InvokeSettings = InvokeSettings()
    metrics: MetricsSettings = MetricsSettings()
    sandbox: SandboxSettings = SandboxSettings()
    pools: PoolSettings = PoolSettings()
    limits: LimitSettings = LimitSettings()
    dispatch: DispatchSettings = DispatchSettings()
    logs: LogSettings = LogSettings()
    events: EventSettings = EventSettings()
    snapshots: SnapshotSettings = SnapshotSettings()


class Interpreter(Struct, frozen=True, kw_only=True):
    """A Python that may become a runtime: found by its name, not started yet. Its index in the list is its number."""

    path: str
    prefix: str
    """The directory that a sandbox must see for it to work."""


class Boot(Struct, frozen=True, kw_only=True):
    """What `runtimed` hands the control plane by way of the launcher, as JSON in RUNTIMED_SETTINGS."""

    build: str
    settings: Settings
    interpreters: list[Interpreter]
    socket_gid: int


_SETTING_AT = re.compile(r"(?: - at `\$\.?(?P<path>[^`]*)`)$")
_UNKNOWN = re.compile(r"unknown field `(?P<field>[^`]+)`")

boot_encoder = msgspec.json.Encoder()
boot_decoder = msgspec.json.Decoder(Boot)


def load(
    file: Path | None,
    environment: Mapping[str, str],
    overrides: Mapping[str, str],
    origins: dict[str, str] | None = None,
) -> Settings:
    """`file` None: the default one, if it exists. `overrides`: "section.key" to its text, from the command line.

    `origins` is told where each setting that is not a default came from, by "section.key".
    """
    path = file or DEFAULT_FILE
    origins = {} if origins is None else origins
    table: dict[str, Any] = {}
    try:
        table = tomllib.loads(path.read_text())
    except FileNotFoundError:
        if file is not None:
            raise SettingsError(f"{path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"cannot read {path}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is not TOML: {error}") from None
    try:
        msgspec.convert(table, Settings)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{path}: {_explain(error)}") from None
    origins.update({f"{section}.{key}": str(path) for section, keys in table.items() for key in keys})
    for name, text in _from_environment(environment).items():
        section, key = name.split(".")
        origins[name] = f"{PREFIX}{section.upper()}_{key.upper()}"
        table.setdefault(section, {})[key] = _parse(name, text, origins[name])
    for name, text in overrides.items():
        section, key = name.split(".")
        origins[name] = f"--{key.replace('_', '-')}"
        table.setdefault(section, {})[key] = _parse(name, text, origins[name])
    return msgspec.convert(table, Settings)


def _from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """ "section.key" to text. A variable of a known section with an unknown key is refused: it is misspelled."""
    found: dict[str, str] = {}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX):
            continue
        for section, kind in _sections().items():
            head = f"{PREFIX}{section.upper()}_"
            if not variable.startswith(head):
                continue
            key = variable.removeprefix(head).lower()
            if key not in kind.__struct_fields__:
                known = ", ".join(f"{head}{name.upper()}" for name in kind.__struct_fields__)
                raise SettingsError(f"{variable}: no such setting; there are {known}")
            found[f"{section}.{key}"] = text
    return found


def _sections() -> dict[str, type[Section]]:
    hints = get_type_hints(Settings)
    return {name: hints[name] for name in Settings.__struct_fields__}


def _parse(name: str, text: str, source: str) -> Any:
    section, key = name.split(".")
    kind = get_type_hints(_sections()[section], include_extras=True)[key]
    value: object = text
    if get_origin(kind) is list:
        value = [part.strip() for part in text.split(",") if part.strip()]
    try:
        return msgspec.convert(value, kind, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{source}={text!r}: {_wanted(kind) or _explain(error)}") from None


def _explain(error: msgspec.ValidationError) -> str:
    text = str(error)
    at = _SETTING_AT.search(text)
    path = at["path"] if at else ""
    if unknown := _UNKNOWN.search(text):
        return f"{f'{path}.' if path else ''}{unknown['field']}: no such setting"
    section, _, key = path.partition(".")
    kind = None
    if section in _sections() and key:
        kind = get_type_hints(_sections()[section], include_extras=True).get(key.split("[")[0])
    return f"{path or 'the file'}: {_wanted(kind) or _SETTING_AT.sub('', text)}"


def _wanted(kind: object) -> str:
    """What a setting's type accepts, from its description."""
    for part in (kind, *get_args(kind)):
        if get_origin(part) is Annotated:
            for extra in get_args(part)[1:]:
                if isinstance(extra, Meta) and extra.description:
                    return f"must be {extra.description}"
    return ""


def cgroup_name(run_dir: str) -> str:
    """Of the control group that holds everything of the node with this run directory."""
    return f"runtimed-{hashlib.sha256(run_dir.encode()).hexdigest()[:8]}"


def build_id() -> str:
    """Which build this is: the version, and what the processes must agree on, the protocol. Processes that differ
    in it do not work together."""
    return f"{runtimed.__version__}+{hashlib.sha256(Path(wire.__file__).read_bytes()).hexdigest()[:12]}"
