// Shows the open question, keeps the order that is being made, and sends it. The server holds the
// session; this page can be closed, reloaded or opened twice at any time.
"use strict";

const $ = (id) => document.getElementById(id);
const RETRY = 1500; // milliseconds until a server that was away is tried again

let question = null; // what GET /question returned
let groups = []; // places of the candidates in order, best first; those of one group tie
let cards = []; // elements, by place
let sending = false;

// ---- the server -----------------------------------------------------------------------------

class Away extends Error {}

async function ask(path, body) {
  let answer;
  try {
    answer = await fetch(path, body === undefined ? undefined : {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
  } catch {
    throw new Away();
  }
  const found = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(found.message), { status: answer.status });
  return found;
}

async function load(note = "") {
  try {
    show(await ask("/question"), note);
  } catch (error) {
    if (error instanceof Away) away();
    else say(`${error.message}\nMend the task, then start the command again: nothing is lost.`, true);
  }
}

// Sends a change and shows the question that is open then.
async function change(path, body, note) {
  if (sending || !question) return;
  sending = true;
  update();
  try {
    await ask(path, body);
    forget();
    await load(note);
  } catch (error) {
    if (error instanceof Away) away();
    else if (error.status === 409) await load(error.message);
    else say(error.message, true);
  } finally {
    sending = false;
    update();
  }
}

let waiting = 0;

function away() {
  say("The server does not answer. Start the same command again: every answer that you submitted is "
    + "stored, and the order on this page stays. The page goes on by itself.", true);
  clearTimeout(waiting);
  waiting = setTimeout(async () => {
    try {
      await ask("/open");
    } catch (error) {
      if (error instanceof Away) { away(); return; }
    }
    await load("The server is back; nothing was lost.");
  }, RETRY);
}

async function look() {
  if (document.hidden || sending || !question) return;
  try {
    const { token } = await ask("/open");
    if (token !== question.token) {
      await load("The session went on in another tab; this is the open question.");
    }
  } catch (error) {
    if (error instanceof Away) away();
  }
}

// ---- the order ------------------------------------------------------------------------------

const placed = () => groups.flat();
const choosing = () => question.part === "choose";
const groupOf = (place) => groups.findIndex((group) => group.includes(place));
const name = (place) => `Candidate ${place + 1}`;

function without(place) {
  groups = groups.map((group) => group.filter((other) => other !== place))
    .filter((group) => group.length);
}

// Puts a candidate in front of group `index`, as a group of its own.
function put(place, index) {
  const behind = groups.slice(index).flat().filter((other) => other !== place);
  without(place);
  if (choosing()) groups = [];
  const at = behind.length ? groupOf(behind[0]) : groups.length;
  groups.splice(at < 0 ? groups.length : at, 0, [place]);
}

function toggle(place) {
  if (placed().includes(place)) {
    without(place);
    changed(`${name(place)} taken out.`);
  } else {
    put(place, groups.length);
    changed(choosing() ? `${name(place)} chosen.` : `${name(place)} is number ${groups.length}.`);
  }
}

function move(place, by) {
  const at = groupOf(place);
  if (groups[at].length > 1) { // it leaves its tie
    without(place);
    groups.splice(by < 0 ? at : at + 1, 0, [place]);
  } else if (at + by >= 0 && at + by < groups.length) {
    const [group] = groups.splice(at, 1);
    groups.splice(at + by, 0, group);
  }
  changed(`${name(place)} is number ${groupOf(place) + 1}.`);
}

function tie(place) {
  const at = groupOf(place);
  if (groups[at].length > 1) {
    without(place);
    groups.splice(at + 1, 0, [place]);
    changed(`${name(place)} does not tie.`);
  } else if (at > 0) {
    groups[at - 1].push(...groups[at]);
    groups.splice(at, 1);
    changed(`${name(place)} ties with ${groups[at - 1].filter((p) => p !== place).map(name).join(", ")}.`);
  }
}

function changed(note) {
  remember();
  arrange();
  const missing = question.candidates.length - placed().length;
  const left = choosing() ? "" : missing ? ` ${missing} to place.` : " All are placed: submit.";
  say(note + left);
}

// An order that was not submitted survives a reload and a closed page.
const draft = () => `order of ${question.session}`;

function remember() {
  try {
    localStorage.setItem(draft(), JSON.stringify({ token: question.token, groups }));
  } catch { /* private windows may have no storage */ }
}

function forget() {
  try {
    localStorage.removeItem(draft());
  } catch { /* nothing was remembered */ }
}

function remembered() {
  try {
    const found = JSON.parse(localStorage.getItem(draft()));
    return found && found.token === question.token ? found.groups : [];
  } catch {
    return [];
  }
}

// ---- what is shown --------------------------------------------------------------------------

function say(text, wrong = false) {
  $("message").textContent = text;
  $("message").classList.toggle("wrong", wrong);
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

function content({ kind, content }, title) {
  if (kind === "image") return element("img", { src: content, alt: title, draggable: false });
  if (kind === "sound") return element("audio", { src: content, controls: true, title });
  if (kind === "text") return element("pre", { textContent: content });
  const table = element("table");
  for (const [label, value] of content) {
    table.append(element("tr", {}, element("th", { scope: "row", textContent: label }),
      element("td", { textContent: value })));
  }
  return table;
}

function control(kind, text, label, act) {
  const button = element("button", { type: "button", className: kind, textContent: text, title: label });
  button.setAttribute("aria-label", label);
  button.addEventListener("click", act);
  return button;
}

function card(candidate, place) {
  const title = name(place);
  const shown = element("div", { className: "show" }, content(candidate, title));
  const handle = element("span", { className: "handle", textContent: "⠿", title: "Drag" });
  handle.setAttribute("aria-hidden", "true");
  const button = element("button", { type: "button", className: "place" });
  button.addEventListener("click", () => toggle(place));
  const made = element("li", { className: "card" }, shown,
    element("div", { className: "controls" }, handle, button,
      control("up", "←", `Move ${title} up`, () => move(place, -1)),
      control("down", "→", `Move ${title} down`, () => move(place, 1)),
      control("tie", "=", `${title} ties with the one before, or not`, () => tie(place))));
  made.dataset.place = String(place);
  shown.addEventListener("click", (event) => {
    if (!event.target.closest("audio") && !drag.moved) toggle(place);
  });
  return made;
}

function show(found, note) {
  const same = question && question.token === found.token;
  question = found;
  if (!same) {
    groups = remembered();
    cards = question.candidates.map(card);
    if (groups.length && !note) note = "Your unfinished order is back.";
    best();
  }
  const { answered, questions, number } = question;
  const done = answered >= questions;
  document.title = `${question.number}: ${question.prompt}`;
  $("prompt").textContent = question.prompt;
  $("progress").max = questions;
  $("progress").value = Math.min(answered, questions);
  $("count").textContent = done ? `${answered} answered` : `Question ${number} of ${questions}`;
  $("done").hidden = !done;
  $("file").textContent = `${question.folder}/best.json`;
  $("asked").hidden = done;
  $("task").textContent = choosing()
    ? "Choose the best. One of them is the best so far."
    : question.need > 1
      ? `Place the ${question.need} best, best first.`
      : "Place them in order, best first. Those that you leave out share the last place.";
  $("order-title").textContent = choosing() ? "Your choice" : "Your order, best first";
  arrange();
  say(note);
}

function arrange() {
  const focused = document.activeElement;
  const order = placed();
  $("order").replaceChildren(...order.map((place) => cards[place]));
  $("pool").replaceChildren(...cards.filter((_, place) => !order.includes(place)));
  cards.forEach((made, place) => {
    const at = groupOf(place);
    made.querySelector(".rank")?.remove();
    if (at >= 0 && !choosing()) {
      const tied = groups[at].length > 1;
      made.prepend(element("span", { className: "rank", textContent: `${tied ? "= " : ""}${at + 1}` }));
    }
    const button = made.querySelector(".place");
    const text = at >= 0 ? "Out" : choosing() ? "Choose" : "Place";
    const key = place < 10 ? [element("kbd", { textContent: String((place + 1) % 10) })] : [];
    button.replaceChildren(...key, text);
    button.setAttribute("aria-label", at >= 0 ? `Take out ${name(place)}` : `${text} ${name(place)}`);
    const inside = at >= 0 && !choosing();
    for (const kind of ["up", "down", "tie"]) made.querySelector(`.${kind}`).hidden = !inside;
    if (inside) {
      const tied = groups[at].length > 1;
      made.querySelector(".up").disabled = at === 0 && !tied;
      made.querySelector(".down").disabled = at === groups.length - 1 && !tied;
      made.querySelector(".tie").disabled = at === 0 && !tied;
    }
  });
  $("hint").textContent = order.length ? "" : choosing()
    ? "Drag the best one here, click it, or press its number."
    : "Drag candidates here, click them, or press their numbers.";
  $("empty").hidden = order.length < cards.length;
  if (focused && focused.isConnected && !focused.disabled) focused.focus({ preventScroll: true });
  update();
}

function update() {
  if (!question) return;
  const count = placed().length;
  const all = question.candidates.length;
  const partial = !choosing() && count && count < all;
  const done = question.answered >= question.questions;
  $("send").textContent = choosing() ? "Submit choice"
    : partial ? `Submit ${count} of ${all}` : "Submit order";
  $("send").disabled = sending || count < question.need;
  $("send").hidden = $("same").hidden = done;
  $("same").disabled = sending;
  $("undo").disabled = sending || question.answered === 0;
}

async function best() {
  $("best-shown").replaceChildren();
  if (!$("best").open) return;
  const { token } = question;
  try {
    const found = await ask("/best");
    if (found.kind === "image" || found.kind === "sound") found.content += `?${token}`;
    if (token !== question.token) return;
    $("best-shown").replaceChildren(element("div", { className: "show" }, content(found, "Best so far")));
  } catch (error) {
    if (error instanceof Away) away();
    else say(error.message, true);
  }
}

// ---- dragging -------------------------------------------------------------------------------

const drag = { card: null, moved: false, x: 0, y: 0, slot: element("li", { className: "slot" }) };
drag.slot.setAttribute("aria-hidden", "true");

// The element before which the card would land in a list, null for its end.
function before(list, x, y) {
  for (const other of list.children) {
    if (other === drag.card || other === drag.slot) continue;
    const box = other.getBoundingClientRect();
    if (y < box.top || (y <= box.bottom && x < box.left + box.width / 2)) return other;
  }
  return null;
}

function over(x, y) {
  const box = document.querySelector(".zone.chosen").getBoundingClientRect();
  return x >= box.left && x <= box.right && y >= box.top && y <= box.bottom;
}

document.addEventListener("pointerdown", (event) => {
  drag.moved = false;
  const made = event.target.closest(".cards .card");
  const handle = event.target.closest(".handle");
  if (!made || event.button !== 0 || event.target.closest("button, audio")) return;
  if (event.pointerType === "touch" && !handle) return; // a finger on the picture scrolls
  drag.card = made;
  [drag.x, drag.y] = [event.clientX, event.clientY];
});

document.addEventListener("pointermove", (event) => {
  if (!drag.card) return;
  const [x, y] = [event.clientX - drag.x, event.clientY - drag.y];
  if (!drag.moved) {
    if (Math.hypot(x, y) < 6) return;
    drag.moved = true;
    drag.card.classList.add("dragging");
  }
  event.preventDefault();
  drag.card.style.transform = `translate(${x}px, ${y}px)`;
  const inside = over(event.clientX, event.clientY);
  document.querySelector(".zone.chosen").classList.toggle("over", inside);
  if (inside) {
    const next = before($("order"), event.clientX, event.clientY);
    if (drag.slot.parentElement !== $("order") || drag.slot.nextElementSibling !== next) {
      $("order").insertBefore(drag.slot, next);
    }
  } else {
    drag.slot.remove();
  }
});

function release() {
  const made = drag.card;
  drag.card = null;
  if (!made) return;
  made.classList.remove("dragging");
  made.style.transform = "";
  drag.slot.remove();
  document.querySelector(".zone.chosen").classList.remove("over");
}

document.addEventListener("pointerup", (event) => {
  const made = drag.card;
  if (!made || !drag.moved) { release(); return; }
  const place = Number(made.dataset.place);
  const inside = over(event.clientX, event.clientY);
  let next = drag.slot.isConnected ? drag.slot.nextElementSibling : null;
  if (next === made) next = made.nextElementSibling;
  release();
  if (inside) {
    put(place, next ? groupOf(Number(next.dataset.place)) : groups.length);
    changed(choosing() ? `${name(place)} chosen.` : `${name(place)} is number ${groupOf(place) + 1}.`);
  } else if (placed().includes(place)) {
    without(place);
    changed(`${name(place)} taken out.`);
  }
});

document.addEventListener("pointercancel", release);

// ---- buttons and keys -----------------------------------------------------------------------

const send = (order) => change("/answer", { token: question.token, order },
  `Answer ${question.number} is stored.`);

$("send").addEventListener("click", () => send(groups));
$("same").addEventListener("click", () => send([question.candidates.map((_, place) => place)]));
$("undo").addEventListener("click", () => change("/undo", { token: question.token },
  `Answer ${question.answered} is undone; here is its question again.`));
$("more").addEventListener("click", () => change("/more", { questions: 20 }, ""));
$("best").addEventListener("toggle", best);

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && drag.card) { release(); return; }
  if (!$("keys").checked || !question || sending) return;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("audio, input, a, summary")) return;
  if (event.key === "Enter" && event.target.closest("button")) return;
  const done = question.answered >= question.questions;
  const last = placed().at(-1);
  if (event.key.toLowerCase() === "u" && !$("undo").disabled) $("undo").click();
  else if (done) return;
  else if (/^[0-9]$/.test(event.key)) {
    const place = (Number(event.key) + 9) % 10;
    if (place < question.candidates.length) toggle(place);
  } else if (event.key === "Backspace" && last !== undefined) toggle(last);
  else if (event.key === "=" && last !== undefined && !choosing()) tie(last);
  else if (event.key === "Enter" && !$("send").disabled) $("send").click();
  else return;
  event.preventDefault();
});

document.addEventListener("visibilitychange", look);
window.addEventListener("focus", look);
window.addEventListener("pageshow", (event) => { if (event.persisted) look(); });
load();
