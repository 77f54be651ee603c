// Optional: pages, search and votes also work without this script.
"use strict";

const live = document.body.dataset.mode === "live";
document.documentElement.classList.add("scripted");

// ---- votes ----------------------------------------------------------------------------------

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.matches(".vote")) return;
  event.preventDefault();
  const button = form.querySelector("button");
  if (button.disabled) return;
  button.disabled = true;
  try {
    const answer = await fetch(form.action, {
      method: "POST",
      headers: { Accept: "application/json" },
      body: new URLSearchParams(new FormData(form)),
    });
    if (!answer.ok) throw new Error(String(answer.status));
    const { votes, voted } = await answer.json();
    form.querySelector(".count").textContent = String(votes);
    button.setAttribute("aria-pressed", String(voted));
  } catch {
    form.submit(); // a regular request shows the error
    return;
  } finally {
    button.disabled = false;
  }
  button.focus();
});

// ---- commands to copy -----------------------------------------------------------------------

if (navigator.clipboard) {
  for (const block of document.querySelectorAll("pre.copy")) {
    const row = document.createElement("div");
    row.className = "copied";
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.setAttribute("aria-live", "polite");
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(block.textContent.trim());
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    block.replaceWith(row);
    row.append(block, button);
  }
}

// ---- the list -------------------------------------------------------------------------------

const filters = document.getElementById("filters");
const FIELDS = ["topic", "order", "state", "verdict"];

function asked() {
  const values = [...new FormData(filters)].map(([name, value]) => [name, value.trim()]);
  return new URLSearchParams(values.filter(([, value]) => value));
}

// Without a query, the best match is the newest.
function nameOrders() {
  const question = filters.elements.namedItem("q").value.trim() !== "";
  const sort = document.getElementById("sort");
  sort.options[0].textContent = question ? "Best match" : "Newest";
  sort.options[1].hidden = !question;
  if (!question && sort.value === "date") sort.value = "";
}

function address(parameters) {
  const text = parameters.toString();
  return filters.action.split("?")[0] + (text ? "?" + text : "");
}

// Each search is an entry of the browser history; typing without a pause is one search.
function visit(url, amend) {
  if (new URL(url, location.href).href === location.href) return;
  if (amend) history.replaceState(null, "", url);
  else history.pushState(null, "", url);
}

function fillFrom(parameters) {
  for (const field of filters.elements) {
    if (!field.name) continue;
    field.value = parameters.get(field.name) || "";
    if (field.selectedIndex === -1) field.value = ""; // unknown value
  }
  nameOrders();
}

let turn = 0;

async function refresh(url) {
  const mine = ++turn;
  const answer = await fetch(url);
  if (mine !== turn) return; // a later request is pending
  if (!answer.ok) { location.href = url; return; }
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (mine !== turn) return;
  document.getElementById("results").replaceWith(page.getElementById("results"));
}

// The export has no server: it filters by the data of the cards and ranks with index.json, which has
// the weights, stems and thesaurus of the server's search.

const cards = live || !filters ? [] : [...document.querySelectorAll(".card")];
const groups = live || !filters ? [] : [...document.querySelectorAll(".group")];
const homes = new Map(cards.map((card) => [card, card.parentElement]));
let index = null;

function stems(query) {
  const plain = query.toLowerCase().normalize("NFKD").replace(/\p{M}/gu, "");
  const found = [];
  for (const word of plain.match(/[\p{L}\p{N}_]+/gu) || []) {
    const pair = found.length ? `${found[found.length - 1]}-order` : "";
    if (word === "order" && Object.hasOwn(index.terms, pair)) found.push(pair);
    else if (Object.hasOwn(index.stems, word)) found.push(index.stems[word]);
    else if (!index.stop.includes(word)) found.push(nearest(word));
  }
  return found;
}

// The stem of a word that is not in the catalogue: that of the word with the longest common prefix,
// or the word itself.
function nearest(word) {
  let best = word;
  let most = Math.max(4, Math.ceil(0.7 * word.length)) - 1;
  for (const [known, stem] of Object.entries(index.stems)) {
    let same = 0;
    while (same < known.length && known[same] === word[same]) same += 1;
    if (same > most && known.length - same <= 3) { most = same; best = stem; }
  }
  return best;
}

