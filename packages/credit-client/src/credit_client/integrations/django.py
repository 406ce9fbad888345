"""Makes a Django project's client from its settings; a middleware handles its errors.

    CREDITS = {"target": "localhost:50051"}
    MIDDLEWARE = [..., "credit_client.integrations.django.CreditMiddleware"]

A view calls `request.credits.use(...)`. Other code calls `get_credits().use(...)`. Needs the extra
`django`.
"""

from collections.abc import Callable
from functools import cache

from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse

from credit_client.errors import CreditError
from credit_client.integrations import problem_of
from credit_client.sync import CreditClient


@cache
def get_credits() -> CreditClient:
    """Return the process's client, made from `settings.CREDITS`: the arguments of `CreditClient`.

    Without that setting, `CREDIT_*` environment variables apply. Forked workers share the object,
    and each opens connections of its own.
    """
    return CreditClient(**getattr(settings, "CREDITS", {}))


class CreditMiddleware:
    """Sets `request.credits`, and turns a `CreditError` of a view into a 402, 409, 429 or 503.

    See `credit_client.integrations.problem_of`. Other errors remain a 500.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        """Take the rest of the stack, as Django passes it."""
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Pass a request on, with the client."""
        request.credits = get_credits()
        return self._get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Return the response to an error of the service; None for all others."""
        problem = problem_of(error) if isinstance(error, CreditError) else None
        if problem is None:
            return None
        return JsonResponse(problem.body, status=problem.status, content_type=problem.media_type)
