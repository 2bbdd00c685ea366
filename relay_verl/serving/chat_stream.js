"use strict"; // what a server streams, and what it means; no element of the page. chat.js follows in the same script

const COMMAND = /^<call>(\d+)<\/call>$/;

// The events of a response's body as objects; ends at [DONE], and throws where the body ends without it.
async function* readEvents(body) {
  let rest = "";
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Error("the connection ended in the middle of the answer");
    const lines = (rest + value).split(/\r?\n/);
    rest = lines.pop(); // it may continue in the next piece
    for (const line of lines) {
      if (!line.startsWith("data:")) continue; // a blank line or a comment
      const data = line.slice(5).trim();
      if (data === "[DONE]") return;
      yield JSON.parse(data);
    }
  }
}

// One answer while it is written: pieces in order (student, teacher or command), and what it cost so far.
class Answer {
  pieces = [];
  studentTokens = 0;
  teacherTokens = 0;
  numCalls = 0;
  numFailed = 0;
  isBudgetSpent = false;
  finishReason = null;
  problem = "";
  isStopped = false;
  seconds = null;

  // Takes one event of the stream; returns the pieces that it changed.
  take(event) {
    if (event.error) throw new Error(event.error.message);
    const changed = new Set();
    this.#count(event.usage?.relay, changed);
    for (const { delta, finish_reason: reason } of event.choices ?? []) {
      if (delta?.content) for (const piece of this.#append(delta.content, delta.relay)) changed.add(piece);
      if (reason) this.finishReason = reason;
    }
    return changed;
  }

  #append(text, relay) {
    const kind = relay?.kind === "command" ? "command" : relay?.source === "teacher" ? "teacher" : "student";
    const last = this.pieces.at(-1);
    if (kind !== "command" && last?.kind === kind) {
      last.text += text;
      return [last];
    }
    const texts = kind === "command" ? text.split(/(?<=<\/call>)/) : [text]; // two commands may come as one text
    const pieces = texts.map((each) => ({ kind, text: each, delivered: 0, outcome: "" }));
    this.pieces.push(...pieces);
    return pieces;
  }

  // Usage says how many tokens the teacher has written and how many calls failed: what is new belongs to the last command.
  #count(relay, changed) {
    if (!relay) return;
    const call = this.pieces.findLast((piece) => piece.kind === "command");
    const delivered = relay.teacher_tokens - this.teacherTokens, failed = relay.num_failed_calls - this.numFailed;
    if (call && (delivered || failed)) {
      call.delivered += delivered;
      call.outcome = call.delivered ? "served" : "failed";
      changed.add(call);
    }
    this.studentTokens = relay.student_tokens;
    this.teacherTokens = relay.teacher_tokens;
    this.numCalls = relay.num_calls;
    this.numFailed = relay.num_failed_calls;
    this.isBudgetSpent = Boolean(relay.is_budget_spent);
  }

  // The commands that can get nothing any more, since the student has written on or the answer is over.
  settle(isOver) {
    const settled = this.pieces.filter((piece, i) => piece.kind === "command" && !piece.outcome &&
      (isOver || ![undefined, "teacher"].includes(this.pieces[i + 1]?.kind)));
    for (const piece of settled) piece.outcome = "not served";
    return settled;
  }

  get tokens() {
    return this.studentTokens + this.teacherTokens;
  }

  // What the next turn of the conversation shows the models: a command is not part of what was said.
  get text() {
    return this.pieces.filter((piece) => piece.kind !== "command").map((piece) => piece.text).join("");
  }
}

// What a chip says next to the command: "12 of 20", "failed", "not served", or "…" while it is open.
function noteOf(piece) {
  if (piece.outcome !== "served") return piece.outcome || "…";
  const asked = COMMAND.exec(piece.text)?.[1];
  return asked ? `${piece.delivered} of ${Number(asked)}` : `${piece.delivered}`;
}
