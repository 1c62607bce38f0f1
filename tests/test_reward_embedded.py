"""The embedded reward on its real weights, and the folder that it converts them into."""

from __future__ import annotations

import asyncio
import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch

from arbitrage import config
from arbitrage.errors import ConfigError
from arbitrage.types import Candidate, Completion, Prompt
from reward import open_reward
from reward import packaged as packaged_weights
from reward.devices import devices_named
from reward.gates.repetition import repetition
from tests.reward_models import answers, make_classifier, packaged, packaged_reward

if TYPE_CHECKING:
    from pathlib import Path

# language, question, a good answer, an off-topic one, a word to babble, the constant answer
TRIALS = [
    (
        "en",
        "Why does ice float on water?",
        "Ice floats because it is less dense than liquid water.",
        "The library opens at nine and closes at six on weekdays.",
        "Library",
        "I am happy to help you. Please tell me what you would like to know.",
    ),
    (
        "de",
        "Was ist die Hauptstadt von Frankreich?",
        "Die Hauptstadt von Frankreich ist Paris.",
        "Zum Backen braucht man Mehl, Eier, Zucker und etwas Butter.",
        "Butter",
        "Ich helfe dir gern weiter. Bitte sag mir, was du wissen möchtest.",
    ),
    (
        "fr",
        "Comment les plantes fabriquent-elles leur nourriture ?",
        "Les plantes fabriquent leur nourriture par photosynthèse, grâce à la lumière.",
        "Le match de football a été reporté à dimanche prochain.",
        "football",
        "Je suis ravi de vous aider. Dites-moi ce que vous voulez savoir.",
    ),
    (
        "es",
        "¿Cuántos días tiene un año bisiesto?",
        "Un año bisiesto tiene 366 días, uno más en febrero.",
        "La guitarra eléctrica necesita un amplificador para sonar.",
        "guitarra",
        "Estoy encantado de ayudarte. Dime qué quieres saber.",
    ),
    (
        "ru",
        "Почему небо голубое?",
        "Небо голубое, потому что воздух рассеивает синий свет сильнее красного.",
        "Поезд отправляется с третьего пути в восемь часов вечера.",
        "поезд",
        "Я с радостью вам помогу. Скажите, что вы хотите узнать.",
    ),
    (
        "el",
        "Ποια είναι η πρωτεύουσα της Ελλάδας;",
        "Η πρωτεύουσα της Ελλάδας είναι η Αθήνα.",
        "Το αυτοκίνητο χρειάζεται καινούργια λάστιχα πριν από τον χειμώνα.",
        "λάστιχα",
        "Χαίρομαι να σας βοηθήσω. Πείτε μου τι θέλετε να μάθετε.",
    ),
    (
        "ar",
        "ما هي عاصمة مصر؟",
        "عاصمة مصر هي القاهرة.",
        "يحتاج الخبز إلى الدقيق والماء والخميرة والملح.",
        "الخبز",
        "يسعدني أن أساعدك. أخبرني ماذا تريد أن تعرف.",
    ),
    (
        "hi",
        "भारत की राजधानी क्या है?",
        "भारत की राजधानी नई दिल्ली है।",
        "चाय बनाने के लिए पानी, दूध और चीनी चाहिए।",
        "चाय",
        "मुझे आपकी मदद करके खुशी होगी। बताइए आप क्या जानना चाहते हैं।",
    ),
    (
        "zh",
        "水在多少度沸腾？",
        "在标准大气压下，水在100摄氏度沸腾。",
        "这家书店每天早上九点开门，周末休息。",
        "书店",
        "我很高兴为您服务。请告诉我您想了解什么。",
    ),
    (
        "ja",
        "日本で一番高い山は何ですか？",
        "日本で一番高い山は富士山で、高さは3776メートルです。",
        "パンを焼くには小麦粉と水と酵母が必要です。",
        "パン",
        "喜んでお手伝いします。知りたいことを教えてください。",
    ),
    (
        "ko",
        "한국의 수도는 어디입니까?",
        "한국의 수도는 서울입니다.",
        "빵을 구우려면 밀가루와 물과 효모가 필요합니다.",
        "밀가루",
        "기꺼이 도와드리겠습니다. 무엇을 알고 싶은지 말씀해 주세요.",
    ),
    (
        "th",
        "เมืองหลวงของประเทศไทยคืออะไร",
        "เมืองหลวงของประเทศไทยคือกรุงเทพมหานคร",
        "การทำขนมปังต้องใช้แป้ง น้ำ ยีสต์ และเกลือ",
        "ขนมปัง",
        "ยินดีช่วยเหลือค่ะ กรุณาบอกว่าคุณอยากทราบอะไร",
    ),
]


