"""A verifier's reward: python examples/clients/feedback.py [host:port].

The policy that chose the teacher learns from it as from a reward of the reward model.
"""

import sys

from arbitrage.client import Client, environment

address = sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:50051"

with Client(address, **environment()) as client:
    sample = client.complete("Wie viel ist 6 mal 7?", language="de", timeout_seconds=120)
    answer = sample.winner and sample.winner.completion
    reward = 1.0 if answer and "42" in answer.text else -1.0
    # the id makes the call safe to repeat: what it names counts once
    new = client.feedback(
        sample, reward, source="verifier", feedback_id=f"{sample.sample_id}-answer-key"
    )
    print(f"{sample.sample_id}: {reward:+.0f} {'recorded' if new else 'had been recorded before'}")
    for estimate in client.policy("de").estimates:
        print(f"{estimate.arm}: expected reward {estimate.reward:+.2f}, asked {estimate.share:.0%}")
