"""The seams of the product: what the engine needs, and adapters provide.

Every port has one contract test suite under `tests/contracts/`, run over
every implementation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from typing import Any

    import numpy as np
    import numpy.typing as npt

    from arbitrage.errors import NoTeacherAvailable
    from arbitrage.events import Event
    from arbitrage.types import (
        Candidate,
        Completion,
        Context,
        Decision,
        Estimate,
        Message,
        Prompt,
        Sample,
        Score,
        TeacherInfo,
        Verdict,
    )


class Teacher(Protocol):
    """A model that answers prompts, with its sampling settings fixed."""

    @property
    def name(self) -> str:
        """The arm's id."""

    async def complete(
        self, messages: Sequence[Message], on_delta: Callable[[str], None] | None = None
    ) -> Sequence[Completion]:
        """Answers a conversation whose last message is the user's.

        Cancelling the call stops the work behind it. Never blocks the loop.

        Args:
            messages: the conversation.
            on_delta: hears the first answer's text piece by piece, where the teacher
                streams; together the pieces are that answer.

        Returns:
            As many answers as the sampling's `n`, at least one.

        Raises:
            TeacherError: this call failed; another may succeed.
        """

    async def close(self) -> None:
        """Frees what the teacher holds; calls under way are cancelled."""


class Pool(Protocol):
    """The teachers that may be called now."""

    def available(self, prompt: Prompt) -> Sequence[str]:
        """Arms that may be asked for this prompt now, in the configuration's order."""

    async def another(self, prompt: Prompt, asked: Collection[str], deadline: float) -> bool:
        """Waits until an arm not yet asked may be asked again; False if none will be in time."""

    def expected_cost(self, arm: str, prompt: Prompt) -> float:
        """What a call is likely to cost by the teacher's price, in US dollars."""

    def refusal(self, prompt: Prompt) -> NoTeacherAvailable:
        """Why nobody may be asked for this prompt now, and when to try again."""

    async def ask(
        self,
        arm: str,
        prompt: Prompt,
        *,
        tried: Collection[str] = (),
        deadline: float | None = None,
        on_delta: Callable[[str], None] | None = None,
    ) -> Sequence[Candidate]:
        """Asks one teacher; a failure comes back as one failed candidate, never raised.

        Args:
            arm: who is asked.
            prompt: what is asked.
            tried: arms that have had no good answer to this prompt; the others might.
            deadline: time of the loop's clock at which to give up.
            on_delta: hears the answer piece by piece, where the teacher streams.

        Returns:
            One candidate an answer, at least one.
        """

    def describe(self) -> Sequence[TeacherInfo]:
        """Every teacher of the configuration, available or not."""


class LanguageDetector(Protocol):
    """Tells the language of a text."""

    def detect(self, text: str) -> str:
        """The normalised tag; `und` where it cannot be told with confidence."""


class Gates(Protocol):
    """Cheap checks that an answer has to pass before it is scored."""

    async def inspect(
        self, prompt: Prompt, candidates: Sequence[Candidate]
    ) -> Sequence[tuple[Verdict, ...]]:
        """The verdicts against each candidate, in order; empty for one that passes or failed."""

    async def close(self) -> None:
        """Frees what the gates hold."""


class RewardModel(Protocol):
    """Ranks the candidates of one prompt."""

    @property
    def queue_depth(self) -> int:
        """Candidates that wait to be scored, or are being scored now."""

    async def score(
        self, prompt: Prompt, candidates: Sequence[Candidate]
    ) -> Sequence[Score | None]:
        """One score a candidate, in order; every candidate has passed the gates.

        Cancelling the call stops the work behind it, where that has not begun.

        Returns:
            None for a candidate of which it has no opinion: rules without an expected
            answer, a judge asked about its own.

        Raises:
            RewardError: nothing can be scored now.
        """

    async def close(self) -> None:
        """Frees what the model holds."""


class Calibration(Protocol):
    """Makes the scores of a reward model comparable. Synchronous, and fast."""

    def calibrate(self, prompt: Prompt, candidates: Sequence[Candidate]) -> list[Candidate]:
        """The candidates of one prompt, those with a score with their calibrated reward.

        Calling it again with more candidates of the prompt, after another wave, puts all
        of them on one scale: it reads the raw scores, not the rewards of last time.
        """

    def learn(self, prompt: Prompt, candidates: Sequence[Candidate]) -> None:
        """Learns from all candidates of one prompt, as `calibrate` has returned them."""

    def state(self) -> Mapping[str, Any]:
        """All it has learned: plain values and arrays."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Becomes what `state` was taken from."""


class Encoder(Protocol):
    """Turns a prompt's text into features."""

    async def encode(self, text: str) -> npt.NDArray[np.float32]:
        """The features of one text, `(features,)`; never blocks the loop for long."""

    async def close(self) -> None:
        """Frees what the encoder holds."""


class Policy(Protocol):
    """Maps a context to a decision, and learns from rewards. Synchronous and pure."""

    @property
    def kind(self) -> str:
        """Its name in a configuration, and in the decisions it makes."""

    @property
    def version(self) -> int:
        """How many updates it has learned from."""

    def select(
        self,
        context: Context,
        arms: Sequence[str],
        seen: Sequence[Candidate],
        *,
        wave: int = 0,
        elapsed: float = 0.0,
        most: int | None = None,
    ) -> Decision | None:
        """Chooses the next wave, or None when no further arm is worth asking.

        Args:
            context: what may be known of the prompt.
            arms: arms not yet asked for this prompt, at least one.
            seen: what the earlier waves brought, scored; empty at first.
            wave: how many waves were asked before.
            elapsed: seconds since the prompt came.
            most: arms that may be asked in all waves, those in `seen` included; None for
                as many as it is configured to ask.
        """

    def shares(self, context: Context, arms: Sequence[str]) -> Sequence[float]:
        """How likely each arm is to be asked in the first wave, were this a prompt now."""

    def update(self, context: Context, candidates: Sequence[Candidate]) -> None:
        """Learns from every candidate of one prompt, not from the winner alone."""

    def judge(self, context: Context, arm: str, reward: float) -> None:
        """Learns from a reward that came later, on the scale of those it has learned from."""

    def estimates(
        self, arms: Sequence[str], languages: Collection[str] | None = None
    ) -> Sequence[Estimate]:
        """What it believes of the arms, in these languages or in all it has seen."""

    def state(self) -> Mapping[str, Any]:
        """All it has learned and how it would go on, for a snapshot: plain values and arrays."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Becomes what `state` was taken from, as far as its own settings let it.

        Raises:
            SnapshotError: the state is not one of a policy of this kind.
        """

    def merge(self, state: Mapping[str, Any]) -> None:
        """Adds what another replica has learned, as if this one had seen its prompts, too.

        Raises:
            SnapshotError: the state is not one of a policy of this kind.
        """


class Sink(Protocol):
    """Where samples go."""

    @property
    def pending(self) -> int:
        """Samples that are durable, but not yet where readers look."""

    @property
    def stalled(self) -> bool:
        """Whether samples cannot be stored now, and wait."""

    async def write(self, sample: Sample) -> int | None:
        """Stores a sample; its return means durable. Writing one twice stores one.

        Those who wait go on in the order of the numbers, with nothing in between.

        Returns:
            Its number, from 1 in the order in which samples became durable; None if it
            was stored before.

        Raises:
            SinkError: the sample was not stored.
        """

    async def close(self) -> None:
        """Publishes what is pending."""


class Observer(Protocol):
    """Hears what happens: metrics, a progress display, a stream to a client."""

    def observe(self, event: Event) -> None:
        """Takes one event; returns at once and never raises."""
