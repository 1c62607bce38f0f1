"""data-arbitrage: ask the models that are best in a language, keep the best answer, learn.

The core: values, ports, errors and the engine. Adapters live beside it
(`router`, `teachers`, `reward`, `sink`), and `assembly` puts them together.
"""

from arbitrage.engine import Engine
from arbitrage.errors import ArbitrageError
from arbitrage.types import Candidate, Decision, Message, Prompt, Sample

__all__ = ["ArbitrageError", "Candidate", "Decision", "Engine", "Message", "Prompt", "Sample"]
