"""Puts the parts of this folder together: what performs operations on functions, versions and aliases."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from runtimed.deployment.aliases import AliasDeployer
from runtimed.deployment.beginning import Beginning
from runtimed.deployment.deployer import Deployer
from runtimed.deployment.receive import Receiver
from runtimed.deployment.routes import Routes
from runtimed.deployment.steps import Steps
from runtimed.deployment.subjects import Parts
from runtimed.dispatch.control import Dispatcher
from runtimed.model import wire
from runtimed.model.arn import Identity
from runtimed.sandbox.launcher import Launcher
from runtimed.store.aliases import AliasStore
from runtimed.store.database import Database
from runtimed.store.functions import FunctionStore
from runtimed.store.packages import CodeStore
from runtimed.store.qualified import QualifiedReader
from runtimed.store.versions import VersionStore


class Deployment:
    """All of it."""

    def __init__(
        self,
        *,
        identity: Identity,
        database: Database,
        functions: FunctionStore,
        code: CodeStore,
        receiver: Receiver,
        steps: Steps,
        launcher: Launcher,
        dispatcher: Dispatcher,
        interpreter: Callable[[str], int | None],
        pool: Callable[[wire.PutTarget], wire.PutPool],
        moving: Callable[[str, str, str], AbstractAsyncContextManager[None]],
    ) -> None:
        """`interpreter`, `pool`: as for Beginning; `moving`: as for AliasDeployer."""
        self.versions = VersionStore(database, functions.rows)
        aliases = AliasStore(database, identity)
        self.routes = Routes(functions, aliases, dispatcher)
        self.parts = Parts(functions=functions, versions=self.versions, steps=steps, routes=self.routes)
        self.deployer = Deployer(self.parts, receiver)
        self.aliases = AliasDeployer(identity, aliases, self.versions, self.routes, self.deployer, moving)
        self.reader = QualifiedReader(database, identity, functions, self.versions, aliases)
        self.beginning = Beginning(
            parts=self.parts,
            aliases=aliases,
            code=code,
            launcher=launcher,
            dispatcher=dispatcher,
            interpreter=interpreter,
            pool=pool,
        )
