"use strict";
// State of the page: visible methods, the cost axis, and the colour theme.

const data = JSON.parse(document.getElementById("data").textContent);
const page = { axis: data.axis, hidden: new Set(), marks: data.marks, names: data.names };

const charts = data.charts.map(
  (spec) => new Chart(spec, document.getElementById(`figure-${spec.id}`), page),
);
const redraw = () => charts.forEach((chart) => { chart.window = null; chart.draw(); });

for (const place of document.querySelectorAll("[data-swatch]")) {
  place.prepend(swatch(page.marks[Number(place.dataset.swatch)]));
}

// --- Methods

const legend = [...document.querySelectorAll("#legend button[data-method]")];

function apply() {
  for (const button of legend) {
    button.setAttribute("aria-pressed", String(!page.hidden.has(Number(button.dataset.method))));
  }
  for (const row of document.querySelectorAll("tr[data-method]")) {
    row.classList.toggle("off", page.hidden.has(Number(row.dataset.method)));
  }
  charts.forEach((chart) => chart.draw());
}

for (const button of legend) {
  const method = Number(button.dataset.method);
  button.addEventListener("click", () => {
    if (!page.hidden.delete(method)) page.hidden.add(method);
    apply();
  });
  button.addEventListener("dblclick", () => {
    page.hidden = new Set(legend.map((each) => Number(each.dataset.method)));
    page.hidden.delete(method);
    apply();
  });
}
document.getElementById("everyone")?.addEventListener("click", () => {
  page.hidden.clear();
  apply();
});

// --- Wide tables: a hint, and a stop of the Tab key only where there is something to scroll

for (const sheet of document.querySelectorAll(".sheet")) {
  const hint = element("p", { class: "hint", "aria-hidden": "true" }, "More columns: scroll sideways →");
  sheet.before(hint);
  const update = () => {
    const more = sheet.scrollWidth - sheet.clientWidth;
    hint.hidden = more < 2;
    sheet.classList.toggle("more", more - sheet.scrollLeft > 2);
    if (more < 2) sheet.removeAttribute("tabindex");
    else sheet.tabIndex = 0;
  };
  sheet.addEventListener("scroll", update, { passive: true });
  new ResizeObserver(update).observe(sheet);
  update();
}

// --- Axis of cost

for (const choice of document.querySelectorAll("input[name=axis]")) {
  choice.addEventListener("change", () => {
    page.axis = choice.value;
    redraw();
  });
}

// --- Colours: the system's, until the user selects others

const theme = document.getElementById("theme");
const stored = { get: () => null, set: () => undefined };
try {
  window.localStorage.getItem("anyorder-theme");
  stored.get = () => window.localStorage.getItem("anyorder-theme");
  stored.set = (value) => window.localStorage.setItem("anyorder-theme", value);
} catch {
  // A page opened from a file may have no storage; then the choice lasts while the page is open.
}
function colours(value) {
  if (value === "light" || value === "dark") document.documentElement.dataset.theme = value;
  else delete document.documentElement.dataset.theme;
  theme.value = value || "system";
}
theme.addEventListener("change", () => {
  colours(theme.value);
  stored.set(theme.value);
});
colours(stored.get());

// --- Copying the command

const copy = document.getElementById("copy");
copy?.addEventListener("click", async () => {
  const command = document.getElementById("command");
  try {
    await navigator.clipboard.writeText(command.textContent.trim());
    copy.textContent = "copied";
  } catch {
    window.getSelection().selectAllChildren(command); // no clipboard for files in some browsers
    copy.textContent = "selected";
  }
});
