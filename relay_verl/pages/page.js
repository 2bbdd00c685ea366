"use strict"; // page_cards.js stands before it in the same script
const CHUNK = 100, FOLD_CHARS = 2400, FOLD_LINES = 18, TYPING_MS = 120;
const byId = (id) => document.getElementById(id);
const { responses, names, notes, lead, is_training: isTraining, cut_reasons: cutReasons } = JSON.parse(byId("data").textContent);
byId("data").remove();
const form = byId("filters"), list = byId("list"), more = byId("more");
const named = (key) => (Object.hasOwn(names, key) ? names[key] : key);
const plural = (n, noun) => `${n.toLocaleString("en")} ${noun}${n === 1 ? "" : "s"}`;
let matches = [], numShown = 0;

// ---- filters: each has a test and values, whose labels count the responses that the other filters let through ----

const CALLS = {
  some: ["called", (r) => r.called],
  none: ["did not call", (r) => !r.called],
  several: ["called more than once", (r) => r.calls > 1],
  short: ["asked for more than it got", (r) => r.short],
  malformed: ["malformed command", (r) => r.malformed > 0],
};
const JUDGE = { agrees: "agrees with the rule", disagrees: "disagrees with the rule", none: "gave no verdict" };
const SCENARIOS = ["student-solvable", "teacher-dependent", "teacher-unsolvable"];
const ORDERS = {
  recorded: ["as recorded", (a, b) => a.index - b.index],
  teacher: ["most teacher tokens", (a, b) => b.teacher - a.teacher],
  longest: ["longest", (a, b) => b.tokens - a.tokens],
  slowest: ["slowest", (a, b) => b.latency - a.latency],
};

const distinct = (key) => [...new Set(responses.map((response) => response[key]))];
const equals = (key) => (response, value) => response[key] === value;
const FACETS = [
  { name: "condition", values: distinct("condition"), label: named, test: equals("condition") },
  { name: "benchmark", values: distinct("benchmark"), label: named, test: equals("benchmark") },
  { name: "verdict", values: distinct("verdict").sort(), label: (value) => value, test: equals("verdict") },
  { name: "judge", values: Object.keys(JUDGE), label: (value) => JUDGE[value], test: (r, value) => r.judge?.view === value },
  { name: "scenario", values: SCENARIOS, label: (value) => value, test: equals("scenario") },
  { name: "calls", values: Object.keys(CALLS), label: (value) => CALLS[value][0],
    test: (r, value) => Object.hasOwn(CALLS, value) && CALLS[value][1](r) },
];

for (const { name, values } of FACETS) {
  const select = form.elements[name];
  select.append(new Option("all", ""), ...values.map((value) => new Option(value, value)));
  if (name === "judge") select.parentElement.hidden = !responses.some((response) => response.judge);
}
form.elements.order.append(new Option(isTraining ? "by question, newest step first" : "by question", ""));
for (const [value, [label]] of Object.entries(ORDERS)) form.elements.order.append(new Option(label, value));

// By question: first those on which the leading condition called, then the others, each in the order of the records; of
// one question the leading condition comes first. Steps of a training are not put together, and the newest is first.
const questions = new Map(), conditionRanks = new Map([lead, ...distinct("condition")].filter((name) => name !== null).map((name, i, all) => [name, all.indexOf(name)]));
responses.forEach((response, index) => {
  response.index = index;
  const key = JSON.stringify([response.benchmark, response.id, isTraining ? response.condition : ""]);
  if (!questions.has(key)) questions.set(key, { number: questions.size, hasAsked: false });
  response.group = questions.get(key);
  response.group.hasAsked ||= response.asked && (lead === null || response.condition === lead);
});
const byQuestion = (a, b) =>
  b.group.hasAsked - a.group.hasAsked
  || (isTraining ? b.group.number - a.group.number : a.group.number - b.group.number)
  || conditionRanks.get(a.condition) - conditionRanks.get(b.condition)
  || a.index - b.index;

function makeSearch(text) {
  const needle = text.trim(), lowered = needle.toLowerCase();
  if (!needle) return () => true;
  if (needle.startsWith("id:")) return (response) => response.id.trim() === needle.slice(3).trim();
  return (response) => {
    response.haystack ??= [response.id, response.question, response.truth, response.answer ?? "", wholeText(response)]
      .join("\n").toLowerCase();
    return response.haystack.includes(lowered);
  };
}

