"""`arbitrage run` from outside: real processes, interrupted, killed, and begun again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from sqlite3 import connect
from typing import TYPE_CHECKING

import duckdb
import pytest

from tests.processes import arbitrage, write_config

if TYPE_CHECKING:
    from collections.abc import Sequence

LANGUAGES = ("de", "fr", "ja")
ROOT = Path(__file__).parents[1]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Two teachers who take a while, so that there is something to interrupt."""
    path = write_config(tmp_path)
    text = path.read_text().replace(
        'kind = "scripted"\nquality', 'kind = "scripted"\nlatency_seconds = 0.02\nquality'
    )
    path.write_text(
        text.replace('[reward]\nkind = "scripted"', '[reward]\nkind = "scripted"\ngates = []')
    )
    return path


def write_prompts(path: Path, count: int, *more: str) -> Path:
    rows = [
        json.dumps({"prompt": f"Question {number}?", "language": LANGUAGES[number % 3]})
        for number in range(count)
    ]
    path.write_text("\n".join([*rows, *more]) + "\n", "utf-8")
    return path


def stored(folder: Path) -> Counter[str]:
    """How often each prompt is among what readers find."""
    files = duckdb.read_parquet(str(folder / "data" / "**" / "*.parquet"))
    rows = files.project("messages[1].content").fetchall()
    return Counter(text for (text,) in rows)


def once(count: int) -> Counter[str]:
    return Counter(f"Question {number}?" for number in range(count))


def accepted(folder: Path) -> int:
    with closing(connect(folder / "journal.sqlite")) as journal:
        ((count,),) = journal.execute("SELECT count(*) FROM samples").fetchall()
    return int(count)


def calls(folder: Path) -> int:
    with closing(connect(folder / "journal.sqlite")) as journal:
        ((count,),) = journal.execute("SELECT count(*) FROM completions").fetchall()
    return int(count)


