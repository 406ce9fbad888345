"""Let two tenants set and read the policies of all apps; the model predicts each answer exactly."""

from typing import Any

from credit_models import (
    AppPolicy,
    GetAppPolicyRequest,
    GetAppPolicyResponse,
    SetAppPolicyRequest,
    SetAppPolicyResponse,
    SetSpendingCapRequest,
    SetSpendingCapResponse,
    SpendingCaps,
)
from credit_models.codec import decode, encode
from grpc_fuzz.model import Reply
from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.fuzz.tenant_model import Policies, PolicyChange, Refused
from tests.fuzz.tenants_machine import assert_refused
from tests.fuzz.two_tenants import TwoTenants, apps, whose

_SERVICE = "/credit.v1.LedgerService"
_caps = st.none() | st.builds(
    SpendingCaps, **dict.fromkeys(("per_hour", "per_day", "per_month"), st.sampled_from((None, 9)))
)
_changes = st.builds(SetSpendingCapRequest, caps=_caps) | st.builds(
    SetAppPolicyRequest, allow_negative=st.none() | st.booleans()
)


class TenantPoliciesMachine(TwoTenants):
    """Two tenants change policies, at any revision and in the name of any actor."""

    def __init__(self) -> None:
        super().__init__()
        self._policies = Policies()

    @rule(
        who=whose,
        app=apps,
        change=_changes,
        actor=st.sampled_from((0, 0, 0, 1)),
        ahead=st.none() | st.sampled_from((0, 0, -1, 1)),
        validate_only=st.sampled_from((False, False, False, True)),
        note=st.sampled_from(("", "", "", "no note is allowed")),
    )
    def change(
        self,
        who: int,
        app: int,
        change: PolicyChange,
        actor: int,
        ahead: int | None,
        validate_only: bool,
        note: str,
    ) -> None:
        revision = self._policies.of(self.apps[app]).revision
        # Any: the fields of either request.
        fields: dict[str, Any] = {
            "app_id": self.apps[app],
            "created_by": self.actors[(who + actor) % 2],
            "validate_only": validate_only,
            "expected_revision": None if ahead is None else max(0, revision + ahead),
        }
        if isinstance(change, SetSpendingCapRequest):
            request: PolicyChange = SetSpendingCapRequest(caps=change.caps, note=note, **fields)
        else:
            request = SetAppPolicyRequest(allow_negative=change.allow_negative, **fields)
        self._send(who, request)

    @rule(who=whose, shared=st.booleans(), allow=st.booleans())
    def change_and_retry(self, who: int, shared: bool, allow: bool) -> None:
        """Send a change and its retry, and another one, which expects the same revision."""
        app_id = self.apps[2 if shared else who]
        for allow_negative in (allow, allow, not allow):
            request = SetAppPolicyRequest(
                app_id=app_id,
                created_by=self.actors[who],
                allow_negative=allow_negative,
                expected_revision=self._policies.of(app_id).revision,
            )
            self._send(who, request)
            self._send(who, request)

    @rule(who=whose, app=apps)
    def see(self, who: int, app: int) -> None:
        app_id = self.apps[app]
        reply = self._call(who, "GetAppPolicy", GetAppPolicyRequest(app_id=app_id))
        expected = self._policies.seen(self.tenants[who], app_id)
        if isinstance(expected, Refused):
            assert_refused(reply, expected)
            return
        assert decode(GetAppPolicyResponse, reply.responses[0]).policy == expected

    def teardown(self) -> None:
        for who in range(2):
            for app in range(3):
                self.see(who, app)

    def _send(self, who: int, request: PolicyChange) -> None:
        expected = self._policies.predict(self.tenants[who], request)
        if isinstance(request, SetSpendingCapRequest):
            reply = self._call(who, "SetSpendingCap", request)
        else:
            reply = self._call(who, "SetAppPolicy", request)
        if isinstance(expected, Refused):
            assert_refused(reply, expected)
            return
        shown = _policy(request, reply)
        stored = self._policies.of(request.app_id)
        if expected.revision != stored.revision:
            # The time of a change is the server's own.
            assert shown.updated_at is not None
            expected.updated_at = shown.updated_at
        assert shown == expected, f"{request}: {shown} instead of {expected}"
        if not request.validate_only:
            self._policies.keep(expected)

    def _call(self, who: int, name: str, request: PolicyChange | GetAppPolicyRequest) -> Reply:
        return self.calls.send(self.tokens[who], f"{_SERVICE}/{name}", encode(request))


def _policy(request: PolicyChange, reply: Reply) -> AppPolicy:
    assert reply.status == "OK", f"{request} was answered {reply}"
    (message,) = reply.responses
    if isinstance(request, SetSpendingCapRequest):
        answer = decode(SetSpendingCapResponse, message)
        assert answer.receipt is None
        policy = answer.policy
    else:
        policy = decode(SetAppPolicyResponse, message).policy
    assert policy is not None
    return policy