// The responses that pass every filter; a response that fails only one is counted for that one's other values.
function findMatches() {
  const isFound = makeSearch(form.elements.search.value);
  const chosen = FACETS.map(({ name }) => form.elements[name].value);
  const counts = FACETS.map(({ values }) => new Map(values.map((value) => [value, 0])));
  const found = responses.filter((response) => {
    const failed = [];
    FACETS.forEach(({ test }, i) => chosen[i] && !test(response, chosen[i]) && failed.push(i));
    if (failed.length > 1 || !isFound(response)) return false;
    for (const i of failed.length ? failed : FACETS.keys()) {
      for (const value of FACETS[i].values) {
        if (FACETS[i].test(response, value)) counts[i].set(value, counts[i].get(value) + 1);
      }
    }
    return !failed.length;
  });
  FACETS.forEach(({ name, label }, i) => {
    for (const option of form.elements[name].options) {
      if (counts[i].has(option.value)) option.text = `${label(option.value)} (${counts[i].get(option.value).toLocaleString("en")})`;
    }
  });
  const order = form.elements.order.value;
  return found.sort(Object.hasOwn(ORDERS, order) ? ORDERS[order][1] : byQuestion);
}

// ---- the list, the address and the keys ----

// Shows CHUNK responses more, and by question the rest of the last one's.
function showMore() {
  const isByQuestion = !Object.hasOwn(ORDERS, form.elements.order.value), end = numShown + CHUNK;
  while (numShown < Math.min(end, matches.length)) {
    let next = numShown + 1;
    while (isByQuestion && next < matches.length && matches[next].group === matches[numShown].group) next += 1;
    list.append(next - numShown > 1 ? makeQuestion(matches.slice(numShown, next)) : makeCard(matches[numShown]));
    numShown = next;
  }
  more.hidden = numShown === matches.length;
}

function update() {
  matches = findMatches();
  numShown = 0;
  list.replaceChildren();
  showMore();
  const part = matches.length === responses.length ? "" : ` of ${responses.length.toLocaleString("en")}`;
  byId("count").textContent = matches.length ? plural(matches.length, "response") + part : "No response fits.";
  byId("place").textContent = "";
  byId("reset").hidden = matches.length === responses.length;
  document.body.removeAttribute("aria-busy");
}

function readAddress() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  form.reset();
  for (const field of form.elements) {
    const value = wanted.get(field.name) ?? "";
    field.value = value;
    if (field.value === value) continue;
    field.append(new Option(value, value)); // a value that no response here has: the view is empty, and says which it is
    field.value = value;
  }
  update();
}

function writeAddress() {
  const filled = [...new FormData(form)].filter(([, value]) => value);
  history.replaceState(null, "", `${location.pathname}${location.search}${filled.length ? "#" : ""}${new URLSearchParams(filled)}`);
}

let timer;
form.onsubmit = (event) => event.preventDefault();
form.oninput = (event) => {
  document.body.setAttribute("aria-busy", "true");
  clearTimeout(timer);
  const apply = () => (writeAddress(), update());
  if (event.target.type === "search") timer = setTimeout(apply, TYPING_MS);
  else apply();
};
window.onhashchange = () => {
  readAddress();
  form.scrollIntoView();
};

function step(delta) {
  const current = document.activeElement.closest("article");
  const at = current ? [...list.querySelectorAll("article")].indexOf(current) + delta : 0;
  if (at === numShown && at < matches.length) showMore();
  const card = list.querySelectorAll("article")[at];
  if (!card) return;
  card.focus({ preventScroll: true });
  card.scrollIntoView();
}

list.addEventListener("focusin", (event) => {
  const card = event.target.closest("article");
  if (!card) return;
  const at = [...list.querySelectorAll("article")].indexOf(card);
  byId("place").textContent = `at ${(at + 1).toLocaleString("en")}`;
});

const KEYS = {
  j: () => step(1), ArrowRight: () => step(1), k: () => step(-1), ArrowLeft: () => step(-1),
  o: () => document.activeElement.closest("article")?.querySelector(".fold")?.click(),
  "/": () => form.elements.search.focus(),
};
document.onkeydown = (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("select, input")) return;
  if (!Object.hasOwn(KEYS, event.key)) return;
  event.preventDefault();
  KEYS[event.key]();
};

// ---- the summary: as one table if it fits, else in parts ----

const table = byId("table");
function fitTable() {
  table.classList.remove("split");
  table.classList.toggle("split", table.scrollWidth > table.clientWidth);
  const parts = table.querySelector(".parts");
  for (const part of parts.children) {
    part.classList.remove("full", "stacked");
    const columnWidth = parseFloat(getComputedStyle(parts).gridTemplateColumns);
    part.classList.toggle("full", part.offsetWidth > columnWidth + 1);
    part.classList.toggle("stacked", part.offsetWidth > parts.clientWidth);
  }
}
window.onresize = fitTable;
table.closest("details")?.addEventListener("toggle", fitTable);
fitTable();

more.onclick = showMore;
byId("reset").onclick = () => (location.hash = "");
new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && showMore(),
  { rootMargin: "800px" }).observe(more);
readAddress();