def begin(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cli", *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(folder: Path, samples: int) -> None:
    """Waits until so many samples are durable."""
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        if (folder / "journal.sqlite").exists():
            try:
                if accepted(folder) >= samples:
                    return
            except Exception:  # noqa: BLE001, S110 - the file is being made
                pass
        time.sleep(0.01)
    raise AssertionError("it never got that far")


def test_a_job_answers_every_prompt_and_again_does_nothing(tmp_path: Path, config: Path) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", 60, "{bad", '{"prompt": " "}')
    folder = tmp_path / "done"
    ended = arbitrage("run", "-c", config, prompts, "-o", folder)
    assert (ended.code, ended.err) == (0, "")
    assert "60 prompts answered, 0 before, 2 rejected" in ended.out
    assert stored(folder) == once(60)
    rejected = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
    assert [one["line"] for one in rejected] == [61, 62]
    paid = calls(folder)
    again = arbitrage("run", "-c", config, prompts, "-o", folder)
    assert "0 prompts answered, 60 before, 2 rejected" in again.out
    assert (stored(folder), calls(folder)) == (once(60), paid)


def test_ctrl_c_finishes_what_is_in_flight_and_the_same_command_goes_on(
    tmp_path: Path, config: Path
) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", 3000)
    folder = tmp_path / "out"
    with begin("run", "-c", config, prompts, "-o", folder) as process:
        until(folder, 100)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert "in flight" in out
    between = accepted(folder)
    assert 100 <= between < 3000
    assert stored(folder).total() == between, "what was accepted is published"
    ended = arbitrage("run", "-c", config, prompts, "-o", folder)
    assert f"{3000 - between} prompts answered, {between} before" in ended.out
    assert stored(folder) == once(3000)


@pytest.mark.parametrize("after", [1, 150, 700])
def test_kill_9_loses_nothing_and_repeats_what_was_in_flight_at_most(
    tmp_path: Path, config: Path, after: int
) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", 1000)
    folder = tmp_path / "out"
    with begin("run", "-c", config, prompts, "-o", folder) as process:
        until(folder, after)
        process.kill()
    ended = arbitrage("run", "-c", config, prompts, "-o", folder)
    assert ended.code == 0, ended.err
    assert stored(folder) == once(1000)
    assert calls(folder) == 2000, "no completion is kept twice"


def test_what_standard_input_gave_is_not_lost_with_it(tmp_path: Path, config: Path) -> None:
    rows = write_prompts(tmp_path / "p.jsonl", 2000).read_bytes()
    folder = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "cli", "run", "-c", config, "-", "-o", folder],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdin
        process.stdin.write(rows)
        process.stdin.flush()
        until(folder, 50)
        process.kill()
    with closing(connect(folder / "journal.sqlite")) as journal:
        ((known,),) = journal.execute("SELECT count(*) FROM prompts").fetchall()
    assert known > accepted(folder)
    ended = arbitrage("run", "-c", config, "-", "-o", folder)
    assert ended.code == 0, ended.err
    assert stored(folder).total() == known


def test_what_has_changed_is_told_and_a_changed_reward_is_refused(
    tmp_path: Path, config: Path
) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", 9)
    folder = tmp_path / "out"
    run: Sequence[str | Path] = ("run", "-c", config, prompts, "-o", folder)
    arbitrage(*run)
    write_prompts(prompts, 12)
    config.write_text(config.read_text().replace('kind = "best_of"', 'kind = "thompson"'))
    told = arbitrage(*run)
    assert "p.jsonl: has changed" in told.out
    assert "changed since the last run: policy.kind; samples that are there stay" in told.out
    assert "3 prompts answered, 9 before" in told.out
    config.write_text(config.read_text().replace("gates = []", 'gates = ["empty"]'))
    refused = arbitrage(*run)
    assert refused.code == 2
    assert "reward.gates: has changed since" in refused.complaint
    assert "--mixed" in refused.complaint
    assert arbitrage(*run, "--mixed").code == 0


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [("none.jsonl", None, "none.jsonl"), ("p.txt", b"hello", "p.txt"), ("p.gz", b"x", "p.gz")],
)
def test_a_source_that_cannot_be_read_is_one_line(
    tmp_path: Path, config: Path, name: str, content: bytes | None, reason: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    ended = arbitrage("run", "-c", config, tmp_path / name, "-o", tmp_path / "out")
    assert ended.code == 2
    assert reason in ended.complaint
    assert not (tmp_path / "out").exists()


def test_a_limit_is_a_beginning(tmp_path: Path, config: Path) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", 50)
    folder = tmp_path / "out"
    for limit, count in (("10", 10), ("25", 25)):
        ended = arbitrage("run", "-c", config, prompts, "-o", folder, "--limit", limit)
        assert ended.code == 0, ended.err
        assert stored(folder) == once(count)


def test_what_was_said_before_and_what_evaluation_sets_ask_is_not_paid_for(
    tmp_path: Path, config: Path
) -> None:
    story = "Tell me a long story of a cat that learns to fly over the old town hall {}"
    leak = "How many eggs do sixteen ducks lay if each of them lays one egg a day"
    rows = [story.format("at night"), story.format("at night!"), "Why is the sky blue?", leak]
    prompts = tmp_path / "p.jsonl"
    lines = [
        json.dumps({"prompt": row, "language": "en", "id": f"p{i}"}) for i, row in enumerate(rows)
    ]
    prompts.write_text("\n".join(lines) + "\n")
    (tmp_path / "eval.jsonl").write_text(json.dumps({"question": leak}) + "\n")
    job = f'[job]\ndedupe = 0.8\ndecontaminate = ["{tmp_path}/eval.jsonl"]\n'
    config.write_text(f"{config.read_text()}\n{job}")
    folder = tmp_path / "out"
    for answered, before in ((2, 0), (0, 2)):
        ended = arbitrage("run", "-c", config, prompts, "-o", folder)
        assert f"{answered} prompts answered, {before} before, 2 rejected" in ended.out, ended
        told = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
        assert told[0]["reason"] == "says the same as prompt p0"
        assert "eval.jsonl, line 1" in told[1]["reason"]
    assert set(stored(folder)) == {rows[0], rows[2]}


def test_a_dry_run_tells_what_would_be_done_and_leaves_nothing(
    tmp_path: Path, config: Path
) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", 9, "{bad", '{"prompt": "Why?"}')
    folder = tmp_path / "out"
    told = arbitrage("run", "-c", config, prompts, "-o", folder, "--dry-run")
    assert (told.code, told.err) == (0, "")
    first, *others = told.out.splitlines()
    assert first == "10 prompts to answer, 0 answered, 1 rejected"
    assert "  3 in de" in others
    assert "  1 of a language to be detected" in others
    assert "p.jsonl:10: is not JSON" in others[-1]
    assert not folder.exists()
    arbitrage("run", "-c", config, prompts, "-o", folder, "--limit", "4")
    told = arbitrage("run", "-c", config, prompts, "-o", folder, "--dry-run")
    assert told.out.startswith("6 prompts to answer, 4 answered, 1 rejected")


def test_a_preview_shows_every_candidate_and_its_samples_count(
    tmp_path: Path, config: Path
) -> None:
    prompts = write_prompts(tmp_path / "p.jsonl", 9)
    folder = tmp_path / "out"
    shown = arbitrage("run", "-c", config, prompts, "-o", folder, "--preview", "2")
    assert shown.code == 0, shown.err
    assert "[de] Question 0?" in shown.out
    assert "* ada" in shown.out
    assert "bob" in shown.out
    assert stored(folder) == once(2)
