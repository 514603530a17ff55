"""Lambda's operations that this node does not have yet, by their routes, so that a caller is told so by name.

From the service's published model; tests/conformance compares the two. An operation that is added to `api` leaves this
page. (GetLayerVersionByArn shares its route with ListLayers and differs in the query.)
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from runtimed.api.operation import Route

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROUTES = """
InvokeAsync POST /2014-11-13/functions/{FunctionName}/invoke-async
ListEventSourceMappings GET /2015-03-31/event-source-mappings
CreateEventSourceMapping POST /2015-03-31/event-source-mappings
DeleteEventSourceMapping DELETE /2015-03-31/event-source-mappings/{UUID}
GetEventSourceMapping GET /2015-03-31/event-source-mappings/{UUID}
UpdateEventSourceMapping PUT /2015-03-31/event-source-mappings/{UUID}
GetPolicy GET /2015-03-31/functions/{FunctionName}/policy
AddPermission POST /2015-03-31/functions/{FunctionName}/policy
RemovePermission DELETE /2015-03-31/functions/{FunctionName}/policy/{StatementId}
UntagResource DELETE /2017-03-31/tags/{Resource}
ListTags GET /2017-03-31/tags/{Resource}
TagResource POST /2017-03-31/tags/{Resource}
ListLayers GET /2018-10-31/layers
ListLayerVersions GET /2018-10-31/layers/{LayerName}/versions
PublishLayerVersion POST /2018-10-31/layers/{LayerName}/versions
DeleteLayerVersion DELETE /2018-10-31/layers/{LayerName}/versions/{VersionNumber}
GetLayerVersion GET /2018-10-31/layers/{LayerName}/versions/{VersionNumber}
GetLayerVersionPolicy GET /2018-10-31/layers/{LayerName}/versions/{VersionNumber}/policy
AddLayerVersionPermission POST /2018-10-31/layers/{LayerName}/versions/{VersionNumber}/policy
RemoveLayerVersionPermission DELETE /2018-10-31/layers/{LayerName}/versions/{VersionNumber}/policy/{StatementId}
ListCodeSigningConfigs GET /2020-04-22/code-signing-configs
CreateCodeSigningConfig POST /2020-04-22/code-signing-configs
DeleteCodeSigningConfig DELETE /2020-04-22/code-signing-configs/{CodeSigningConfigArn}
GetCodeSigningConfig GET /2020-04-22/code-signing-configs/{CodeSigningConfigArn}
UpdateCodeSigningConfig PUT /2020-04-22/code-signing-configs/{CodeSigningConfigArn}
ListFunctionsByCodeSigningConfig GET /2020-04-22/code-signing-configs/{CodeSigningConfigArn}/functions
DeleteFunctionCodeSigningConfig DELETE /2020-06-30/functions/{FunctionName}/code-signing-config
GetFunctionCodeSigningConfig GET /2020-06-30/functions/{FunctionName}/code-signing-config
PutFunctionCodeSigningConfig PUT /2020-06-30/functions/{FunctionName}/code-signing-config
GetRuntimeManagementConfig GET /2021-07-20/functions/{FunctionName}/runtime-management-config
PutRuntimeManagementConfig PUT /2021-07-20/functions/{FunctionName}/runtime-management-config
DeleteFunctionUrlConfig DELETE /2021-10-31/functions/{FunctionName}/url
GetFunctionUrlConfig GET /2021-10-31/functions/{FunctionName}/url
CreateFunctionUrlConfig POST /2021-10-31/functions/{FunctionName}/url
UpdateFunctionUrlConfig PUT /2021-10-31/functions/{FunctionName}/url
ListFunctionUrlConfigs GET /2021-10-31/functions/{FunctionName}/urls
GetFunctionRecursionConfig GET /2024-08-31/functions/{FunctionName}/recursion-config
PutFunctionRecursionConfig PUT /2024-08-31/functions/{FunctionName}/recursion-config
ListCapacityProviders GET /2025-11-30/capacity-providers
CreateCapacityProvider POST /2025-11-30/capacity-providers
DeleteCapacityProvider DELETE /2025-11-30/capacity-providers/{CapacityProviderName}
GetCapacityProvider GET /2025-11-30/capacity-providers/{CapacityProviderName}
UpdateCapacityProvider PUT /2025-11-30/capacity-providers/{CapacityProviderName}
ListFunctionVersionsByCapacityProvider GET /2025-11-30/capacity-providers/{CapacityProviderName}/function-versions
GetFunctionScalingConfig GET /2025-11-30/functions/{FunctionName}/function-scaling-config
PutFunctionScalingConfig PUT /2025-11-30/functions/{FunctionName}/function-scaling-config
SendDurableExecutionCallbackFailure POST /2025-12-01/durable-execution-callbacks/{CallbackId}/fail
SendDurableExecutionCallbackHeartbeat POST /2025-12-01/durable-execution-callbacks/{CallbackId}/heartbeat
SendDurableExecutionCallbackSuccess POST /2025-12-01/durable-execution-callbacks/{CallbackId}/succeed
DeleteDurableExecution DELETE /2025-12-01/durable-executions/{DurableExecutionArn}
GetDurableExecution GET /2025-12-01/durable-executions/{DurableExecutionArn}
CheckpointDurableExecution POST /2025-12-01/durable-executions/{DurableExecutionArn}/checkpoint
GetDurableExecutionHistory GET /2025-12-01/durable-executions/{DurableExecutionArn}/history
PauseDurableExecution POST /2025-12-01/durable-executions/{DurableExecutionArn}/pause
ResumeDurableExecution POST /2025-12-01/durable-executions/{DurableExecutionArn}/resume
GetDurableExecutionState GET /2025-12-01/durable-executions/{DurableExecutionArn}/state
StopDurableExecution POST /2025-12-01/durable-executions/{DurableExecutionArn}/stop
ListDurableExecutionsByFunction GET /2025-12-01/functions/{FunctionName}/durable-executions
DeleteResourcePolicy DELETE /2026-07-09/resource-policy/{ResourceArn}
GetResourcePolicy GET /2026-07-09/resource-policy/{ResourceArn}
PutResourcePolicy PUT /2026-07-09/resource-policy/{ResourceArn}
"""


def _read(text: str) -> Mapping[str, Route]:
    rows = [line.split() for line in text.strip().splitlines()]
    return MappingProxyType({name: Route(method, path) for name, method, path in rows})


ABSENT: Mapping[str, Route] = _read(_ROUTES)
