"""One prompt: python examples/clients/complete.py ["a prompt"] [host:port]."""

import sys

from arbitrage.client import Client, environment
from arbitrage.errors import ArbitrageError

text = sys.argv[1] if len(sys.argv) > 1 else "Wo liegt Lima?"
address = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1:50051"  # noqa: PLR2004

with Client(address, **environment()) as client:
    try:
        sample = client.complete(text, include_candidates=True, timeout_seconds=120)
    except ArbitrageError as error:
        sys.exit(f"{type(error).__name__}: {error}; again in {error.retry_after_seconds} s")
    for candidate in sample.candidates:
        ended = candidate.failure.outcome if candidate.failure else f"reward {candidate.reward}"
        print(f"{candidate.teacher}: {ended}", file=sys.stderr)
    if sample.winner and sample.winner.completion:
        print(sample.winner.completion.text)