function scores(query) {
  const asked = stems(query);
  const wanted = new Map(asked.map((stem) => [stem, 1]));
  const text = ` ${asked.join(" ")} `;
  for (const [phrase, related] of Object.entries(index.related)) {
    if (!text.includes(` ${phrase} `)) continue;
    for (const stem of related) {
      if (!wanted.has(stem)) wanted.set(stem, index.relatedWeight);
    }
  }
  const found = new Map();
  for (const [stem, weight] of wanted) {
    const row = Object.hasOwn(index.terms, stem) ? index.terms[stem] : [];
    for (const [id, score] of row) found.set(id, (found.get(id) || 0) + weight * score);
  }
  const weakest = index.weakest * Math.max(0, ...found.values());
  return new Map([...found].filter(([, score]) => score >= weakest));
}

async function refreshExport() {
  const mine = ++turn;
  const parameters = asked();
  const query = parameters.get("q") || "";
  const status = document.getElementById("found");
  if (query && !index) {
    try {
      const file = filters.action.split("?")[0].replace(/[^/]*$/, "index.json");
      index = await (await fetch(file)).json();
    } catch {
      status.textContent = "Search needs a web server: python -m http.server in this folder.";
      return;
    }
    if (mine !== turn) return;
  }
  const ranks = query ? scores(query) : null;
  const shown = cards.filter((card) =>
    FIELDS.every((name) => !parameters.get(name) || parameters.get(name) === card.dataset[name])
    && (!ranks || ranks.has(Number(card.dataset.id))));
  const sort = parameters.get("sort") || (query ? "score" : "date");
  const list = document.getElementById("list");
  if (sort === "date") {
    for (const group of groups) {
      group.append(...cards.filter((card) => homes.get(card) === group));
    }
    list.replaceChildren(...groups);
  } else {
    if (sort === "title") shown.sort((a, b) => a.dataset.title.localeCompare(b.dataset.title));
    else shown.sort((a, b) => ranks.get(Number(b.dataset.id)) - ranks.get(Number(a.dataset.id)));
    list.replaceChildren(...shown);
  }
  const visible = new Set(shown);
  for (const card of cards) card.hidden = !visible.has(card);
  for (const group of groups) group.hidden = !group.querySelector(".card:not([hidden])");
  status.textContent = shown.length === 1 ? "1 paper" : `${shown.length} papers`;
  document.getElementById("empty").hidden = shown.length > 0;
  document.getElementById("clear").hidden = [...parameters.keys()].every((name) => name === "sort");
}

if (filters) {
  const show = () => (live ? refresh(location.href) : refreshExport());
  let timer = 0;
  let typing = false;
  const act = (amend) => {
    clearTimeout(timer);
    nameOrders();
    visit(address(asked()), amend);
    return show();
  };
  const restore = () => {
    clearTimeout(timer);
    typing = false;
    fillFrom(new URLSearchParams(location.search));
  };
  filters.addEventListener("change", (event) => {
    if (event.target.matches("select")) act(false);
    typing = false;
  });
  filters.addEventListener("input", (event) => {
    if (!event.target.matches("input")) return;
    clearTimeout(timer);
    timer = setTimeout(() => {
      act(typing);
      typing = true;
    }, 220);
  });
  filters.addEventListener("submit", (event) => {
    event.preventDefault();
    act(typing);
    typing = false;
  });
  addEventListener("popstate", () => {
    restore();
    show();
  });
  restore();
  if (!live && location.search) show();
}

// ---- the exported gallery -------------------------------------------------------------------

const pills = document.getElementById("pills");
if (pills && !live) {
  const show = (verdict) => {
    for (const pill of pills.children) {
      if (pill.dataset.verdict === verdict) pill.setAttribute("aria-current", "true");
      else pill.removeAttribute("aria-current");
    }
    for (const item of document.getElementById("gallery").children) {
      item.hidden = verdict !== "" && item.dataset.verdict !== verdict;
    }
  };
  pills.addEventListener("click", (event) => {
    const pill = event.target.closest("a");
    if (!pill) return;
    event.preventDefault();
    visit(pill.href, false);
    restore();
  });
  const restore = () => show(new URLSearchParams(location.search).get("verdict") || "");
  addEventListener("popstate", restore);
  restore();
}
