// ---- cards: everything a model or a data set wrote enters the page here, as text ----

function make(tag, className, ...children) {
  const element = document.createElement(tag);
  element.className = className;
  element.append(...children);
  return element;
}

const wholeText = (response) => response.pieces.map((piece) => piece.text).join("");
const titled = (heading, ...content) => make("div", "", make("h2", "", heading), ...content);
const badge = (kind, text) => make("span", `badge ${kind}`, text);

function makePiece(piece) {
  if (piece.kind === "student") return piece.text;
  const unserved = piece.kind === "call" && piece.outcome !== "served";
  const element = make("span", unserved ? "call unserved" : piece.kind, piece.kind === "end" ? "∎" : piece.text);
  element.title = piece.cut ? `${piece.tip}: ${cutReasons[piece.cut]}` : piece.tip;
  if (piece.note) element.dataset.note = piece.cut ? `${piece.note} · ${piece.cut}` : piece.note;
  return element;
}

function makeResponse(response) {
  const text = make("div", "text response", ...response.pieces.map(makePiece));
  const whole = wholeText(response);
  if (!whole) text.append(make("span", "none", "empty"));
  if (whole.length <= FOLD_CHARS && whole.split("\n").length <= FOLD_LINES) return [text];
  const button = make("button", "fold", "Show the whole response");
  button.type = "button";
  text.classList.add("folded");
  button.onclick = () => (button.textContent = text.classList.toggle("folded") ? "Show the whole response" : "Show less");
  return [text, button];
}

function makeBar(response) {
  const bar = make("div", "bar");
  bar.setAttribute("aria-hidden", "true");
  for (const [source, numTokens] of response.bar) {
    const part = make("span", source);
    part.style.flex = `${numTokens} 0 0`;
    bar.append(part);
  }
  return bar;
}

function makeId(response) {
  const id = make("a", "id", response.id);
  id.href = `#${new URLSearchParams({ benchmark: response.benchmark, search: `id:${response.id}` })}`;
  id.title = "every response to this question";
  return id;
}

function makeBenchmark(response) {
  const element = make("span", "", named(response.benchmark));
  if (Object.hasOwn(notes, response.benchmark)) element.title = notes[response.benchmark];
  return element;
}

function makeScenario(response) {
  const element = make("span", "", response.scenario);
  element.title = response.basis;
  return element;
}

function makeFacts(response, inGroup) {
  const { verdict, judge } = response;
  const numbers = [plural(response.tokens, "token")];
  if (response.teacher) numbers.push(`${response.teacher.toLocaleString("en")} by the teacher (${(100 * response.ratio).toFixed(1)}%)`);
  if (response.calls) numbers.push(plural(response.calls, "call"));
  if (response.malformed) numbers.push(plural(response.malformed, "malformed command"));
  numbers.push(`${response.latency.toFixed(2)} s`);
  const symbol = { correct: "✓ ", wrong: "✗ " }[verdict] ?? "– ";
  const status = response.status === "completed" ? "" : ` (${response.status.replaceAll("_", " ")})`;
  const facts = make("div", "facts", badge(["correct", "wrong"].includes(verdict) ? verdict : "", symbol + verdict + status));
  if (judge) {
    const said = judge.is_correct === null ? "no verdict" : judge.is_correct ? "correct" : "wrong";
    facts.append(badge(judge.is_correct === null ? "" : said, `judge: ${said}`));
  }
  facts.append(make("strong", "", named(response.condition)));
  if (!inGroup) facts.append(makeBenchmark(response), makeId(response));
  if (response.samples > 1) facts.append(make("span", "sample", `sample ${response.sample + 1} of ${response.samples}`));
  if (response.scenario && !inGroup) facts.append(makeScenario(response));
  facts.append(make("span", "numbers", numbers.join(" · ")));
  return facts;
}

function makeCard(response, inGroup = false) {
  const { judge } = response;
  const answer = response.answer === null ? make("div", "none", "none found") : make("div", "text", response.answer);
  const answers = make("div", "answers", titled("Answer", answer));
  if (!inGroup) answers.append(titled("Ground truth", make("div", "text", response.truth)));
  if (judge?.reply) answers.append(titled("The judge's reply", make("div", "text", judge.reply)));
  if (judge?.error) answers.append(titled("Why the judge gave no verdict", make("div", "text", judge.error)));
  const card = make(
    "article", "", makeFacts(response, inGroup),
    ...(inGroup ? [] : [titled("Question", make("div", "text", response.question))]),
    titled("Response", ...(response.teacher ? [makeBar(response)] : []), ...makeResponse(response)),
    answers,
  );
  card.tabIndex = -1;
  return card;
}

// The responses to one question side by side, under what they share.
function makeQuestion(group) {
  const [first] = group, scenarios = new Set(group.map((response) => response.scenario));
  const facts = make("div", "facts", makeBenchmark(first), makeId(first));
  if (first.scenario && scenarios.size === 1) facts.append(makeScenario(first));
  const texts = make("div", "answers", titled("Question", make("div", "text", first.question)), titled("Ground truth", make("div", "text", first.truth)));
  const section = document.createElement("section");
  section.className = "question";
  section.append(make("div", "about", facts, texts), make("div", group.length === 4 ? "grid four" : "grid", ...group.map((response) => makeCard(response, true))));
  return section;
}
