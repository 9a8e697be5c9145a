"""Objects that answer any method, in both colours, as mypy and pyright see them.  Never run."""

from typing import Any, assert_type

import capmarshal as cm
from capmarshal import aio


class Passing(cm.Forwarder):
    def __init__(self, to: cm.Capability) -> None:
        self._to = to

    @cm.raises(PermissionError)
    def forward(self, call: cm.UntypedCall) -> cm.UntypedResult:
        assert_type(call.method, str)
        assert_type(call.payload, bytes)
        assert_type(call.table, list[Any] | tuple[Any, ...])
        result = cm.forward(call, to=self._to)
        assert_type(result, cm.UntypedResult)
        return cm.UntypedResult(result.payload, [*result.table])


class AsyncPassing(cm.Forwarder):
    def __init__(self, to: cm.Capability) -> None:
        self._to = to

    async def forward(self, call: cm.UntypedCall) -> cm.UntypedResult:
        result = await aio.forward(cm.UntypedCall(call.method, call.payload, call.table), to=self._to)
        assert_type(result, cm.UntypedResult)
        return result


class Silent(cm.Forwarder):
    def forward(self, call: cm.UntypedCall) -> bytes:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        return call.payload


def serve(entrypoint: cm.Entrypoint, awaited: aio.Entrypoint, to: cm.Capability) -> None:
    assert_type(entrypoint.grant(Passing(to), label="traced"), cm.Capability)
    assert_type(awaited.manage(AsyncPassing(to)), cm.Capability)
    entrypoint.manage(cm.Forwarder())  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]
