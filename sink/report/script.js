"use strict";
// Samples side by side: found, filtered, turned over, and reached by their address.
// Everything is made as elements and text; no string ever becomes markup.
(async () => {
  const PAGE = 20;
  const LONG = { characters: 700, lines: 14 };
  const byId = (id) => document.getElementById(id);
  const done = () => (document.documentElement.dataset.ready = "");
  const form = byId("filters");
  if (!form) return done(); // a run without samples
  const list = byId("list");
  const facts = JSON.parse(byId("facts").textContent);
  const samples = JSON.parse(byId("plain").textContent);
  let found = samples;
  let page = 0;

  function element(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) {
      if (value === true) made.setAttribute(key, "");
      else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value);
    }
    made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
    return made;
  }

  // Figures in words, as in the chapters above

  const signed = (value) => (value === null ? "–" : (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2));
  const number = (value) => (value === null ? "–" : value.toFixed(2).replace("-", "−"));
  const count = (value, noun) => `${value.toLocaleString("en")} ${noun}${value === 1 ? "" : "s"}`;
  const plain = (name) => name.replaceAll("_", " ");
  function seconds(value) {
    if (value < 0.1) return `${Math.round(value * 1000)} ms`;
    return value < 10 ? `${value.toPrecision(2)} s` : `${Math.round(value)} s`;
  }
  function usd(value) {
    if (!value) return "$0";
    return `$${value >= 1 ? value.toFixed(2) : value.toFixed(1 - Math.floor(Math.log10(value)))}`;
  }

  // A text as it was written: its lines kept, each paragraph in its own direction, code as code

  function prose(text, language) {
    const parts = [];
    const fence = /^[ \t]*```[^\n]*\n([\s\S]*?)(?:^[ \t]*```[ \t]*$|$(?![\s\S]))/gm;
    let end = 0;
    const write = (piece) => {
      const trimmed = piece.replace(/^\n+|\n+$/g, "");
      if (trimmed) parts.push(element("div", { class: "prose", dir: "auto", lang: language }, trimmed));
    };
    for (const match of text.matchAll(fence)) {
      write(text.slice(end, match.index));
      parts.push(element("pre", { dir: "ltr", tabindex: "0" }, element("code", {}, match[1].replace(/\n$/, ""))));
      end = match.index + match[0].length;
    }
    write(text.slice(end));
    return parts;
  }

  function folded(text, language) {
    const body = element("div", {}, prose(text, language));
    if (text.length <= LONG.characters && text.split("\n").length <= LONG.lines) return [body];
    body.className = "fold";
    const all = `Show all ${count([...text].length, "character")}`;
    const more = element("button", { type: "button", class: "more", "aria-expanded": "false" }, all);
    more.addEventListener("click", () => {
      const isFolded = body.classList.toggle("fold");
      more.setAttribute("aria-expanded", String(!isFolded));
      more.textContent = isFolded ? all : "Show less";
    });
    return [body, more];
  }

  function answer(candidate, sample, won) {
    const { error, text, gates } = candidate;
    const told = [];
    if (candidate.advantage !== null) told.push(`${signed(candidate.advantage)} to the mean`);
    told.push(seconds(candidate.seconds));
    told.push(candidate.cached ? "from the cache" : usd(candidate.usd));
    if (candidate.tokens) told.push(count(candidate.tokens, "token"));
    if (candidate.propensity !== null) told.push(`asked with ${(100 * candidate.propensity).toPrecision(3)}%`);
    if (candidate.wave) told.push(`wave ${candidate.wave + 1}`);
    if (candidate.finish && candidate.finish !== "stop") told.push(`ended: ${candidate.finish}`);
    const scores = Object.entries(candidate.scores).map(([name, value]) => `${name} ${number(value)}`);
    const paint = facts.paint[candidate.teacher] || "muted";
    return element("section", { class: `answer ${paint}${won ? " won" : ""}${text === null || gates.length ? " out" : ""}` },
      element("h4", {},
        element("span", {}, element("bdi", {}, candidate.teacher), won ? element("span", { class: "badge" }, " ★ winner") : null),
        element("span", { class: "reward", title: scores.join("\n") || null }, candidate.reward === null ? "" : number(candidate.reward))),
      element("p", { class: "facts" }, told.join(" · ")),
      gates.map(([gate, reason]) => element("p", { class: "stop" }, "⊘ ", element("b", {}, plain(gate)), ": ", element("bdi", {}, reason))),
      error ? element("p", { class: "stop" }, "✕ ", element("b", {}, plain(error[0])), ": ", element("bdi", {}, error[1])) : null,
      candidate.reasoning ? element("details", { class: "thoughts" }, element("summary", {}, "What it thought first"), prose(candidate.reasoning, sample.language)) : null,
      text === null ? null : text.trim() ? folded(text, sample.language) : element("p", { class: "quiet" }, "(no text)"));
  }

  function card(sample) {
    const rank = (n) => {
      const { reward, error, gates } = sample.candidates[n];
      return n === sample.winner ? [0, 0] : error ? [3, 0] : gates.length || reward === null ? [2, 0] : [1, -reward];
    };
    const order = sample.candidates.map((_, n) => n).sort((a, b) => rank(a)[0] - rank(b)[0] || rank(a)[1] - rank(b)[1] || a - b);
    const name = facts.languages[sample.language] || sample.language;
    return element("article", { class: "sample", id: sample.id, tabindex: "-1", "aria-label": `Sample ${sample.id}, ${name}` },
      element("header", {},
        element("h3", {}, element("a", { href: `#${sample.id}`, title: sample.id }, sample.id.slice(0, 8))),
        element("span", {}, `${name} (${sample.language})`),
        sample.domain ? element("bdi", {}, sample.domain) : null,
        element("span", {}, sample.margin === null ? (sample.winner === null ? "no winner" : "no runner-up") : `margin ${number(sample.margin)}`),
        element("span", {}, `${sample.at} UTC`),
        element("span", { title: `after ${count(sample.version, "update")}` }, sample.policy),
        element("bdi", { title: "prompt id" }, sample.prompt),
        sample.kinds.filter((kind) => kind !== "drawn at random").map((kind) => element("span", { class: "why" }, kind))),
      element("div", { class: "messages" }, sample.messages.map(([role, text]) =>
        element("div", { class: `turn ${role}` }, element("span", {}, role), element("div", {}, folded(text, sample.language))))),
      element("div", { class: "answers" }, order.map((n) => answer(sample.candidates[n], sample, n === sample.winner))));
  }

  // Finding

  const fold = (text) => text.normalize("NFKC").toLowerCase();
  const texts = new WeakMap();
  function haystack(sample) {
    if (!texts.has(sample)) {
      const parts = [sample.id, sample.prompt, sample.domain || "", ...sample.messages.map((turn) => turn[1])];
      for (const c of sample.candidates) parts.push(c.teacher, c.text || "", ...(c.error || []), ...c.gates.flat());
      texts.set(sample, fold(parts.join("\n")));
    }
    return texts.get(sample);
  }

  const wanted = () => Object.fromEntries([...new FormData(form)].filter(([, value]) => String(value).trim() !== ""));
  const terms = () => fold(wanted().q || "").split(/\s+/).filter(Boolean);

  function matches(sample, filters, words) {
    const some = (test) => sample.candidates.some(test);
    const won = sample.winner === null ? null : sample.candidates[sample.winner].teacher;
    return (!filters.language || sample.language === filters.language)
      && (!filters.winner || won === filters.winner)
      && (!filters.kind || sample.kinds.includes(filters.kind))
      && (!filters.margin || (sample.margin !== null && sample.margin >= Number(filters.margin)))
      && (!filters.teacher || some((c) => c.teacher === filters.teacher))
      && (!filters.gate || some((c) => (!filters.teacher || c.teacher === filters.teacher) && c.gates.some(([gate]) => gate === filters.gate)))
      && (!filters.errors || some((c) => (!filters.teacher || c.teacher === filters.teacher) && c.error))
      && words.every((word) => haystack(sample).includes(word));
  }

  function highlight() {
    if (!("highlights" in CSS)) return;
    CSS.highlights.delete("found");
    const ranges = [];
    const words = terms();
    const walker = words.length ? document.createTreeWalker(list, NodeFilter.SHOW_TEXT) : null;
    while (walker && walker.nextNode()) {
      const node = walker.currentNode;
      const text = node.data.toLowerCase();
      if (text.length !== node.data.length) continue;
      for (const word of words) {
        for (let at = text.indexOf(word); at >= 0; at = text.indexOf(word, at + word.length)) {
          const range = new Range();
          range.setStart(node, at);
          range.setEnd(node, at + word.length);
          ranges.push(range);
        }
      }
    }
    if (ranges.length) CSS.highlights.set("found", new Highlight(...ranges));
  }

  // Showing

  function show() {
    const pages = Math.max(Math.ceil(found.length / PAGE), 1);
    page = Math.min(Math.max(page, 0), pages - 1);
    list.replaceChildren(...found.slice(page * PAGE, (page + 1) * PAGE).map(card));
    if (!found.length) list.append(element("p", { class: "note" }, "No sample here is like that. Take a filter away."));
    byId("found").textContent = found.length === samples.length
      ? count(samples.length, "sample") : `${found.length.toLocaleString("en")} of ${count(samples.length, "sample")}`;
    const turn = (text, by) => {
      const made = element("button", { type: "button", disabled: page + by < 0 || page + by >= pages }, text);
      made.addEventListener("click", () => flip(by));
      return made;
    };
    byId("pages").replaceChildren(...(pages > 1 ? [turn("‹ Previous", -1), `page ${page + 1} of ${pages}`, turn("Next ›", 1)] : []));
    highlight();
  }

  function flip(by) {
    page += by;
    show();
    const first = list.firstElementChild;
    if (first) reach(first);
  }

  function filter() {
    const filters = wanted();
    const words = terms();
    found = samples.filter((sample) => matches(sample, filters, words));
    page = 0;
    show();
  }

  function reach(article) {
    article.scrollIntoView({ block: "start" });
    article.focus({ preventScroll: true });
  }

  function fill(parameters) {
    for (const field of form.elements) {
      if (!field.name) continue;
      const value = parameters.get(field.name);
      if (field.type === "checkbox") field.checked = value !== null;
      else field.value = value || "";
    }
  }

  function follow() {
    const hash = decodeURIComponent(location.hash.slice(1));
    if (hash.startsWith("samples?")) {
      fill(new URLSearchParams(location.hash.slice("#samples?".length)));
      filter();
      byId("samples").scrollIntoView();
    } else if (/^[0-9a-f]{32}$/.test(hash)) {
      if (!found.some((sample) => sample.id === hash)) {
        fill(new URLSearchParams());
        filter();
      }
      const place = found.findIndex((sample) => sample.id === hash);
      if (place < 0) {
        list.prepend(element("p", { class: "note", role: "alert", tabindex: "-1" },
          `Sample ${hash} is not among the ${count(samples.length, "sample")} shown here; look for it in the run’s data folder.`));
        byId("samples").scrollIntoView();
        return;
      }
      page = Math.floor(place / PAGE);
      show();
      reach(byId(hash));
    }
  }

  function filtered() {
    const query = new URLSearchParams(wanted()).toString();
    history.replaceState(null, "", query ? `#samples?${query}` : "#samples");
    filter();
  }

  let typing = 0;
  form.addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(filtered, 120);
  });
  form.addEventListener("reset", () => setTimeout(filtered));
  form.addEventListener("submit", (event) => event.preventDefault());
  addEventListener("hashchange", follow);

  function step(by) {
    const cards = [...list.querySelectorAll(".sample")];
    const now = cards.indexOf(document.activeElement && document.activeElement.closest(".sample"));
    const next = now < 0 ? 0 : now + by;
    if (cards[next]) reach(cards[next]);
    else if (next > 0 && (page + 1) * PAGE < found.length) flip(1);
    else if (next < 0 && page > 0) {
      flip(-1);
      reach(list.lastElementChild);
    }
  }

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && form.contains(event.target)) event.target.blur();
    if (event.target.closest && event.target.closest("input, select, textarea")) return;
    const keys = {
      "/": () => form.elements.q.focus(),
      j: () => step(1),
      k: () => step(-1),
      n: () => flip(1),
      p: () => flip(-1),
      o: () => (document.activeElement.closest(".sample") || list).querySelectorAll(".more").forEach((more) => more.click()),
    };
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  addEventListener("beforeprint", () => document.querySelectorAll("details:not(.thoughts)").forEach((one) => (one.open = true)));

  // The others are compressed; a browser that cannot unpack them shows the first ones

  filter();
  const packed = byId("packed").textContent;
  if (packed) {
    try {
      const bytes = Uint8Array.from(atob(packed), (character) => character.charCodeAt(0));
      const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
      samples.push(...JSON.parse(await new Response(stream).text()));
    } catch {
      form.after(element("p", { class: "note" },
        `This browser cannot unpack all samples: ${samples.length} of ${facts.shown} are shown.`));
    }
    filter();
  }
  follow();
  done();
})();
