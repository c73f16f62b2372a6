"""Response bodies; fields that this client does not read are ignored.

Declared here because a client knows the contract, not the services' code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from devtools.merchant.errors import PlatformError

if TYPE_CHECKING:
    from devtools.merchant.client import Response


class _Body(BaseModel):
    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)


class Token(_Body):
    """The response to a login."""

    token: Annotated[str, Field(pattern=r"^[!-~]+$")]
    expires_in: Annotated[float, Field(ge=0)]


class Event(_Body):
    """A line of a transaction's timeline."""

    model_config = ConfigDict(extra="allow")

    event: str
    at: AwareDatetime

    @property
    def details(self) -> dict[str, object]:
        """All other fields."""
        return dict(self.__pydantic_extra__ or {})


class Transaction(_Body):
    """A transaction."""

    id: str
    amount: int
    currency: str
    payment_method: str
    status: Literal["queued", "processing", "captured", "declined", "failed"]
    created_at: AwareDatetime
    updated_at: AwareDatetime
    attempts: int
    psp_reference: str | None = None
    decline_code: str | None = None
    loyalty_points: int | None = None
    timeline: list[Event]

    @property
    def is_final(self) -> bool:
        """Whether the status is final."""
        return self.status in ("captured", "declined", "failed")

    @property
    def milliseconds(self) -> float:
        """From acceptance to the last change, by the platform's clock."""
        return (self.updated_at - self.created_at).total_seconds() * 1000


class Page(_Body):
    """Transactions, newest first."""

    transactions: list[Transaction]
    next_cursor: str | None = None


class Credit(_Body):
    """The points for one captured transaction."""

    transaction_id: str
    points: int
    amount: int
    currency: str
    at: AwareDatetime


class Loyalty(_Body):
    """A merchant's points and newest credits."""

    points: int
    ledger: list[Credit]
    next_cursor: str | None = None


ModelT = TypeVar("ModelT", bound=BaseModel)


def read(model: type[ModelT], response: Response) -> ModelT:
    """The response's body as a `model`.

    Raises:
        PlatformError: the body does not match; the message names the fields.
    """
    try:
        return model.model_validate(response.body)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, fault["loc"])) or "body" for fault in error.errors())
        raise PlatformError(
            f"{response.url} answered {response.status} in an unknown shape ({fields})",
            request_id=response.request_id,
            hint="is that the platform, and as old as this client?",
        ) from None