def babble(word: str, times: int = 30) -> str:
    return f"{word} " * times


@pytest.fixture(scope="module")
def trials() -> list[list[float]]:
    """The rewards of each trial's answers: good, off-topic, constant, babble."""

    async def rewards() -> list[list[float]]:
        reward = packaged_reward()
        scored = [
            await reward.score(
                Prompt.of(question), answers(good, off_topic, constant, babble(word))
            )
            for _, question, good, off_topic, word, constant in TRIALS
        ]
        await reward.close()
        return [[score.reward for score in scores] for scores in scored]

    return asyncio.run(rewards())


def wins(trials: list[list[float]], rival: int) -> list[str]:
    return [t[0] for t, rewards in zip(TRIALS, trials, strict=True) if rewards[0] > rewards[rival]]


def test_a_relevant_answer_beats_an_off_topic_one(trials: list[list[float]]) -> None:
    assert len(wins(trials, 1)) >= 10, wins(trials, 1)


def test_a_relevant_answer_beats_the_constant_one(trials: list[list[float]]) -> None:
    assert len(wins(trials, 2)) >= 10, wins(trials, 2)


def test_a_relevant_answer_beats_off_topic_babble(trials: list[list[float]]) -> None:
    assert len(wins(trials, 3)) >= 10, wins(trials, 3)


@pytest.mark.parametrize("times", [6, 30])
def test_babble_never_reaches_the_reward(times: int) -> None:
    """On-topic babble would win there: what repeats itself is probable."""
    for _, question, _, _, word, _ in TRIALS:
        assert repetition(Prompt.of(question), Completion(babble(word, times))), word


async def test_babble_is_more_fluent_than_any_sentence_and_hardly_relevant() -> None:
    _, question, good, _, word, _ = TRIALS[0]
    sentence, repeated = await packaged_reward().score(
        Prompt.of(question), answers(good, babble(word, 60))
    )
    assert repeated.raw["fluency"] > sentence.raw["fluency"]
    assert repeated.raw["relevance"] < sentence.raw["relevance"]


@pytest.fixture(scope="module")
def float32() -> tuple[Any, Any]:
    tokenizer, model = packaged()
    return tokenizer, copy.deepcopy(model).float()


def naive(tokenizer: Any, model: Any, prefix: str, answer: str) -> float:
    """Mean log probability of an answer after a prefix, one text at a time, in float32."""
    before = tokenizer(prefix).input_ids
    after = tokenizer(f" {answer}", add_special_tokens=False).input_ids
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([before + after])).logits[0]
    log_p = torch.log_softmax(logits.float(), dim=-1)
    positions = range(len(before) - 1, len(before) + len(after) - 1)
    return sum(float(log_p[at, token]) for at, token in zip(positions, after, strict=True)) / len(
        after
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.1)])
async def test_both_figures_are_those_of_a_naive_computation(
    float32: tuple[Any, Any], dtype: str, tolerance: float
) -> None:
    tokenizer, model = float32 if dtype == "float32" else packaged()
    plain = copy.deepcopy(float32[1])
    plain.model.set_attn_implementation("sdpa")
    reward = packaged_reward(tokenizer, model, max_tokens_per_batch=128)
    for _, question, good, off_topic, _, _ in TRIALS[::4]:
        scores = await reward.score(Prompt.of(question), answers(good, off_topic))
        for score, answer in zip(scores, (good, off_topic), strict=True):
            given = naive(tokenizer, plain, f"Question: {question}\nAnswer:", answer)
            alone = naive(tokenizer, plain, "Answer:", answer)
            assert score.raw["relevance"] == pytest.approx(given - alone, abs=2 * tolerance)
            assert score.raw["fluency"] == pytest.approx(alone, abs=tolerance)
            assert score.reward == score.raw["embedded"]


async def test_a_long_question_keeps_its_end() -> None:
    reward = packaged_reward()
    long = "Nun gut. " * 3_000 + TRIALS[1][1]
    good, off_topic = await reward.score(Prompt.of(long), answers(TRIALS[1][2], TRIALS[1][3]))
    assert good.raw["relevance"] > off_topic.raw["relevance"]


