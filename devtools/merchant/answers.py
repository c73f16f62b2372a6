"""What the platform answers, as far as this client reads it. Fields it does not know are kept out.

Declared here and not taken from the services: a client knows the contract, not their code.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from devtools.merchant.errors import PlatformError

if TYPE_CHECKING:
    from devtools.merchant.client import Answer


class _Read(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", hide_input_in_errors=True)


class Token(_Read):
    """What a login gives."""

    token: str
    expires_in: Annotated[float, Field(ge=0)]


class Event(BaseModel):
    """A line of a transaction's timeline; whatever else it says is shown as it is."""

    model_config = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True)

    event: str
    at: AwareDatetime

    @property
    def details(self) -> dict[str, object]:
        """What the event says besides its name and time."""
        return dict(self.__pydantic_extra__ or {})


class Transaction(_Read):
    """A transaction as it stands."""

    model_config = ConfigDict(strict=False)  # times come as text

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
        """Whether this status never changes again."""
        return self.status in ("captured", "declined", "failed")

    @property
    def milliseconds(self) -> float:
        """From acceptance to the last change, by the platform's clock."""
        return (self.updated_at - self.created_at).total_seconds() * 1000


class Page(_Read):
    """Transactions, newest first."""

    transactions: list[Transaction]
    next_cursor: str | None = None


class Credit(_Read):
    """The points for one captured transaction."""

    model_config = ConfigDict(strict=False)  # times come as text

    transaction_id: str
    points: int
    amount: int
    currency: str
    at: AwareDatetime


class Loyalty(_Read):
    """A merchant's points, and the newest credits they come from."""

    points: int
    ledger: list[Credit]
    next_cursor: str | None = None


ModelT = TypeVar("ModelT", bound=BaseModel)


def read(model: type[ModelT], answer: Answer) -> ModelT:
    """The answer's body as a `model`.

    Raises:
        PlatformError: the body is of another shape; the text names the fields.
    """
    try:
        return model.model_validate(answer.body)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, fault["loc"])) or "body" for fault in error.errors())
        raise PlatformError(
            f"{answer.url} answered {answer.status} in an unknown shape ({fields})",
            request_id=answer.request_id,
            hint="is that the platform, and as old as this client?",
        ) from None
