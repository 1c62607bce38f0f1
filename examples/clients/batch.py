"""Many prompts over one stream: python examples/clients/batch.py PROMPTS.txt|- [host:port].

A line of the file is a prompt; the answers are JSON lines, in the order in which they are done. A
connection that is lost is taken up again, and no prompt is paid for twice.
"""

import json
import sys
from pathlib import Path

from arbitrage.client import Client, environment

source = sys.argv[1] if len(sys.argv) > 1 else "-"
address = sys.argv[2] if len(sys.argv) > 2 else "127.0.0.1:50051"  # noqa: PLR2004

with (
    sys.stdin if source == "-" else Path(source).open(encoding="utf-8") as lines,
    Client(address, **environment()) as client,
):
    prompts = (text for line in lines if (text := line.strip()))
    for outcome in client.arbitrate(prompts):
        winner = outcome.sample.winner if outcome.sample else None
        row = {
            "id": outcome.request.request_id,
            "prompt": outcome.request.prompt.text,
            "teacher": winner and winner.teacher,
            "answer": winner and winner.completion and winner.completion.text,
            "error": outcome.error and str(outcome.error),
        }
        print(json.dumps(row, ensure_ascii=False), flush=True)