class Cache:
    """A cache folder of the test's own, and a conversion that only leaves a mark."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.conversions = 0
        self.fails_with: Exception | None = None

    def convert(self, gguf: Path, folder: Path) -> None:
        self.conversions += 1
        folder.mkdir()
        (folder / "config.json").write_text(gguf.name)
        if self.fails_with:
            raise self.fails_with

    def folders(self) -> list[Path]:
        return [path for path in self.folder.iterdir() if path.is_dir()]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    cache = Cache(tmp_path / "cache")
    gguf = tmp_path / "gemma-3-270m.gguf"
    gguf.touch()
    monkeypatch.setenv("DATA_ARBITRAGE_CACHE", str(cache.folder))
    monkeypatch.setattr("arbitrage.weights.locate", lambda _name: gguf)
    monkeypatch.setattr(packaged_weights, "_convert", cache.convert)
    return cache


def test_a_model_is_converted_once(cache: Cache) -> None:
    folder = packaged_weights.folder_of("gemma-3-270m")
    assert (folder / "config.json").read_text() == "gemma-3-270m.gguf"
    assert packaged_weights.folder_of("gemma-3-270m") == folder
    assert cache.conversions == 1
    assert cache.folders() == [folder]


def test_a_half_written_folder_of_a_killed_run_does_not_count(cache: Cache) -> None:
    left = cache.folder / "gemma-3-270m-a5fd3b62230a.123.partial" / "gemma-3-270m-a5fd3b62230a"
    left.mkdir(parents=True)
    folder = packaged_weights.folder_of("gemma-3-270m")
    assert cache.conversions == 1
    assert (folder / "config.json").exists()


def test_a_failed_conversion_leaves_nothing_and_is_tried_again(cache: Cache) -> None:
    cache.fails_with = OSError(28, "No space left on device")
    with pytest.raises(ConfigError, match="No space left") as caught:
        packaged_weights.folder_of("gemma-3-270m")
    assert "\n" not in str(caught.value)
    assert not cache.folders()
    cache.fails_with = None
    assert packaged_weights.folder_of("gemma-3-270m").is_dir()


def test_the_folder_of_a_faster_process_serves(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def convert(gguf: Path, folder: Path) -> None:
        cache.convert(gguf, folder)
        theirs = cache.folder / folder.name
        theirs.mkdir()
        (theirs / "config.json").write_text("theirs")

    monkeypatch.setattr(packaged_weights, "_convert", convert)
    folder = packaged_weights.folder_of("gemma-3-270m")
    assert (folder / "config.json").read_text() == "theirs"
    assert cache.folders() == [folder]


async def test_damaged_packaged_weights_are_named_on_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATA_ARBITRAGE_CACHE", str(tmp_path))
    (tmp_path / "gemma-3-270m.gguf").write_bytes(b"GGUF, cut off")
    with pytest.raises(ConfigError, match="SHA-256") as caught:
        await open_reward(config.EmbeddedReward())
    assert str(tmp_path / "gemma-3-270m.gguf") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "gemma-3-270m-a5fd3b62230a").exists()


@pytest.mark.parametrize("damage", ["no file", "cut weights", "cut tokenizer"])
@pytest.mark.usefixtures("cache")
async def test_a_damaged_folder_is_named_on_one_line(damage: str) -> None:
    folder = packaged_weights.folder_of("gemma-3-270m")
    if damage != "no file":
        make_classifier(folder)
        name = "model.safetensors" if damage == "cut weights" else "tokenizer.json"
        (folder / name).write_bytes((folder / name).read_bytes()[:100])
    with pytest.raises(ConfigError, match="cannot be loaded") as caught:
        await open_reward(config.EmbeddedReward(device="cpu"))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_an_unknown_model_and_device_are_named() -> None:
    with pytest.raises(ConfigError, match="'gemma-9b' has no head"):
        await open_reward(config.EmbeddedReward(model="gemma-9b"))
    with pytest.raises(ConfigError, match=r"reward\.device: 'abacus'"):
        devices_named("abacus")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r"reward\.device: 'cuda'"):
            await open_reward(config.EmbeddedReward(device="cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
async def test_a_gpu_gives_the_same_scores() -> None:
    _, question, good, off_topic, _, _ = TRIALS[0]
    candidates = [*answers(good, off_topic), Candidate("long", Completion("Ice. " * 5_000))]
    here = await packaged_reward().score(Prompt.of(question), candidates)
    reward = await open_reward(config.EmbeddedReward(device="cuda"))
    there = await reward.score(Prompt.of(question), candidates)
    await reward.close()
    assert [s.reward for s in there if s] == pytest.approx([s.reward for s in here], abs=0.1)
