// ---- the page: everything a model or a user wrote enters it here, as text ----

const BUDGETS = [0, 10, 20, 50, 100, 200, 500, 1000, 2000, null]; // null: no limit
const SILENCE_MS = 660_000; // longer than the server gives a request: what is silent for so long has lost its connection
const MODELS_MS = 15_000;
const KEY = "relay-verl key"; // in this tab's storage, until it is closed

const byId = (id) => document.getElementById(id);
const [log, model, budget, message, send, stop, clear, notice, keyForm] =
  ["log", "model", "budget", "message", "send", "stop", "clear", "notice", "key-form"].map(byId);
const turns = []; // { question, answer }
let running = null; // the AbortController of the answer that is being written

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children);
  return element;
}

const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

function say(text) {
  notice.textContent = text;
  notice.hidden = !text;
}

// ---- the server ----

async function ask(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...(options.body && { "Content-Type": "application/json" }), ...(key && { Authorization: `Bearer ${key}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Error("the server does not answer");
  }
  if (response.ok) return response;
  if (response.status === 401) showKeyForm();
  const said = (await response.json().catch(() => null))?.error?.message;
  throw new Error(said ?? `the server answers with status ${response.status}`);
}

async function loadModels() {
  say("");
  try {
    const response = await ask("v1/models", { signal: AbortSignal.timeout(MODELS_MS) });
    const names = (await response.json()).data.map((each) => each.id);
    model.replaceChildren(...names.map((name) => new Option(name)));
    model.disabled = false;
    keyForm.hidden = true;
    showBudget();
  } catch (error) {
    if (!keyForm.hidden) return;
    say(`The models could not be listed: ${error.message}. `);
    const again = make("button", "again", "Try again");
    again.onclick = loadModels;
    notice.append(again);
  }
}

function showKeyForm() {
  keyForm.hidden = false;
  byId("key").focus();
}

keyForm.onsubmit = (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, byId("key").value);
  byId("key").value = "";
  loadModels();
};

// ---- settings ----

const limit = () => BUDGETS[budget.value];

function showBudget() {
  const never = /:(student|teacher-free)$/.test(model.value);
  budget.disabled = never;
  byId("budget-text").textContent = never ? "none, it never asks" : limit() === null ? "no limit" : `at most ${limit()}`;
}

budget.max = budget.value = BUDGETS.length - 1;
budget.oninput = model.onchange = showBudget;

// ---- an answer ----

function showShares(bar, answer) {
  const [teacher, student] = bar.children;
  teacher.hidden = !answer.teacherTokens;
  teacher.style.flex = `${answer.teacherTokens} 0 0`;
  student.style.flex = `${answer.studentTokens} 0 0`;
}

function numbersOf({ tokens, studentTokens, teacherTokens, numCalls, numFailed }) {
  const share = tokens ? ` (${((100 * teacherTokens) / tokens).toFixed(1)}%)` : "";
  const numbers = [plural(tokens, "token"), `student ${studentTokens.toLocaleString("en")}`,
    `teacher ${teacherTokens.toLocaleString("en")}${share}`, plural(numCalls, "call")];
  if (numFailed) numbers.push(plural(numFailed, "failed call"));
  return numbers.join(" · ");
}

function showTotals() {
  const total = { tokens: 0, studentTokens: 0, teacherTokens: 0, numCalls: 0, numFailed: 0 };
  for (const { answer } of turns) for (const name of Object.keys(total)) total[name] += answer[name];
  byId("totals").querySelector(".numbers").textContent = `Whole chat: ${numbersOf(total)}`;
  showShares(byId("totals").querySelector(".bar"), total);
  clear.disabled = !turns.length;
}

function makeMessage(kind, heading, ...content) {
  const text = make("div", "text", ...content);
  const article = make("article", `message ${kind}`, make("h2", "", heading), text);
  log.append(article);
  return { article, text };
}

class AnswerView {
  constructor(answer, name) {
    this.answer = answer;
    Object.assign(this, makeMessage("answer", name));
    this.facts = make("div", "facts soft numbers");
    this.bar = make("div", "bar", make("span", "teacher"), make("span", "student"));
    this.bar.setAttribute("aria-hidden", "true");
    this.bar.hidden = true;
    this.article.append(this.bar, this.facts);
    this.article.setAttribute("aria-busy", "true");
    this.elements = new Map();
  }

  show(changed) {
    for (const piece of changed) {
      if (!this.elements.has(piece)) {
        const element = make("span", piece.kind === "command" ? "call" : piece.kind);
        this.elements.set(piece, element);
        this.text.append(element);
      }
      const element = this.elements.get(piece);
      // a text grows at its end: the nodes before it stay as they are
      const shown = element.textContent.length;
      if (piece.text.length > shown) element.append(piece.text.slice(shown));
      if (piece.kind === "command") {
        element.dataset.note = noteOf(piece);
        element.classList.toggle("unserved", ["failed", "not served"].includes(piece.outcome));
      }
    }
    const { answer } = this;
    this.facts.textContent = numbersOf(answer);
    this.bar.hidden = !answer.teacherTokens;
    showShares(this.bar, answer);
  }

  finish(again) {
    const { answer } = this;
    this.show(answer.settle(true));
    this.article.removeAttribute("aria-busy");
    const notes = [this.facts.textContent, `${answer.seconds.toFixed(1)} s`];
    if (answer.isStopped) notes.push("stopped");
    if (answer.finishReason === "length") notes.push("cut: no tokens left");
    if (answer.isBudgetSpent) notes.push("the teacher's budget is spent");
    this.facts.textContent = notes.join(" · ");
    if (!answer.problem) return;
    const problem = make("p", "problem", answer.problem);
    problem.setAttribute("role", "alert");
    this.facts.before(problem);
    const button = make("button", "again", "Try again");
    button.onclick = again;
    this.facts.append(button);
  }
}

const scrollToEnd = () => scrollTo(0, document.documentElement.scrollHeight);

// Changes the page, and stays at its end for a reader who is there.
function following(change) {
  const isAtEnd = innerHeight + scrollY >= document.documentElement.scrollHeight - 40;
  change();
  if (isAtEnd) scrollToEnd();
}

// The conversation as the models see it: turns that failed, or were stopped before a word, are left out.
function messagesUpTo(turn) {
  const before = turns.slice(0, turns.indexOf(turn)).filter(({ answer }) => answer.text && !answer.problem);
  const said = before.flatMap(({ question, answer }) => [
    { role: "user", content: question }, { role: "assistant", content: answer.text },
  ]);
  return [...said, { role: "user", content: turn.question }];
}

async function write(turn, view, signal) {
  const { answer } = turn;
  const relay = { show_commands: true, ...(limit() !== null && !budget.disabled && { max_teacher_tokens: limit() }) };
  const body = JSON.stringify({
    model: model.value, messages: messagesUpTo(turn), stream: true, relay,
    stream_options: { include_usage: true, continuous_usage_stats: true },
  });
  const response = await ask("v1/chat/completions", { method: "POST", body, signal });
  let silence;
  const listen = () => {
    clearTimeout(silence);
    silence = setTimeout(() => running?.abort(new Error("the server has been silent for too long")), SILENCE_MS);
  };
  try {
    listen();
    for await (const event of readEvents(response.body)) {
      listen();
      const changed = answer.take(event);
      following(() => {
        view.show([...changed, ...answer.settle(false)]);
        showTotals();
      });
    }
  } finally {
    clearTimeout(silence);
  }
}

async function answerTo(question) {
  const answer = new Answer(), turn = { question, answer };
  turns.push(turn);
  const asked = makeMessage("user", "You", question), view = new AnswerView(answer, model.value);
  byId("about").hidden = true;
  scrollToEnd();
  running = new AbortController();
  setBusy(true);
  const started = performance.now();
  try {
    await write(turn, view, running.signal);
  } catch (error) {
    answer.isStopped = running.signal.aborted && running.signal.reason?.name === "AbortError";
    if (!answer.isStopped) answer.problem = running.signal.aborted ? running.signal.reason.message : error.message;
  }
  answer.seconds = (performance.now() - started) / 1000;
  running = null;
  setBusy(false);
  const again = () => {
    if (running) return;
    turns.splice(turns.indexOf(turn), 1); // the new turn is at the end
    asked.article.remove();
    view.article.remove();
    answerTo(question);
  };
  following(() => {
    view.finish(again);
    showTotals();
  });
}

// ---- typing, stopping, starting anew ----

function setBusy(isBusy) {
  send.hidden = isBusy;
  stop.hidden = !isBusy;
  message.focus({ preventScroll: true }); // not the button that is about to vanish
}

byId("composer").onsubmit = (event) => {
  event.preventDefault();
  const question = message.value.trim();
  if (running || !question) return;
  if (model.disabled) return loadModels();
  message.value = "";
  answerTo(question);
};
message.onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  byId("composer").requestSubmit();
};
document.addEventListener("keydown", (event) => event.key === "Escape" && running?.abort());
stop.onclick = () => running?.abort();
clear.onclick = () => {
  running?.abort();
  turns.length = 0;
  log.replaceChildren();
  byId("about").hidden = false;
  showTotals();
  message.focus();
};
byId("settings").onsubmit = (event) => event.preventDefault();

showBudget();
showTotals();
loadModels();
