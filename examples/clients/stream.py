"""One prompt, step by step: python examples/clients/stream.py ["a prompt"] [host:port]."""

import asyncio
import sys

from arbitrage.client import (
    AsyncClient,
    CandidateArrived,
    CandidatesScored,
    Decided,
    Result,
    TokenDelta,
    environment,
)


async def main(text: str = "Wo liegt Lima?", address: str = "127.0.0.1:50051") -> None:
    """Prints what happens as it happens."""
    async with AsyncClient(address, **environment()) as client:
        async for event in client.stream(text, timeout_seconds=120):
            match event:
                case Decided(decision):
                    print("asked:", ", ".join(decision.arms))
                case TokenDelta(_, piece):
                    print(piece, end="", flush=True)
                case CandidateArrived(candidate):
                    print(f"{candidate.teacher}: {candidate.latency_seconds:.2f} s")
                case CandidatesScored(candidates):
                    print("rewards:", {one.teacher: one.reward for one in candidates})
                case Result(sample):
                    print("won:", sample.winner.teacher if sample.winner else "nobody")


asyncio.run(main(*sys.argv[1:]))
