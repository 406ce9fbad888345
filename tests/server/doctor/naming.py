"""A service that has the contract's name and nothing else."""

from collections.abc import Mapping

from grpclib import const


class CreditService:
    """Serves one method that no test calls."""

    def __mapping__(self) -> Mapping[str, const.Handler]:
        async def nothing(_: object) -> None:
            """Answer nothing."""

        unary = const.Cardinality.UNARY_UNARY
        return {
            "/credit.v1.CreditService/UseCredits": const.Handler(nothing, unary, object, object)
        }
